// One shot: its versions, what is said of them at which frame and place, and how they stand. For people with a key and for guests.
import { html, nothing } from '../vendor/lit.js';
import { Part } from '../parts/base.js';
import { api, get, local, post, save, session } from '../api.js';
import { day, isShown, rate } from '../format.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { member } from '../parts/desk.js';
import { COLOURS, WIDTHS } from '../parts/notes.js';
import { isHeld, stand } from '../parts/verdict.js';
import { toast, tried } from '../parts/toasts.js';
import '../parts/gone.js';
import '../parts/reel.js';
import '../parts/invite.js';
import './reviews.js';

const FORMATS = ['json', 'csv', 'edl'];
const MOST = 100;

class Review extends Part {
  // id: of the shot. job: a job whose shot is looked for instead. desk: of a guest; else one is made for the id.
  static properties = { id: {}, job: {}, desk: {}, shot: { state: true }, at: { state: true }, beside: { state: true }, layout: { state: true }, draft: { state: true }, chosen: { state: true }, busy: { state: true }, handing: { state: true }, trouble: { state: true }, names: { state: true }, stacks: { state: true } };

  constructor() {
    super();
    Object.assign(this, { at: null, beside: '', layout: 'side', draft: null, chosen: null });
  }

  connectedCallback() {
    super.connectedCallback();
    for (const [name, heard] of Object.entries({ placed: (e) => this.#place(e.detail), drawn: (e) => this.#draft({ marks: [...this.draft.marks, e.detail] }), chosen: (e) => this.#choose(e.detail), asked: (e) => this.#asked(e.detail), shown: (e) => this.#moved(e.detail), dropped: () => (this.draft = null) })) {
      this.addEventListener(name, heard);
      this.care(() => this.removeEventListener(name, heard));
    }
    if (this.hasUpdated) this.#open();
  }

  willUpdate(changed) {
    if (changed.has('id') || changed.has('job')) this.#open();
  }

  async #open() {
    this.undo?.();
    this.shot = this.trouble = null;
    this.at = this.chosen = this.draft = null;
    try {
      if (this.job) {
        const found = await post('shots', { job: this.job });
        return void go(`review/${found.id}`, true);
      }
      const desk = this.desk?.guest ? this.desk : member(this.id);
      this.desk = desk;
      await this.renew();
      this.undo = desk.stream.listen((told) => this.#heard(told));
      this.care(() => this.undo());
    } catch (error) {
      this.trouble = error.status === 404 ? t.review.gone : error.message;
    }
  }

  #heard({ kind, data }) {
    if (kind === 'open' || (kind === 'review' && data.shot === this.shot?.id) || (kind === 'deleted' && this.shot?.versions.some((one) => one.job === data.job))) this.renew().catch(() => null);
  }

  async renew() {
    this.again = true;
    if (this.asking) return this.asking;
    this.asking = (async () => {
      while (this.again) {
        this.again = false;
        this.#take(await this.desk.load());
      }
    })();
    try {
      await this.asking;
    } finally {
      this.asking = null;
    }
  }

  #take(shot) {
    const newest = shot.versions.at(-1)?.job ?? null;
    const moved = this.shot && this.at === this.shot.versions.at(-1)?.job && newest !== this.at;
    if (moved && !this.draft) toast(t.review.arrived(shot.versions.at(-1).number));
    if (!shot.versions.some((one) => one.job === this.at) || (moved && !this.draft)) this.at = newest;
    this.shot = shot;
  }

  // What is asked of the version that is shown, what was said of it, numbered by frame.

  get #version() {
    return this.shot.versions.find((one) => one.job === this.at);
  }

  get #notes() {
    const mine = this.shot.comments.filter((one) => one.job === this.at).sort((a, b) => a.frame - b.frame || a.at - b.at);
    return mine.map((note, i) => ({ ...note, n: i + 1 }));
  }

  get #reel() {
    return this.querySelector('wa-reel');
  }

  #may(right) {
    return this.shot.rights.includes(right);
  }

  async #done(work) {
    this.busy = true;
    const shot = await tried(work);
    this.busy = false;
    if (shot?.object === 'shot') this.#take(shot);
    return shot;
  }

  // Writing

  async #begin(more = {}) {
    if (!this.#may('comment')) return;
    await this.#reel?.pause();
    this.draft ??= { text: '', frame: this.#reel?.frame ?? 0, duration: 1, x: null, y: null, marks: [], tool: 'pin', colour: COLOURS[0], width: WIDTHS[1] };
    this.#draft(more);
    await this.updateComplete;
    await this.querySelector('wa-notes').write();
  }

  #draft(more) {
    this.draft = { ...this.draft, ...more };
  }

  // A click on the picture begins a comment there; the frame is the one that was seen.
  #place(at) {
    if (this.draft) this.#draft(at);
    else this.#begin(at);
  }

  // What is written follows the frame that is shown, until something is pinned or drawn on one.
  #moved(frame) {
    if (!this.draft || this.draft.x !== null || this.draft.marks.length || this.draft.frame === frame) return;
    this.#draft({ frame, duration: Math.min(this.draft.duration, this.#version.frames - frame) });
  }

  async #send() {
    const { text, frame, duration, x, y, marks } = this.draft;
    const place = x === null ? {} : { x, y };
    if (await this.#done(() => this.desk.comment(this.desk.signed({ version: this.at, text, frame, duration, marks, ...place })))) this.draft = null;
  }

  async #remove(id) {
    if (await tried(() => this.desk.remove(id))) await this.renew();
  }

  async #choose(id) {
    this.chosen = id;
    const note = this.#notes.find((one) => one.id === id);
    if (!note || this.draft || !this.#reel) return;
    await this.#reel.show(note.frame);
    if (this.#reel.getBoundingClientRect().top < 0) this.#reel.scrollIntoView({ block: 'start' });
  }

  #asked(what) {
    if (what === 'write') this.#begin();
    else if (what === 'draw') this.#begin({ tool: 'draw' });
    else if (what === 'help') this.querySelector('dialog.shortcuts').showModal();
    else {
      const notes = this.#notes;
      const frame = this.#reel?.frame ?? 0;
      const at = notes.findIndex((one) => one.id === this.chosen && one.frame === frame);
      const next = at >= 0 ? notes[at + (what === 'later' ? 1 : -1)] : what === 'later' ? notes.find((one) => one.frame >= frame) : notes.findLast((one) => one.frame <= frame);
      if (next) this.#choose(next.id);
    }
  }

  async #rename(e) {
    e.preventDefault();
    const given = new FormData(e.target);
    const [name, project] = ['name', 'project'].map((one) => given.get(one).trim());
    if (name && (await this.#done(() => api('PATCH', `shots/${this.id}`, { name, project })))) this.names = false;
  }

  async #stack() {
    this.stacks = [];
    this.querySelector('dialog.stacking').showModal();
    const { data } = await get(`jobs?state=succeeded&kind=animate&kind=generate&kind=redraw&limit=${MOST}`).catch(() => ({ data: [] }));
    this.stacks = data.filter((job) => job.results.includes('video') && !this.shot.versions.some((one) => one.job === job.id));
  }

  async #put(e) {
    e.preventDefault();
    const job = new FormData(e.target).get('job');
    this.querySelector('dialog.stacking').close();
    if (job && (await this.#done(() => post(`shots/${this.id}/versions`, { job })))) this.at = job;
  }

  async #handOff() {
    this.handing = true;
    const name = await tried(() => save(`shots/${this.shot.id}/handoff`, { version: this.at }));
    this.handing = false;
    if (name) toast(t.review.handedOff(name));
  }

  // Drawing

  #label(version) {
    return `${t.review.version(version.number)} · ${t.review.states[version.state]}`;
  }

  #bar() {
    const { versions } = this.shot;
    const others = versions.filter((one) => one.job !== this.at && one.kept && one.frames && isShown(one.media_type));
    return html`<div class="line apart"><label class="line with"><span class="soft">${t.review.shown}</span><select @change=${(e) => this.#turn(e.target.value)}>
        ${[...versions].reverse().map((one) => html`<option value=${one.job} ?selected=${one.job === this.at}>${this.#label(one)}</option>`)}</select></label>
      ${others.length
        ? html`<div class="line">${this.#beside ? html`<div class="switch" role="group" aria-label=${t.compare.layout}>${['side', 'wipe', 'alone'].map((name) => html`<button aria-pressed=${this.layout === name ? 'true' : 'false'} @click=${() => (this.layout = name)}>${t.review.layouts[name]}</button>`)}</div>` : nothing}
            <label class="line with"><span class="soft">${t.compare.other}</span><select @change=${(e) => (this.beside = e.target.value)}><option value="" ?selected=${!this.#beside}>${t.review.noOther}</option>
            ${others.map((one) => html`<option value=${one.job} ?selected=${one.job === this.beside}>${t.review.version(one.number)}</option>`)}</select></label></div>`
        : nothing}</div>`;
  }

  #turn(job) {
    this.at = job;
    this.draft = this.chosen = null;
  }

  get #beside() {
    return this.shot.versions.find((one) => one.job === this.beside && one.job !== this.at && one.kept && isShown(one.media_type));
  }

  #stage() {
    const version = this.#version;
    if (!version.kept) return html`<p class="note">${t.review.notKept}</p>`;
    if (!isShown(version.media_type) || !version.frames || !version.size) return html`<p class="note">${isHeld(version) ? t.compare.zipHeld : t.compare.zip}</p>`;
    const track = (one, id) => ({ id, url: local(one.video), label: t.review.version(one.number), fps: rate(one.rate) });
    const tracks = [track(version, 'version'), ...(this.#beside ? [track(this.#beside, 'other')] : [])];
    return html`<wa-reel .tracks=${tracks} .count=${version.frames} .fps=${rate(version.rate)} .size=${version.size} .layout=${this.layout} .notes=${this.#notes} .chosen=${this.chosen} .draft=${this.draft} .may=${this.#may('comment')}></wa-reel>`;
  }

  #title() {
    const { shot } = this;
    if (this.names) return html`<h1 class="hidden">${shot.name}</h1><form class="line naming" @submit=${this.#rename}><label class="field"><span>${t.review.name}</span><input name="name" maxlength="80" required .value=${shot.name}></label><label class="field"><span>${t.review.project}</span><input name="project" maxlength="80" placeholder=${t.review.projectHint} .value=${shot.project}></label><button>${t.review.save}</button><button type="button" class="quiet" @click=${() => (this.names = false)}>${t.cancel}</button></form>`;
    return html`<div class="line"><h1>${shot.name}</h1>${this.#may('manage') ? html`<button class="quiet" @click=${() => (this.names = true)}>${t.review.rename}</button>` : nothing}</div>`;
  }

  #head() {
    const { shot } = this;
    const place = `/v1/shots/${shot.id}/export?version=${this.at}`;
    const held = isHeld(this.#version);
    return html`<div class="head"><div>${this.#title()}<div class="line">${stand(shot.state)}<span class="soft">${t.review.versions(shot.versions.length)}${shot.project ? html` · ${shot.project}` : nothing}${shot.expires ? html` · ${t.review.linkUntil(day(shot.expires))}` : nothing}</span></div></div>
      ${this.desk.guest
        ? html`<p class="soft">${t.review.youAre(shot.you)}</p>`
        : html`<div class="line">${this.#may('manage') ? html`<button @click=${() => this.querySelector('wa-invite').open()}>${t.review.invite}</button><button class="quiet" @click=${() => this.#stack()}>${t.review.stack}</button>
              <button class="quiet" title=${held ? t.review.handOffHeld : t.review.handOffAbout} ?disabled=${this.handing || held || !this.#version?.kept} @click=${() => this.#handOff()}>${this.handing ? t.review.handingOff : t.review.handOff}</button>` : nothing}
            <span class="line exports"><span class="soft">${t.review.export}</span>${FORMATS.map((format) => html`<a class="button quiet" download href="${place}&format=${format}" aria-label=${t.review.exportAs(format.toUpperCase())}>${format.toUpperCase()}</a>`)}</span></div>`}</div>`;
  }

  #signature() {
    if (this.desk.guest || !this.#may('comment')) return nothing;
    return html`<label class="field signed"><span>${t.review.yourName}</span><input maxlength="80" placeholder=${session.owner} .value=${this.desk.name} @change=${(e) => this.desk.called(e.target.value)}></label>`;
  }

  #dialogs() {
    const close = (e) => e.target.closest('dialog').close();
    return html`<dialog class="shortcuts" aria-labelledby="keys-of"><div class="stack"><h2 id="keys-of">${t.review.shortcuts}</h2><dl class="facts">${t.review.keys.map(([keys, what]) => html`<dt>${keys.split(' ').map((key) => html`<kbd>${key}</kbd> `)}</dt><dd>${what}</dd>`)}</dl><div><button @click=${close}>${t.close}</button></div></div></dialog>
      <dialog class="stacking" aria-labelledby="stacking"><form class="stack" @submit=${this.#put}><h2 id="stacking">${t.review.stack}</h2><p class="hint">${t.review.stackAbout}</p>
        <label class="field"><span>${t.review.stackWhich}</span><select name="job" required>${(this.stacks ?? []).map((job) => html`<option value=${job.id}>${job.name || job.id.slice(0, 8)} · ${day(job.created)}</option>`)}</select></label>
        <div class="line"><button class="main" ?disabled=${!this.stacks?.length}>${t.review.stackGo}</button><button type="button" class="quiet" @click=${close}>${t.cancel}</button></div></form></dialog>
      ${!this.desk.guest && this.#may('manage') ? html`<wa-invite .shot=${this.shot.id} .sign=${(body) => this.desk.signed(body)}></wa-invite>` : nothing}`;
  }

  render() {
    const { shot } = this;
    if (this.trouble) return html`<div class="empty"><h1>${t.errors.title}</h1><p class="note bad" role="alert">${this.trouble}</p>${this.desk?.guest ? nothing : html`<a class="button" href="#/review">${t.review.all}</a>`}</div>`;
    if (!shot) return html`<h1 class="soft">${t.jobs.loading}</h1>`;
    const version = this.#version;
    if (!version) return html`${this.#head()}<p class="note">${t.review.noVersions}</p>`;
    const numbers = Object.fromEntries(shot.versions.map((one) => [one.job, one.number]));
    return html`${this.#head()}<div class="watch review ${this.draft ? 'writing' : ''}"><section class="stack" aria-label=${t.review.version(version.number)}>${this.#bar()}${this.#stage()}</section>
      <div class="stack">${this.#signature()}
        <wa-verdict .version=${version} .decisions=${shot.decisions} .numbers=${numbers} .may=${this.#may('decide')} .intact=${shot.intact} .busy=${this.busy} @decide=${(e) => this.#done(() => this.desk.decide(this.desk.signed({ version: this.at, ...e.detail })))}></wa-verdict>
        ${!this.desk.guest && this.#may('manage') ? html`<wa-gone .shot=${shot.id} .mark=${shot.decisions.length} .sign=${(body) => this.desk.signed(body)}></wa-gone>` : nothing}
        <wa-notes .notes=${this.#notes} .draft=${this.draft} .chosen=${this.chosen} .fps=${rate(version.rate) ?? 25} .count=${version.frames ?? 1} .may=${this.#may('comment')} .busy=${this.busy}
          @draft=${(e) => (this.draft = e.detail)} @send=${() => this.#send()} @remove=${(e) => this.#remove(e.detail)}
          @reply=${(e) => this.#done(() => this.desk.reply(e.detail.id, this.desk.signed({ text: e.detail.text })))}
          @change=${(e) => e.detail?.id && this.#done(() => this.desk.change(e.detail.id, this.desk.signed({ ...(e.detail.text === undefined ? {} : { text: e.detail.text }), ...(e.detail.resolved === undefined ? {} : { resolved: e.detail.resolved }) })))}></wa-notes></div></div>${this.#dialogs()}`;
  }
}
customElements.define('wa-review', Review);
