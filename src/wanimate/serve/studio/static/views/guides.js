// The guides of a clip, looked at before a GPU is used.
import { html, nothing } from '../vendor/lit.js';
import { get, post, session } from '../api.js';
import { rate } from '../format.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { addressOf, called, isOpen } from '../parts/job.js';
import { progress, warnings } from '../parts/progress.js';
import { tried } from '../parts/toasts.js';
import { Watched } from '../parts/watched.js';
import '../parts/player.js';

const MOST = 20;

class GuidesView extends Watched {
  static properties = { layout: { state: true }, seed: { state: true }, made: { state: true }, busy: { state: true } };

  constructor() {
    super();
    this.layout = 'beside';
    this.seed = '';
    this.made = [];
  }

  async loaded() {
    if (this.job.state !== 'succeeded') return;
    this.seed ||= this.job.submission.generate.seed ?? '';
    const { data } = await get('jobs?kind=generate&limit=100').catch(() => ({ data: [] }));
    this.made = data.filter((job) => job.parent === this.id).slice(0, MOST);
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

  #done() {
    const { facts } = this.job;
    const gaps = facts.no_person ?? [];
    const tracks = this.#tracks();
    return html`<div class="watch">
      <section class="stack" aria-label=${t.guides.title}>
        ${tracks.length
          ? html`<div class="switch" role="group" aria-label=${t.guides.layout}>${this.#layouts().map(([name, words]) => html`<button aria-pressed=${this.layout === name ? 'true' : 'false'} @click=${() => (this.layout = name)}>${words}</button>`)}</div>
            <wa-player .tracks=${tracks} .count=${facts.frames} .fps=${rate(facts.fps)} .gaps=${gaps} .layout=${this.layout === 'beside' ? 'side' : 'over'} .blend=${this.layout === 'mask' ? 'mask' : 'lines'}></wa-player>`
          : html`<p class="note">${t.guides.none}</p>`}
      </section>
      <div class="stack">
        ${this.#gaps(gaps)}${warnings(this.job)}
        ${session.is('submit')
          ? html`<section class="card stack"><label class="field"><span>${t.guides.seed}</span><input type="number" min="0" step="1" placeholder=${t.start.seedHint} .value=${String(this.seed)} @input=${(e) => (this.seed = e.target.value)}></label>
              <div><button class="main" ?disabled=${this.busy} @click=${() => this.#go()}>${t.guides.go}</button></div><p class="hint">${t.guides.goAbout}</p></section>
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
      ${failed ? html`<div class="single stack"><p class="note bad" role="alert">${job.error?.message ?? t.compare.cancelled}</p>${warnings(job)}<div><a class="button main" href="#/start?from=${this.id}">${t.compare.tryAgain}</a></div></div>` : this.files ? this.#done() : nothing}`;
  }
}
customElements.define('wa-guides', GuidesView);
