// One moment of the job with and without relighting, drawn by the checkpoint itself.
import { html, nothing } from '../vendor/lit.js';
import { Part } from './base.js';
import { api, files, get, post } from '../api.js';
import { percent } from '../format.js';
import { t } from '../texts.js';
import { doing } from './job.js';

const PACE = 1000;

class Relight extends Part {
  // job: the body of POST /v1/jobs of the kind relight, null where something is missing.
  static properties = { job: {}, running: { state: true }, pair: { state: true }, trouble: { state: true } };

  willUpdate(changed) {
    const key = JSON.stringify(this.job ?? null);
    if (!changed.has('job') || key === this.key) return;
    this.key = key;
    this.#stop();
    this.pair = this.trouble = null;
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#stop();
  }

  #stop() {
    if (this.running) api('DELETE', `jobs/${this.running.id}`).catch(() => null);
    this.turn = this.running = null;
  }

  async #draw() {
    const turn = (this.turn = {});
    this.pair = this.trouble = null;
    try {
      let job = await post('jobs', this.job);
      while (job.state === 'pending' || job.state === 'running') {
        if (this.turn !== turn) return;
        this.running = job;
        await new Promise((fulfil) => setTimeout(fulfil, PACE));
        if (this.turn !== turn) return;
        job = await get(`jobs/${job.id}`);
      }
      if (this.turn !== turn) return;
      this.running = null;
      if (job.state === 'failed') this.trouble = job.error.message;
      if (job.state !== 'succeeded') return;
      const found = await files(job.id);
      if (this.turn === turn) this.pair = { without: found.without.url, with: found.with.url, facts: job.facts };
    } catch (error) {
      if (this.turn !== turn) return;
      this.running = null;
      this.trouble = error.message;
    }
  }

  render() {
    const { running, pair, trouble } = this;
    if (!this.job) return nothing;
    return html`<div class="stack tight relight">
      ${running
        ? html`<div class="line"><span role="status">${t.relight.drawing} ${running.in_work ? percent(running.progress.fraction) : ''} <span class="soft">${doing(running)}</span></span>
            <button type="button" class="quiet" @click=${() => this.#stop()}>${t.relight.stop}</button></div>`
        : html`<div class="line"><button type="button" @click=${() => this.#draw()}>${pair ? t.relight.again : t.relight.show}</button></div>`}
      ${trouble ? html`<p class="note bad" role="alert">${trouble}</p>` : nothing}
      ${pair
        ? html`<div class="twin"><figure><img src=${pair.without} alt=${t.relight.without}><figcaption>${t.relight.without}</figcaption></figure>
            <figure><img src=${pair.with} alt=${t.relight.with}><figcaption>${t.relight.with}</figcaption></figure></div>
            <p class="hint">${t.relight.about(pair.facts.size.join(' × '), pair.facts.steps, pair.facts.seed)}</p>`
        : nothing}</div>`;
  }
}
customElements.define('wa-relight', Relight);
