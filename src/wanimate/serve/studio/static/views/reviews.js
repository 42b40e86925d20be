// All shots: how they stand, and how much is said of them.
import { html, nothing, repeat } from '../vendor/lit.js';
import { Part } from '../parts/base.js';
import { get, local, session } from '../api.js';
import { stream } from '../events.js';
import { ago } from '../format.js';
import { t } from '../texts.js';
import { stand } from '../parts/verdict.js';

const PAGE = 60;
const SOON = 300;

class Reviews extends Part {
  static properties = { rows: { state: true }, next: { state: true }, state: { state: true }, search: { state: true }, everybody: { state: true }, trouble: { state: true } };

  constructor() {
    super();
    Object.assign(this, { rows: null, next: null, state: '', search: '', everybody: false });
  }

  connectedCallback() {
    super.connectedCallback();
    this.care(stream.listen(({ kind }) => ['review', 'succeeded', 'deleted', 'open'].includes(kind) && this.#soon()));
    this.care(() => clearTimeout(this.timer));
    this.#load();
  }

  #soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#load(), SOON);
  }

  async #load(more = false) {
    const turn = (this.turn = {});
    const asked = new URLSearchParams({ limit: more ? PAGE : Math.min(200, Math.max(PAGE, this.rows?.length ?? 0)) });
    if (this.state) asked.set('state', this.state);
    if (this.search) asked.set('search', this.search);
    if (this.everybody) asked.set('everybody', 'true');
    if (more) asked.set('cursor', this.next);
    try {
      const found = await get(`shots?${asked}`);
      if (this.turn !== turn) return;
      this.rows = more ? [...this.rows, ...found.data] : found.data;
      this.next = found.next;
      this.trouble = null;
    } catch (error) {
      if (this.turn === turn) this.trouble = error.message;
    }
  }

  #set(more) {
    Object.assign(this, more);
    this.#soon();
  }

  #card(shot) {
    return html`<li><a class="shot" href="#/review/${shot.id}"><span class="glimpse">${shot.thumbnail ? html`<img src=${local(shot.thumbnail)} alt="" loading="lazy">` : html`<span class="kind"></span>`}</span>
      <span class="about"><strong>${shot.name}</strong><span class="line">${stand(shot.state)}<span class="soft">${t.review.versions(shot.versions)}</span></span>
        <span class="soft">${shot.open ? t.review.openComments(shot.open) : t.review.noOpen} · ${ago(shot.changed)}${this.everybody ? ` · ${t.jobs.by(shot.owner)}` : ''}</span></span></a></li>`;
  }

  render() {
    const { rows } = this;
    const filters = this.state || this.search;
    return html`<div class="head"><div><h1>${t.nav.review}</h1><p class="soft">${t.review.about}</p></div></div>
      <div class="line filters"><label class="field"><span>${t.review.filter}</span><select @change=${(e) => this.#set({ state: e.target.value })}><option value="">${t.jobs.every}</option>${Object.entries(t.review.states).map(([state, words]) => html`<option value=${state}>${words}</option>`)}</select></label>
        <label class="field"><span>${t.jobs.search}</span><input type="search" maxlength="200" placeholder=${t.review.searchHint} @input=${(e) => this.#set({ search: e.target.value.trim() })}></label>
        ${session.is('admin') ? html`<label class="check"><input type="checkbox" .checked=${this.everybody} @change=${(e) => this.#set({ everybody: e.target.checked })}><span>${t.jobs.everybody}</span></label>` : nothing}</div>
      ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}
      ${rows === null ? html`<p class="soft">${t.jobs.loading}</p>` : rows.length ? html`<ul class="shots">${repeat(rows, (shot) => shot.id, (shot) => this.#card(shot))}</ul>` : html`<div class="empty"><h2>${filters ? t.review.noneFound : t.review.none}</h2><p class="soft">${filters ? '' : t.review.noneAbout}</p>${filters ? nothing : html`<a class="button main" href="#/start">${t.start.make}</a>`}</div>`}
      ${this.next ? html`<div class="line"><button @click=${() => this.#load(true)}>${t.review.more}</button></div>` : nothing}`;
  }
}
customElements.define('wa-reviews', Reviews);
