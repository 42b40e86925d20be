// The guides of a clip, looked at before a GPU is used.
import { html, nothing } from '../vendor/lit.js';
import { get, post, session } from '../api.js';
import { fromOne, rate } from '../format.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { addressOf, called, isOpen } from '../parts/job.js';
import { progress, warnings } from '../parts/progress.js';
import { tried } from '../parts/toasts.js';
import { Watched } from '../parts/watched.js';
import '../parts/people.js';
import '../parts/player.js';
import '../parts/shot-record.js';
import '../parts/source.js';
import '../parts/trim.js';

const MOST = 20;

class GuidesView extends Watched {
  static properties = { layout: { state: true }, seed: { state: true }, made: { state: true }, busy: { state: true }, change: { state: true }, most: { state: true }, opened: { state: true }, refused: { state: true } };

  constructor() {
    super();
    this.layout = 'beside';
    this.seed = '';
    this.made = [];
    this.change = {};
  }

  willUpdate(changed) {
    super.willUpdate(changed);
    if (changed.has('id')) Object.assign(this, { change: {}, opened: false, refused: null });
  }

  async loaded() {
    if (this.job.state !== 'succeeded') return;
    this.seed ||= this.job.submission.generate.seed ?? '';
    const { data } = await get('jobs?kind=generate&limit=100').catch(() => ({ data: [] }));
    this.made = data.filter((job) => job.parent === this.id).slice(0, MOST);
    this.most ??= (await get('models').catch(() => ({}))).largest_upload;
  }

  // What is asked of the preparer now, with what was changed here: who is followed, the stretch, the mask.
  get #asked() {
    const { submission, facts } = this.job;
    const { person, at, first, stop, mask } = this.change;
    const preprocess = { ...submission.preprocess };
    if (person !== undefined) preprocess.person = at ? `${person}@${at}` : person;
    const time = (frame) => (facts.start ?? 0) + frame / rate(facts.fps);
    if (first) preprocess.start = time(first);
    if (stop !== undefined && stop < facts.frames) preprocess.end = time(stop);
    const { image, video, mode, tier, checkpoint, generate, output, loras, speed, prompt, name } = submission;
    return { kind: 'preprocess', mode, image, video, mask: mask === undefined ? submission.mask : mask && { upload: mask.id }, tier, checkpoint, preprocess, generate, output, loras, speed, prompt, name };
  }

  get #dirty() {
    const { person, first, stop, mask } = this.change;
    return person !== undefined || mask !== undefined || !!first || (stop !== undefined && stop < this.job.facts.frames);
  }

  async #again() {
    this.busy = true;
    this.refused = null;
    try {
      go(`guides/${(await post('jobs', this.#asked)).id}`);
    } catch (error) {
      this.refused = error;
    }
    this.busy = false;
  }

  #set(more) {
    this.change = { ...this.change, ...more };
  }

  async #go() {
    this.busy = true;
    const { generate, output, loras, speed, prompt, name, checkpoint } = this.job.submission;
    const seed = String(this.seed).trim() === '' ? {} : { seed: Number(this.seed) };
    const { seed: _, ...others } = generate;
    const body = { kind: 'generate', parent: this.id, generate: { ...others, ...seed }, output: { sheet: true, ...output }, loras, speed, prompt, name, checkpoint };
    const job = await tried(() => post('jobs', body));
    this.busy = false;
    if (job) go(`jobs/${job.id}`);
  }

  #layouts() {
    const replaces = this.job.mode === 'replacement';
    return [['beside', t.guides.beside], ...(replaces ? [['over', t.guides.over], ['mask', t.guides.maskOver]] : [['character', t.guides.overPicture]])];
  }

  #tracks() {
    const track = (id) => ({ id, url: this.files[`previews/${id}.mp4`]?.url, label: t.guides[id], fps: rate(this.job.facts.fps) });
    const known = (tracks) => tracks.filter((one) => one.url);
    if (this.layout === 'over') return known([track('driver'), track('pose')]);
    if (this.layout === 'mask') return known([track('driver'), track('mask')]);
    if (this.layout === 'character') return known([{ id: 'picture', url: this.files['guides/reference.png']?.url ?? this.files.reference?.url, label: t.guides.picture, still: true }, track('pose')]);
    return known(['driver', 'pose', 'face', ...(this.job.mode === 'replacement' ? ['mask'] : [])].map(track));
  }

  #gaps(gaps) {
    const missing = gaps.reduce((sum, [a, b]) => sum + b - a, 0);
    if (!missing) return html`<p class="note good">${t.guides.good}</p>`;
    return html`<div class="note warn"><p>${t.guides.gaps(missing, this.job.facts.frames)}</p><div class="line">${gaps.map(([a, b]) => html`<button class="quiet" aria-label=${t.guides.showGap(a + 1, b)} @click=${() => this.querySelector('wa-player')?.show(a)}>${t.guides.stretch(a + 1, b)}</button>`)}</div></div>`;
  }

  #changes() {
    const { submission, mode } = this.job;
    const [person, at = ''] = String(submission.preprocess.person ?? 'largest').split('@');
    const chosen = { person, at, ...this.change };
    return html`<details class="card change" ?open=${this.opened} @toggle=${(e) => (this.opened = e.target.open)}><summary>${t.guides.change}</summary>${!this.opened ? nothing : html`<div class="stack">
      <p class="hint">${t.guides.changeAbout}</p>
      <wa-people .video=${submission.video} .person=${chosen.person} .at=${chosen.at} .start=${submission.preprocess.start ?? ''} @chosen=${(e) => this.#set(e.detail)}></wa-people>
      ${mode === 'replacement'
        ? html`<wa-source .kind=${'mask'} .label=${t.start.mask} .hint=${t.start.maskHint} .value=${this.change.mask ?? null} .most=${this.most}
              .trouble=${this.refused?.field?.endsWith('mask') ? this.refused.message : ''} @changed=${(e) => this.#set({ mask: e.detail ?? undefined })}></wa-source>
            ${submission.mask && !this.change.mask ? html`<p class="hint">${t.guides.maskKept}</p>` : nothing}`
        : nothing}</div>`}</details>`;
  }

  #decide() {
    const dirty = this.#dirty;
    return html`<section class="card stack">
      ${dirty
        ? html`<p role="status">${t.guides.changed}</p><div><button class="main" ?disabled=${this.busy} @click=${() => this.#again()}>${t.guides.again}</button></div>`
        : html`<label class="field"><span>${t.guides.seed}</span><input type="number" min="0" step="1" placeholder=${t.start.seedHint} .value=${String(this.seed)} @input=${(e) => (this.seed = e.target.value)}></label>
            <div><button class="main" ?disabled=${this.busy} @click=${() => this.#go()}>${t.guides.go}</button></div><p class="hint">${t.guides.goAbout}</p>`}
      ${this.refused && !this.refused.field?.endsWith('mask') ? html`<p class="note bad" role="alert">${this.refused.message}</p>` : nothing}</section>`;
  }

  #done() {
    const { facts } = this.job;
    const gaps = facts.no_person ?? [];
    const tracks = this.#tracks();
    const record = facts.shots ? html`<wa-shot-record .job=${this.id} @sought=${(e) => this.querySelector('wa-player')?.show(e.detail)}></wa-shot-record>` : nothing;
    return html`<div class="watch">
      <section class="stack" aria-label=${t.guides.title}>
        ${tracks.length
          ? html`<div class="switch" role="group" aria-label=${t.guides.layout}>${this.#layouts().map(([name, words]) => html`<button aria-pressed=${this.layout === name ? 'true' : 'false'} @click=${() => (this.layout = name)}>${words}</button>`)}</div>
            <wa-player .tracks=${tracks} .count=${facts.frames} .fps=${rate(facts.fps)} .gaps=${gaps} .layout=${this.layout === 'beside' ? 'side' : 'over'} .blend=${this.layout === 'mask' ? 'mask' : 'lines'}></wa-player>
            ${record}${session.is('submit') ? html`<section class="card stack tight" aria-label=${t.trim.label}><h2>${t.trim.label}</h2><wa-trim .count=${facts.frames} .fps=${rate(facts.fps)} .first=${this.change.first ?? 0} .stop=${this.change.stop ?? facts.frames} .gaps=${gaps} .origin=${facts.start ?? 0} .hint=${`${t.trim.about} ${t.trim.guides}`}
              @trimmed=${(e) => this.#set(e.detail)} @sought=${(e) => this.querySelector('wa-player').show(e.detail)}></wa-trim></section>` : nothing}`
          : html`<p class="note">${t.guides.none}</p>${record}`}
      </section>
      <div class="stack">
        ${this.#gaps(gaps)}${warnings(this.job)}
        ${session.is('submit')
          ? html`${this.#decide()}${this.#changes()}
            <section class="card stack"><div><a class="button" href="#/start?from=${this.id}">${t.guides.back}</a></div><p class="hint">${t.guides.backAbout}</p></section>`
          : nothing}
        ${this.made.length ? html`<section class="card stack"><h2>${t.guides.made}</h2><ul class="stack tight">${this.made.map((job) => html`<li><a href=${addressOf(job)}>${called(job)}</a> <span class="soft">${t.states[job.state]}</span></li>`)}</ul></section>` : nothing}
      </div></div>`;
  }

  render() {
    const { job } = this;
    if (this.trouble) return html`<div class="empty"><h1>${t.guides.title}</h1><p class="note bad" role="alert">${this.trouble}</p><a class="button" href="#/jobs">${t.jobs.title}</a></div>`;
    if (!job) return html`<h1 class="soft">${t.jobs.loading}</h1>`;
    if (isOpen(job)) return html`<div class="head"><div><h1>${t.guides.working}</h1><p class="soft">${t.guides.workingAbout}</p></div></div><div class="single">${progress(job, t.guides.workingAbout, () => this.renew())}</div>`;
    const failed = job.state !== 'succeeded';
    return html`<div class="head"><div><h1>${t.guides.title}</h1><p class="soft">${failed ? called(job) : t.guides.about}</p></div></div>
      ${failed ? html`<div class="single stack"><p class="note bad" role="alert">${fromOne(job.error?.message) ?? t.compare.cancelled}</p>${warnings(job)}<div><a class="button main" href="#/start?from=${this.id}">${t.compare.tryAgain}</a></div></div>` : this.files ? this.#done() : nothing}`;
  }
}
customElements.define('wa-guides', GuidesView);
