// One job: while it is made, its preview; when it is done, the result beside its performer or another job's result, in step.
import { html, nothing } from '../vendor/lit.js';
import { api, files, get, post, session } from '../api.js';
import { day, duration, fromOne, isShown, rate, short } from '../format.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { called, isOpen, tag } from '../parts/job.js';
import { progress, warnings } from '../parts/progress.js';
import { toast, tried } from '../parts/toasts.js';
import { Watched } from '../parts/watched.js';
import '../parts/finishing.js';
import '../parts/player.js';

const MOST = 100;

class Compare extends Watched {
  // other: id of the job whose result stands beside this one's.
  static properties = { other: {}, layout: { state: true }, others: { state: true }, beside: { state: true }, segment: { state: true }, seed: { state: true } };

  constructor() {
    super();
    Object.assign(this, { layout: 'side', others: [], beside: null, segment: 1, seed: '' });
  }

  willUpdate(changed) {
    super.willUpdate(changed);
    if (changed.has('other') || changed.has('id')) this.#fetch();
  }

  async loaded() {
    if (this.job.state !== 'succeeded') return;
    if (this.job.kind === 'finish' && this.other === this.job.submission.parent) this.layout = 'wipe';
    const { data } = await get(`jobs?state=succeeded&kind=animate&kind=generate&kind=redraw&kind=finish&limit=${MOST}`).catch(() => ({ data: [] }));
    this.others = data.filter((job) => job.id !== this.id && job.results.includes('video'));
  }

  async #fetch() {
    this.beside = null;
    const wanted = this.other;
    if (!wanted) return;
    const [job, found] = (await tried(() => Promise.all([get(`jobs/${wanted}`), files(wanted)]))) ?? [];
    if (job && this.other === wanted) this.beside = { job, url: isShown(found.video?.media_type) ? found.video.watch ?? found.video.url : null };
  }

  #choose(id) {
    go(`jobs/${this.id}${id ? `?with=${id}` : ''}`, true);
  }

  #label(job) {
    const finished = job.kind === 'finish' ? `, ${job.facts.size?.join(' × ')}, ${t.compare.rate(Number(rate(job.facts.fps).toFixed(2)))}` : '';
    const kind = job.name && job.kind === 'redraw' ? `, ${t.kinds.redraw.toLowerCase()}` : '';
    return `${called(job)}${kind}${job.facts.seed === undefined ? '' : `, ${t.compare.seed(job.facts.seed)}`}${finished}`;
  }

  #tracks() {
    const { job, beside } = this;
    const result = { id: 'result', url: this.files.video.watch ?? this.files.video.url, label: beside ? this.#label(job) : t.compare.result, fps: rate(job.facts.fps) };
    const driver = this.files['previews/driver.mp4'];
    if (beside?.url) return [result, { id: 'other', url: beside.url, label: this.#label(beside.job), fps: rate(beside.job.facts.fps) }];
    return driver ? [result, { id: 'driver', url: driver.url, label: t.compare.driver, fps: rate(job.facts.fps) }] : [result];
  }

  // Doing

  async #redraw(e) {
    e.preventDefault();
    const seed = String(this.seed).trim() === '' ? Math.floor(Math.random() * 2 ** 31) : Number(this.seed);
    const { output, name } = this.job.submission;
    const body = { kind: 'redraw', parent: this.id, segment: Number(this.segment), generate: { seed }, output: { sheet: true, ...output }, name };
    const made = await tried(() => post('jobs', body));
    if (made) go(`jobs/${made.id}?with=${this.id}`);
  }

  async #remove() {
    this.querySelector('dialog').close();
    this.leaving = true;
    this.files = null; // videos that are gone are not to be loaded any more
    await this.updateComplete;
    if (!(await tried(() => api('DELETE', `jobs/${this.id}`)))) {
      this.leaving = false;
      return void this.renew();
    }
    toast(t.compare.removed);
    go('jobs?show=all');
  }

  // Drawing

  #stage() {
    const { job } = this;
    if (this.layout === 'sheet' && this.files.sheet) return html`<a href=${this.files.sheet.url} class="sheet"><img src=${this.files.sheet.url} alt=${t.compare.sheet}></a>`;
    if (!isShown(this.files.video.media_type)) return html`<p class="note">${this.files.video.withheld ? t.compare.zipHeld : t.compare.zip}</p>`;
    return html`${this.beside && !this.beside.url ? html`<p class="note">${t.compare.otherZip}</p>` : nothing}<wa-player .tracks=${this.#tracks()} .count=${job.facts.frames} .fps=${rate(job.facts.fps)} .layout=${this.layout} .gaps=${job.facts.no_person ?? []}></wa-player>`;
  }

  // Labels that others have as well are told apart by the id.
  #choices() {
    const labels = this.others.map((job) => this.#label(job));
    return this.others.map((job, i) => [job.id, labels.indexOf(labels[i]) === labels.lastIndexOf(labels[i]) ? labels[i] : `${labels[i]}, ${short(job.id)}`]);
  }

  #bar() {
    const layouts = ['side', 'wipe', 'alone', ...(this.files.sheet && !this.files.video.withheld ? ['sheet'] : [])];
    return html`<div class="line apart"><div class="switch" role="group" aria-label=${t.compare.layout}>
        ${layouts.map((name) => html`<button aria-pressed=${this.layout === name ? 'true' : 'false'} @click=${() => (this.layout = name)}>${t.compare[name]}</button>`)}</div>
      <label class="line with"><span class="soft">${t.compare.other}</span><select @change=${(e) => this.#choose(e.target.value)}><option value="" ?selected=${!this.other}>${t.compare.noOther}</option>
        ${this.#choices().map(([id, words]) => html`<option value=${id} ?selected=${this.other === id}>${words}</option>`)}</select></label></div>`;
  }

  #facts() {
    const { job } = this;
    const { facts, submission } = job;
    const rows = t.compare.rows;
    const parent = submission.parent;
    const told = [
      [rows.mode, t.modes[job.mode]?.name], [rows.size, facts.size?.join(' × ')], [rows.frames, facts.frames && t.compare.frames(facts.frames, Number(rate(facts.fps).toFixed(2)))], [rows.seed, facts.seed], [rows.tier, job.tier], [rows.checkpoint, job.checkpoint],
      [rows.loras, job.loras.map((lora) => `${lora.name} ${lora.strength}`).join(', ')], [rows.made, day(job.created)], [rows.took, job.ended && job.scheduled ? duration((job.ended - job.scheduled) / 1000) : ''], [rows.expires, day(job.expires)], [rows.marks, facts.marks && t.compare.marks(facts.marks)],
      [rows.parent, parent && html`<a href="#/${job.kind === 'generate' ? 'guides' : 'jobs'}/${parent}">${parent.slice(0, 8)}</a>`], [rows.id, html`<span class="mono">${job.id}</span>`],
    ];
    return html`<section class="card stack"><h2>${t.compare.facts}</h2><dl class="facts">${told.filter(([, value]) => value !== undefined && value !== null && value !== '').map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl></section>`;
  }

  #redrawing() {
    const count = this.job.facts.segments ?? 1;
    return html`<form class="card stack" @submit=${this.#redraw}><h2>${t.compare.redraw}</h2><p class="hint">${t.compare.redrawAbout}</p>
      <div class="line"><label class="field"><span>${t.compare.segment}</span><select @change=${(e) => (this.segment = e.target.value)}>${Array.from({ length: count }, (_, i) => html`<option value=${i + 1}>${i + 1}</option>`)}</select></label>
      <label class="field"><span>${t.start.seed}</span><input type="number" min="0" step="1" placeholder=${t.start.seedHint} .value=${String(this.seed)} @input=${(e) => (this.seed = e.target.value)}></label>
      <button class="end">${t.compare.redrawGo}</button></div></form>`;
  }

  #actions() {
    const { video, record, sheet, xmp, c2pa } = this.files ?? {};
    const beside = video?.withheld ? [] : [sheet, xmp, c2pa].filter(Boolean); // they are refused as the video is
    const mine = session.is('submit');
    return html`<div class="line">
      ${video?.withheld ? html`<span class="tag held">${t.review.held}</span>` : video ? html`<a class="button main" href=${video.url} download=${video.filename}>${t.compare.download}</a>` : nothing}
      ${mine && video ? html`<a class="button" href="#/review/of/${this.id}">${t.nav.review}</a>` : nothing}
      ${mine ? html`<a class="button" href="#/start?from=${this.id}">${this.job.state === 'succeeded' ? t.compare.again : t.compare.tryAgain}</a>` : nothing}
      ${record ? html`<a class="button quiet" href=${record.url} download=${record.filename}>${t.compare.record}</a>` : nothing}
      ${beside.map((file) => html`<a class="button quiet" href=${file.url} download=${file.filename}>${t.compare.files[file.name]}</a>`)}
      ${mine ? html`<button class="quiet" @click=${() => this.querySelector('dialog').showModal()}>${t.compare.remove}</button>` : nothing}</div>
      <dialog aria-labelledby="sure"><p id="sure">${t.compare.removeSure}</p><div class="line"><button class="danger" @click=${() => this.#remove()}>${t.compare.remove}</button><button @click=${() => this.querySelector('dialog').close()}>${t.cancel}</button></div></dialog>`;
  }

  render() {
    const { job } = this;
    if (this.trouble) return html`<div class="empty"><h1>${t.errors.title}</h1><p class="note bad" role="alert">${this.trouble}</p><a class="button" href="#/jobs?show=all">${t.jobs.all}</a></div>`;
    if (!job) return html`<h1 class="soft">${t.jobs.loading}</h1>`;
    const head = html`<div class="head"><div><h1>${called(job)}</h1><div class="line">${isOpen(job) ? nothing : tag(job)}<span class="soft">${t.kinds[job.kind]}</span></div></div>${isOpen(job) ? nothing : html`<div>${this.#actions()}</div>`}</div>`;
    if (isOpen(job)) return html`${head}<div class="watch">${progress(job, t.compare.waiting, () => this.renew())}<div class="stack">${warnings(job)}${this.#facts()}</div></div>`;
    if (job.state !== 'succeeded') {
      const words = job.state === 'failed' ? html`<strong>${t.compare.failed}.</strong> ${fromOne(job.error?.message)}` : t.compare.cancelled;
      return html`${head}<div class="watch"><p class="note ${job.state === 'failed' ? 'bad' : ''}" role="alert">${words}</p><div class="stack">${warnings(job)}${this.#facts()}</div></div>`;
    }
    if (!this.files?.video) return head;
    return html`${head}<div class="watch"><section class="stack" aria-label=${t.compare.result}>${this.#bar()}${this.#stage()}</section>
      <div class="stack">${warnings(job)}${this.#facts()}${session.is('submit') && job.facts.segments ? html`<wa-finishing .job=${job}></wa-finishing>${this.#redrawing()}` : nothing}</div></div>`;
  }
}
customElements.define('wa-compare', Compare);
