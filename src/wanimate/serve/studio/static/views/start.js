// A new job: what performs, who performs, how it is made, what it costs.
import { html, nothing } from '../vendor/lit.js';
import { Part } from '../parts/base.js';
import { get, local, post, session } from '../api.js';
import { draftOf, keepDraft, loadDraft, sourceOf, submissionOf } from '../draft.js';
import { about, ago, bytes, rate, short } from '../format.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { called } from '../parts/job.js';
import '../parts/source.js';
import '../parts/people.js';
import '../parts/check.js';
import '../parts/options.js';
import '../parts/trim.js';

const PAUSE = 450;
const MOST = 30;
const LOW = -10;
const EARLIER = 50;
const CHARACTERS = [1, 2, 3, 4].map((n) => ({ url: `/studio/demo/character-${n}.png`, name: `character-${n}.png`, label: t.start.character(n) }));
const PERFORMER = [{ url: '/studio/demo/performer.mp4', name: 'performer.mp4', label: t.start.performer }];
const FORM_FIELDS = { image: 'image', video: 'video', mask: 'mask' };

class Start extends Part {
  // from: id of a job whose settings are filled in. filling: until they are, nothing can be changed, since they would undo it.
  static properties = { from: {}, draft: { state: true }, models: { state: true }, uploads: { state: true }, clip: { state: true }, plan: { state: true }, gaps: { state: true }, earlier: { state: true }, trouble: { state: true }, busy: { state: true }, told: { state: true }, filling: { state: true } };

  constructor() {
    super();
    this.draft = loadDraft();
    this.uploads = [];
    this.gaps = [];
    this.earlier = [];
  }

  connectedCallback() {
    super.connectedCallback();
    this.#open();
    this.care(() => clearTimeout(this.timer));
  }

  willUpdate(changed) {
    if (changed.has('from') && this.from && changed.get('from') !== undefined) this.#open();
  }

  async #open() {
    const { from } = this;
    const turn = (this.opening = {});
    this.filling = !!from;
    const before = Object.keys(FORM_FIELDS).filter((part) => this.draft[part]?.id).map((part) => [part, this.draft[part].id]);
    try {
      const [models, uploads, jobs] = await Promise.all([get('models'), get('uploads'), get(`jobs?kind=animate&kind=preprocess&kind=generate&limit=${EARLIER}`)]);
      this.models = models;
      this.earlier = jobs.data;
      this.uploads = uploads.data;
      if (from) await this.#fill(from);
      const kept = new Set(this.uploads.map((sent) => sent.id));
      for (const [part, id] of before) if (!kept.has(id) && this.draft[part]?.id === id) this.#set({ [part]: null });
      this.#foresee();
    } catch (error) {
      this.trouble = { message: error.message };
    } finally {
      if (this.opening === turn) this.filling = false;
    }
  }

  async #fill(id) {
    let job = await get(`jobs/${id}`);
    const { name } = job;
    for (let i = 0; job.submission.parent && !job.submission.image && i < 8; i++) job = await get(`jobs/${job.submission.parent}`);
    if (this.from !== id) return; // another one was chosen meanwhile
    const known = Object.fromEntries(this.uploads.map((sent) => [sent.id, { id: sent.id, name: sent.filename, url: local(sent.url) }]));
    const draft = draftOf(job.submission, known, id);
    this.#set(draft);
    this.told = `${t.start.filled(name || short(id))} ${draft.image && draft.video ? '' : t.start.expired}`;
  }

  #set(more) {
    this.draft = { ...this.draft, ...more };
    keepDraft(this.draft);
    this.trouble = null;
    if (!('name' in more)) this.#foresee();
  }

  #foresee() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#plan(), PAUSE);
  }

  async #plan() {
    const { image, video, mode } = this.draft;
    const turn = (this.turn = {});
    if (!image || !video || (!this.clip && !video.seconds)) {
      this.plan = null;
      return;
    }
    const shape = mode === 'animation' ? image : video;
    const { image: _, video: __, mask: ___, ...job } = submissionOf(this.draft, 'animate');
    const size = shape.width ? { width: shape.width, height: shape.height } : {};
    this.plan = { waits: true };
    try {
      const plan = await post('plan', { job, ...size, ...(this.clip ? { clip: this.clip.id } : { seconds: video.seconds }) });
      if (this.turn === turn) this.plan = plan;
    } catch (error) {
      if (this.turn === turn) this.plan = { trouble: error };
    }
  }

  async #send(kind) {
    this.busy = kind;
    this.trouble = null;
    try {
      const job = await post('jobs', submissionOf(this.draft, kind), { 'Idempotency-Key': crypto.randomUUID?.() ?? String(Math.random()) });
      go(kind === 'preprocess' ? `guides/${job.id}` : `jobs/${job.id}`);
    } catch (error) {
      if (error.field === 'version_of') {
        this.#set({ origin: null }); // the earlier job is gone: this one begins anew
        return await this.#send(kind);
      }
      this.trouble = error;
      await this.updateComplete;
      this.querySelector('.plan [role="alert"]')?.scrollIntoView({ block: 'nearest' });
    } finally {
      this.busy = null;
    }
  }

  get #tier() {
    return this.draft.size.startsWith('tier:') ? this.draft.size.slice(5) : '';
  }

  #slot(part, label, hint, demos) {
    const clip = part === 'video';
    const recent = this.uploads.filter((sent) => sent.media_type.startsWith(clip ? 'video/' : 'image/')).slice(0, 20);
    return html`<wa-source class="card" .kind=${part} .label=${label} .hint=${hint} .demos=${demos} .recent=${recent} .value=${this.draft[part]} .most=${this.models?.largest_upload} .only=${clip && this.models?.clips === 'approved'}
      .trouble=${this.trouble?.field === part ? this.trouble.message : ''}
      @changed=${(e) => (clip && ((this.clip = null), (this.gaps = [])), this.#set({ [part]: e.detail, ...(clip ? { person: 'largest', at: '', start: '', end: '' } : {}) }))}></wa-source>`;
  }

  // What of the submission decides what a check finds.
  #checked() {
    const { image, video } = this.draft;
    if (!image || !video || !session.is('submit')) return null;
    const { kind: _, mode, image: picture, video: clip, tier, preprocess } = submissionOf(this.draft, 'animate');
    const { area: __, ...searched } = preprocess;
    return { mode, image: picture, video: clip, tier, preprocess: searched };
  }

  #relit() {
    const { image, video, checkpoint } = this.draft;
    const able = this.models?.data.find((model) => (checkpoint ? model.id === checkpoint : model.default))?.relights;
    if (!image || !video || !able || !session.is('submit')) return null;
    const { output: _, name: __, ...job } = submissionOf({ ...this.draft, relight: true }, 'relight');
    return { ...job, priority: LOW };
  }

  // Frames of the clip as the timeline has them; a rate that varies is taken as constant there.
  get #reel() {
    const seconds = this.clip?.seconds ?? this.draft.video?.seconds;
    const fps = rate(this.clip?.fps) ?? 30;
    return { seconds, fps, count: Number.isFinite(seconds) ? Math.round(seconds * fps) : 0 };
  }

  #found(clip) {
    this.clip = clip;
    if (clip && !this.draft.end && clip.seconds > MOST + 0.05) return this.#set({ end: MOST + Number(this.draft.start || 0) });
    this.#foresee();
  }

  #trimmed({ first, stop }) {
    const { fps, count } = this.#reel;
    this.#set({ start: first ? first / fps : '', end: stop < count ? stop / fps : '' });
  }

  // New marks within what was looked at; those outside stay.
  #marked({ findings }) {
    const { fps, count } = this.#reel;
    const [from, to] = [Number(this.draft.start || 0) * fps, this.draft.end ? Number(this.draft.end) * fps : count];
    const spans = findings.filter((one) => one.kind === 'nobody').flatMap((one) => one.spans).map((one) => [one.start * fps, one.end * fps]);
    const outside = this.gaps.flatMap(([a, b]) => [[a, Math.min(b, from)], [Math.max(a, to), b]]).filter(([a, b]) => b > a);
    this.gaps = [...outside, ...spans];
  }

  #seek(seconds) {
    const video = this.querySelector('wa-source .source video');
    if (!video) return;
    video.pause();
    video.currentTime = seconds + 0.5 / this.#reel.fps;
  }

  #trim() {
    const { fps, count } = this.#reel;
    if (!this.draft.video || count < 2) return nothing;
    const first = Math.min(count - 1, Math.round(Number(this.draft.start || 0) * fps));
    const stop = this.draft.end ? Math.min(count, Math.round(Number(this.draft.end) * fps)) : count;
    return html`<section class="card stack tight" aria-label=${t.trim.label}><h2>${t.trim.label}</h2>
      <wa-trim .count=${count} .fps=${fps} .first=${first} .stop=${stop} .gaps=${this.gaps} .hint=${t.trim.about} @trimmed=${(e) => this.#trimmed(e.detail)}
        @sought=${(e) => this.#seek(e.detail / fps)}></wa-trim></section>`;
  }

  #forecast() {
    const { plan } = this;
    if (!plan) return html`<p class="soft">${t.start.planIdle}</p>`;
    if (plan.waits) return html`<p class="soft" role="status">${t.start.planning}</p>`;
    if (plan.trouble) return html`<p class="note bad" role="alert">${plan.trouble.message}</p>`;
    const detail = t.start.detail(plan.frames, plan.size.join(' × '), plan.segments, plan.steps);
    if (!plan.fits) return html`<p class="note bad" role="alert"><strong>${t.start.fitsNot}.</strong> ${plan.message}</p><p class="hint">${detail}</p>`;
    const gpu = plan.device?.startsWith('cuda');
    const memory = gpu ? t.start.memory(bytes(plan.gpu_bytes), bytes(plan.gpu_room_bytes)) : plan.host_bytes ? t.start.memory(bytes(plan.host_bytes)) : '';
    return html`<p class="estimate" role="status"><strong>${t.start.fits}</strong>, ${t.start.plan(about(plan.seconds), memory)}</p><p class="hint">${detail}. ${t.start.price(Number(plan.clip_seconds.toFixed(1)), this.#tier, plan.left_today === null ? null : Math.round(plan.left_today))}</p>
      ${plan.warning ? html`<p class="note warn">${plan.warning}</p>` : nothing}`;
  }

  render() {
    const { draft } = this;
    const ready = draft.image && draft.video;
    const video = draft.video && sourceOf(draft.video);
    return html`
      <div class="head"><div><h1>${t.start.title}</h1><p class="soft">${t.start.about}</p></div>
        ${this.earlier.length
          ? html`<label class="field earlier"><span>${t.start.earlier}</span><select @change=${(e) => e.target.value && go(`start?from=${e.target.value}`)}><option value="">–</option>
              ${this.earlier.map((job) => html`<option value=${job.id} ?selected=${job.id === this.from}>${called(job)}, ${ago(job.created)}</option>`)}</select></label>`
          : nothing}</div>
      ${this.told ? html`<p class="note good filled" role="status">${this.told}</p>` : nothing}
      <div class="start" ?inert=${this.filling} aria-busy=${!!this.filling}>
        <div class="stack">
          <div class="pair">${this.#slot('image', t.start.picture, t.start.pictureHint, CHARACTERS)}${this.#slot('video', t.start.clip, t.start.clipHint, PERFORMER)}</div>
          ${this.#trim()}
          <wa-people .video=${video} .person=${draft.person} .at=${draft.at} .start=${draft.start} @chosen=${(e) => this.#set(e.detail)}
            @found=${(e) => this.#found(e.detail)}></wa-people>
          <wa-check .job=${this.#checked()} @checked=${(e) => this.#marked(e.detail)} @sought=${(e) => this.#seek(e.detail)}></wa-check>
        </div>
        <div class="stack">
          <fieldset class="card"><legend class="hidden">${t.start.mode}</legend><h2>${t.start.mode}</h2><div class="modes">
            ${Object.entries(t.modes).map(([mode, words]) => html`<label class="mode"><input type="radio" name="mode" value=${mode} .checked=${draft.mode === mode} @change=${() => this.#set({ mode })}>
              <span><strong>${words.name}</strong><small>${words.about}</small></span></label>`)}</div></fieldset>
          ${this.models ? html`<wa-options .draft=${draft} .models=${this.models} .wrong=${this.trouble?.field} .preview=${this.#relit()} @set=${(e) => this.#set(e.detail)}></wa-options>` : nothing}
          <section class="card stack plan" aria-label=${t.start.make}>
            ${this.#forecast()}
            ${this.trouble && !(this.trouble.field in FORM_FIELDS) && this.trouble.message !== this.plan?.trouble?.message ? html`<p class="note bad" role="alert">${this.trouble.message}</p>` : nothing}
            <div class="line"><button class="main" ?disabled=${!ready || !!this.busy} @click=${() => this.#send('animate')}>${t.start.make}</button>
              <button ?disabled=${!ready || !!this.busy} @click=${() => this.#send('preprocess')}>${t.start.check}</button></div>
            <p class="hint">${ready ? t.start.checkAbout : t.start.missing}</p>
          </section>
        </div>
      </div>`;
  }
}
customElements.define('wa-start', Start);
