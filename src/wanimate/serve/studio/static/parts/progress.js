// A job that is not finished, large: its newest preview, what it does, how to stop it.
import { html, nothing } from '../vendor/lit.js';
import { session } from '../api.js';
import { fromOne, percent } from '../format.js';
import { t } from '../texts.js';
import { bar, cancel, called, change, doing, stateOf, tag } from './job.js';

// Kinds that draw nothing anew, so that there is no preview of them.
const UNSEEN = ['preprocess', 'finish'];

export function progress(job, about, renew) {
  const picture = job.seen ? `/v1/jobs/${job.id}/preview.png?n=${job.seen}` : null;
  return html`<section class="card stack running-job">
    ${UNSEEN.includes(job.kind) ? nothing : picture ? html`<img class="preview" src=${picture} alt=${t.jobs.preview}>` : html`<div class="preview none"><p class="soft">${t.compare.noPreview}</p></div>`}
    <div class="line apart"><div class="line">${tag(job)}<strong>${job.in_work ? percent(job.progress.fraction) : ''}</strong></div>${job.failures ? html`<span class="tag">${t.compare.retry(job.attempt)}</span>` : nothing}</div>
    ${bar(job)}
    <p role="status">${doing(job) || about}</p>
    ${session.is('submit')
      ? html`<div class="line">
          <button class="danger" aria-label=${t.jobs.stopName(called(job))} ?disabled=${stateOf(job) === 'cancelling'} @click=${async () => (await cancel(job)) && renew()}>${t.jobs.stop}</button>
          <button @click=${async () => (await change(job, { held: !job.held })) && renew()}>${job.held ? t.jobs.release : t.jobs.hold}</button></div>`
      : nothing}
  </section>`;
}

export const warnings = (job) => (job.warnings.length ? html`<div class="note warn"><strong>${t.compare.warnings}</strong><ul>${job.warnings.map((text) => html`<li>${fromOne(text)}</li>`)}</ul></div>` : nothing);
