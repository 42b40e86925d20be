// The queue, which is put in order here, and all jobs.
import { html, nothing } from '../vendor/lit.js';
import { Part } from '../parts/base.js';
import { files, get, post, session } from '../api.js';
import { after, stream } from '../events.js';
import { ago, percent } from '../format.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { addressOf, bar, called, cancel, change, doing, isOpen, stateOf, tag } from '../parts/job.js';
import { toast, tried } from '../parts/toasts.js';
import '../parts/list.js';

const PAGE = 100;
const FAR = 500;
const TOP = 10;
const PAUSE = 250;
const OTHERS = 4000;

class Jobs extends Part {
  // show: queue or all.
  static properties = { show: {}, rows: { state: true }, total: { state: true }, paused: { state: true }, state: { state: true }, search: { state: true }, everybody: { state: true }, version: { state: true }, said: { state: true }, trouble: { state: true } };

  constructor() {
    super();
    this.rows = null;
    this.version = 0;
    this.turns = {};
    this.state = this.search = '';
  }

  connectedCallback() {
    super.connectedCallback();
    this.care(stream.listen((told) => this.#heard(told)));
    this.care(() => [this.timer, this.typing].forEach(clearTimeout));
    const others = setInterval(() => this.everybody && !document.hidden && this.#later(), OTHERS); // the stream tells of the owner's own jobs
    this.care(() => clearInterval(others));
  }

  willUpdate(changed) {
    if (changed.has('show')) {
      this.rows = null;
      this.#load();
    }
  }

  // Loading

  get #query() {
    const query = new URLSearchParams();
    if (this.state) query.set('state', this.state);
    if (this.search) query.set('search', this.search);
    if (this.everybody) query.set('everybody', 'true');
    return query;
  }

  async #load() {
    const turn = (this.turn = {});
    try {
      if (this.show === 'queue') {
        const told = await get(`queue${this.everybody ? '?everybody=true' : ''}`);
        if (this.turn === turn) this.#shown(told);
        return;
      }
      const query = this.#query;
      query.set('limit', PAGE);
      const told = await get(`jobs?${query}`);
      if (this.turn !== turn) return;
      [this.rows, this.total, this.next] = [told.data, told.total, told.next];
      this.trouble = null;
      this.version++;
    } catch (error) {
      if (this.turn === turn) this.trouble = error.message;
    }
  }

  #shown(queue) {
    const seen = new Map((this.rows ?? []).map((job) => [job.id, job]));
    const kept = (job) => (job.in_work ? { ...job, step: seen.get(job.id)?.step, seen: seen.get(job.id)?.seen } : job);
    this.rows = [...queue.jobs.filter((job) => job.in_work), ...queue.jobs.filter((job) => !job.in_work)].map(kept);
    this.total = this.rows.length;
    this.paused = queue.paused;
    this.trouble = null;
    this.version++;
    for (const job of this.rows) if (job.in_work && !job.seen && job.stage === 'generate') this.#glimpse(job.id);
  }

  // Whether there is a preview already: asked once, since later ones are told by the stream.
  async #glimpse(id) {
    const { preview } = await files(id).catch(() => ({}));
    const i = this.rows.findIndex((job) => job.id === id);
    if (!preview || i < 0 || this.rows[i].seen) return;
    this.rows[i] = { ...this.rows[i], seen: 1 };
    this.version++;
  }

  async #more({ last }) {
    if (this.show === 'queue' || this.loading || !this.next || last <= this.rows.length) return;
    this.loading = true;
    const turn = this.turn;
    try {
      while (this.turn === turn && this.next && this.rows.length < last) {
        const query = this.#query;
        query.set('limit', last - this.rows.length > PAGE ? FAR : PAGE);
        query.set('cursor', this.next);
        const told = await get(`jobs?${query}`);
        if (this.turn !== turn) return;
        this.rows.push(...told.data);
        this.next = told.next;
        this.version++;
      }
    } catch (error) {
      toast(error.message, 'error');
    } finally {
      this.loading = false;
    }
  }

  #heard(told) {
    if (told.kind === 'open') return void this.#later();
    const i = (this.rows ?? []).findIndex((job) => job.id === told.job);
    const changed = i < 0 ? null : after(this.rows[i], told);
    if (changed) {
      this.rows[i] = changed;
      this.version++;
    } else if (this.show === 'queue') this.#later();
    else if (i >= 0) this.#renew(told.job);
    else if (told.kind === 'created') this.#later();
  }

  async #renew(id) {
    const turn = (this.turns[id] = {}); // an answer that was overtaken by a later one is older than it
    const job = await get(`jobs/${id}`).catch(() => null);
    const i = this.rows.findIndex((one) => one.id === id);
    if (i < 0 || this.turns[id] !== turn) return;
    if (job) this.rows[i] = job;
    else {
      this.rows.splice(i, 1);
      this.total--;
    }
    this.version++;
  }

  // Several events at once ask for the list once. Whoever has scrolled down keeps the place.
  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (this.show === 'queue' || scrollY < 200 ? this.#load() : null), PAUSE);
  }

  // Order

  get #waiting() {
    return this.rows.filter((job) => !job.in_work);
  }

  async #move(job, target, before) {
    if (!target || target.id === job.id) return;
    const told = await tried(() => post('queue/order', { id: job.id, [before ? 'before' : 'after']: target.id }));
    if (!told) return;
    this.everybody ? await this.#load() : this.#shown(told);
    const i = this.rows.findIndex((one) => one.id === job.id);
    this.said = t.jobs.move(called(job), this.#waiting.findIndex((one) => one.id === job.id) + 1);
    await this.updateComplete;
    await this.querySelector('wa-list').updateComplete;
    this.querySelector('wa-list').show(i, '.handle');
  }

  #step(job, by) {
    const waiting = this.#waiting.filter((one) => one.owner === job.owner);
    this.#move(job, waiting[waiting.findIndex((one) => one.id === job.id) + by], by < 0);
  }

  #keys(e, job) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[e.key];
    if (!by) return;
    e.preventDefault();
    this.#step(job, by);
  }

  #dragOver(e, job) {
    if (!this.dragged || job.in_work || this.dragged.owner !== job.owner) return;
    e.preventDefault();
    const row = e.currentTarget;
    const before = e.clientY < row.getBoundingClientRect().top + row.offsetHeight / 2;
    row.classList.toggle('above', before);
    row.classList.toggle('below', !before);
  }

  #dragLeave(e) {
    e.currentTarget.classList.remove('above', 'below');
  }

  #drop(e, job) {
    e.preventDefault();
    const before = e.currentTarget.classList.contains('above');
    this.#dragLeave(e);
    if (this.dragged) this.#move(this.dragged, job, before);
    this.dragged = null;
  }

  async #hold(job) {
    if (await change(job, { held: !job.held })) this.#later();
  }

  async #stop(job) {
    if (await cancel(job)) this.#later();
  }

  async #pause() {
    const told = await tried(() => post(`queue/${this.paused ? 'resume' : 'pause'}`));
    if (told) this.paused = told.paused;
  }

  // Drawing

  #row(job) {
    const name = called(job);
    const waits = this.show === 'queue' && !job.in_work;
    return html`<div class="row" draggable=${waits ? 'true' : 'false'} @dragstart=${() => (this.dragged = job)} @dragend=${() => (this.dragged = null)}
      @dragover=${(e) => this.#dragOver(e, job)} @dragleave=${this.#dragLeave} @drop=${(e) => this.#drop(e, job)}>
      ${this.show !== 'queue' ? nothing : waits ? html`<button class="handle quiet" aria-label=${t.jobs.drag(name)} title=${t.jobs.drag(name)} @keydown=${(e) => this.#keys(e, job)}><span aria-hidden="true">⠿</span></button>` : html`<span class="handle"></span>`}
      <div class="glimpse">${job.in_work && job.seen ? html`<img src="/v1/jobs/${job.id}/preview.png?n=${job.seen}" alt=${t.jobs.preview}>` : html`<span class="kind ${job.mode}" aria-hidden="true"></span>`}</div>
      <div class="what"><a href=${addressOf(job)} class="clip">${name}</a>
        <p class="clip soft">${[t.modes[job.mode]?.name, t.kinds[job.kind], this.everybody ? t.jobs.by(job.owner) : '', ago(job.created)].filter(Boolean).join(' · ')}</p></div>
      <div class="how"><div class="line">${tag(job)}${job.in_work ? html`<span class="soft">${percent(job.progress.fraction)}</span>` : nothing}</div>${bar(job)}<p class="clip soft" title=${doing(job)}>${doing(job)}</p></div>
      <div class="do">${isOpen(job) && session.is('submit') ? this.#actions(job, name, waits) : nothing}</div>
    </div>`;
  }

  #actions(job, name, waits) {
    return html`${waits
      ? html`<button class="quiet icon" aria-label="${t.jobs.up}: ${name}" title=${t.jobs.up} @click=${() => this.#step(job, -1)}>↑</button>
          <button class="quiet icon" aria-label="${t.jobs.down}: ${name}" title=${t.jobs.down} @click=${() => this.#step(job, 1)}>↓</button>
          <label class="priority"><span class="hidden">${t.jobs.priority}: ${name}</span><select title=${t.jobs.priority} @change=${async (e) => (await change(job, { priority: Number(e.target.value) })) && this.#later()}>
            ${[...new Set([TOP, 0, -TOP, job.priority])].sort((a, b) => b - a).map((n) => html`<option value=${n} ?selected=${n === job.priority}>${t.jobs.priority} ${n > 0 ? `+${n}` : n}</option>`)}</select></label>`
      : nothing}
      <button class="quiet" aria-label="${job.held ? t.jobs.release : t.jobs.hold}: ${name}" @click=${() => this.#hold(job)}>${job.held ? t.jobs.release : t.jobs.hold}</button>
      <button class="quiet" aria-label=${t.jobs.stopName(name)} ?disabled=${stateOf(job) === 'cancelling'} @click=${() => this.#stop(job)}>${t.jobs.stop}</button>`;
  }

  #filters() {
    const search = (e) => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => ((this.search = e.target.value.trim()), this.#load()), PAUSE);
    };
    return html`<div class="line filters">
      ${this.show === 'all'
        ? html`<label class="field"><span>${t.jobs.search}</span><input type="search" placeholder=${t.jobs.searchHint} @input=${search}></label>
            <label class="field"><span>${t.jobs.filter}</span><select @change=${(e) => ((this.state = e.target.value), this.#load())}><option value="">${t.jobs.every}</option>
              ${['pending', 'running', 'succeeded', 'failed', 'cancelled'].map((state) => html`<option value=${state}>${t.states[state]}</option>`)}</select></label>`
        : nothing}
      ${session.is('admin') ? html`<label class="check"><input type="checkbox" .checked=${!!this.everybody} @change=${(e) => ((this.everybody = e.target.checked), this.#load())}><span>${t.jobs.everybody}</span></label>` : nothing}
      <span class="soft">${this.rows ? t.jobs.total(this.total) : ''}</span></div>`;
  }

  #nothing() {
    const searched = this.show === 'all' && (this.state || this.search);
    const [title, words] = searched ? [t.jobs.noneFound, t.jobs.noneAbout] : [this.show === 'queue' ? t.jobs.empty : t.jobs.none, t.jobs.emptyAbout];
    return html`<div class="empty"><span class="kind" aria-hidden="true"></span><h2>${title}</h2><p class="soft">${words}</p>${searched ? nothing : html`<button class="main" @click=${() => go('start')}>${t.jobs.first}</button>`}</div>`;
  }

  render() {
    const tab = (show, words) => html`<a href="#/jobs${show === 'queue' ? '' : `?show=${show}`}" aria-current=${this.show === show ? 'true' : nothing}>${words}</a>`;
    return html`
      <div class="head"><h1>${t.jobs.title}</h1><div class="line"><div class="switch">${tab('queue', t.jobs.queue)}${tab('all', t.jobs.all)}</div>
        ${session.is('admin') && this.show === 'queue' && this.rows ? html`<button @click=${() => this.#pause()}>${this.paused ? t.jobs.resume : t.jobs.pause}</button>` : nothing}</div></div>
      ${this.paused && this.show === 'queue' ? html`<p class="note warn filled" role="status">${t.jobs.paused}</p>` : nothing}
      ${this.#filters()}
      ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}
      <p class="hidden" role="status">${this.said ?? ''}</p>
      ${!this.rows ? html`<p class="soft">${this.trouble ? '' : t.jobs.loading}</p>` : this.total === 0 ? this.#nothing() : html`<wa-list .label=${this.show === 'queue' ? t.jobs.queue : t.jobs.all} .total=${this.total} .version=${this.version} .at=${(i) => this.rows[i] ?? null} .key=${(job) => job.id} .draw=${(job, i) => this.#row(job, i)}
        @range=${(e) => this.#more(e.detail)}></wa-list>`}`;
  }
}
customElements.define('wa-jobs', Jobs);
