// Two shelves, clips and characters: searched, filtered by tags, previewed, changed, approved, and used in a job.
import { html, nothing, repeat } from '../vendor/lit.js';
import { Part } from '../parts/base.js';
import { get, post, session } from '../api.js';
import { keepDraft, loadDraft } from '../draft.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { badges, isUsable, measures, PLACES, sourceFrom } from '../parts/entry.js';
import { toast, tried } from '../parts/toasts.js';
import '../parts/glance.js';
import '../parts/entry-form.js';

const PAGE = 24;
const PAUSE = 200;
const AGAIN = 1500;
const FEW = 12;

class Library extends Part {
  // shelf: clip or character.
  static properties = { shelf: {}, rows: { state: true }, total: { state: true }, tags: { state: true }, chosen: { state: true }, more: { state: true }, trouble: { state: true }, first: { state: true }, filtered: { state: true } };

  constructor() {
    super();
    this.#blank();
    this.everybody = false;
  }

  connectedCallback() {
    super.connectedCallback();
    this.care(() => [this.typing, this.again].forEach(clearTimeout));
  }

  willUpdate(changed) {
    if (!changed.has('shelf')) return;
    this.#blank();
    this.rows = null;
    this.#load();
  }

  #blank() {
    [this.chosen, this.first, this.search, this.status, this.kind, this.more] = [[], 0, '', '', '', false];
  }

  async #load(first = 0) {
    const turn = (this.turn = {});
    clearTimeout(this.again);
    const whose = this.everybody ? { everybody: true } : {};
    const query = new URLSearchParams({ shelf: this.shelf, limit: PAGE, ...(first ? { cursor: first } : {}), ...whose });
    for (const name of ['search', 'status', 'kind']) if (this[name]) query.set(name, this[name]);
    for (const tag of this.chosen) query.append('tag', tag);
    try {
      const [told, tags, { clips }] = await Promise.all([get(`library?${query}`), get(`library/tags?${new URLSearchParams({ shelf: this.shelf, ...whose })}`), get('models')]);
      if (this.turn !== turn) return;
      if (!told.data.length && first) return void this.#load(Math.max(0, first - PAGE));
      [this.rows, this.total, this.tags, this.clips, this.first, this.trouble] = [told.data, told.total, tags.data, clips, first, ''];
      this.filtered = !!(this.search || this.status || this.kind || this.chosen.length);
      if (this.rows.some((entry) => entry.looking)) this.again = setTimeout(() => document.hidden || this.#load(this.first), AGAIN);
    } catch (error) {
      if (this.turn === turn) this.trouble = error.message;
    }
  }

  #type(e) {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => ((this.search = e.target.value.trim()), this.#load()), PAUSE);
  }

  #filter(name, value) {
    this[name] = value;
    this.#load();
  }

  #tag(tag) {
    this.#filter('chosen', this.chosen.includes(tag) ? this.chosen.filter((one) => one !== tag) : [...this.chosen, tag]);
  }

  async #page(first) {
    await this.#load(first);
    scrollTo(0, 0);
  }

  #use(entry) {
    keepDraft({ ...loadDraft(), [PLACES[entry.shelf]]: sourceFrom(entry), ...(entry.shelf === 'clip' ? { person: 'largest', at: '' } : {}) });
    toast(t.library.used(entry.title));
    go('start');
  }

  async #decide(entry, how) {
    const told = await tried(() => post(`library/${entry.id}/${how}`));
    if (!told) return;
    this.rows = this.rows.map((one) => (one.id === told.id ? told : one));
    toast(t.library.decided[told.status](told.title));
  }

  #form(entry = null) {
    this.querySelector('wa-entry-form').open(this.shelf, entry);
  }

  // Drawing

  #card(entry) {
    const mine = session.is('submit') && (entry.owner === session.owner || session.is('admin'));
    const name = entry.title;
    return html`<article class="card entry" aria-label=${name}>
      ${entry.preview ? html`<button type="button" class="glance" aria-label=${t.library.preview(name)}><wa-glance .entry=${entry} press></wa-glance></button>` : html`<div class="glance">${entry.poster ? html`<img src=${new URL(entry.poster, location.href).pathname} alt="" loading="lazy">` : html`<span class="soft">${entry.looking ? t.library.looking : t.library.broken}</span>`}</div>`}
      <div class="stack tight">
        <h2 class="clip" title=${name}>${name}</h2>
        <p class="soft small clip"><code>${entry.name}</code>${this.everybody && !entry.house ? html` · ${t.library.by(entry.owner)}` : nothing}</p>
        <p class="soft small">${measures(entry)}</p>
        <p class="line small">${badges(entry)}</p>
        ${entry.tags.length ? html`<p class="soft small">${entry.tags.map((tag) => `#${tag}`).join(' ')}</p>` : nothing}
        ${entry.trouble ? html`<p class="error small">${entry.trouble}</p>` : nothing}</div>
      <div class="line deeds">
        ${session.is('submit') && isUsable(entry, session.owner, this.clips) ? html`<button aria-label=${t.library.useName(name)} @click=${() => this.#use(entry)}>${t.library.use}</button>` : nothing}
        ${session.is('admin') && !entry.looking && !entry.trouble ? html`<button class="quiet" aria-label="${entry.status === 'approved' ? t.library.retire : t.library.approve}: ${name}" @click=${() => this.#decide(entry, entry.status === 'approved' ? 'retire' : 'approve')}>${entry.status === 'approved' ? t.library.retire : t.library.approve}</button>` : nothing}
        ${mine ? html`<button class="quiet" aria-label="${t.library.edit}: ${name}" @click=${() => this.#form(entry)}>${t.library.edit}</button>` : nothing}
      </div></article>`;
  }

  #filters() {
    const choice = (name, label, any, words) => html`<label class="field"><span>${label}</span><select @change=${(e) => this.#filter(name, e.target.value)}><option value="">${any}</option>${Object.entries(words).map(([value, text]) => html`<option value=${value} ?selected=${this[name] === value}>${text}</option>`)}</select></label>`;
    const shown = this.more ? (this.tags ?? []) : (this.tags ?? []).filter(({ tag }, i) => i < FEW || this.chosen.includes(tag));
    return html`<div class="line filters">
        <label class="field"><span>${t.library.search}</span><input type="search" placeholder=${t.library.searchHint} .value=${this.search} @input=${this.#type}></label>
        ${choice('status', t.library.status, t.library.every, t.library.states)}
        ${this.shelf === 'clip' ? choice('kind', t.library.kind, t.library.everyKind, t.library.kinds) : nothing}
        ${session.is('admin') ? html`<label class="check"><input type="checkbox" .checked=${this.everybody} @change=${(e) => this.#filter('everybody', e.target.checked)}><span>${t.jobs.everybody}</span></label>` : nothing}
        <span class="soft" role="status">${this.rows ? t.library.total(this.total) : ''}</span></div>
      ${shown.length
        ? html`<div class="line chips" role="group" aria-label=${t.library.byTag}>${shown.map(({ tag, entries }) => html`<button type="button" class="chip" aria-pressed=${this.chosen.includes(tag) ? 'true' : 'false'} @click=${() => this.#tag(tag)}>${tag} <span class="soft">${entries}</span></button>`)}
            ${this.tags.length > shown.length ? html`<button type="button" class="quiet" @click=${() => (this.more = true)}>${t.library.moreTags(this.tags.length - shown.length)}</button>` : nothing}</div>`
        : nothing}`;
  }

  #nothing() {
    const [title, words] = this.filtered ? [t.library.noneFound, t.library.noneAbout] : [t.library.empty[this.shelf], t.library.emptyAbout[this.shelf]];
    return html`<div class="empty"><span class="kind" aria-hidden="true"></span><h2>${title}</h2><p class="soft">${words}</p>${this.filtered || !session.is('submit') ? nothing : html`<button class="main" @click=${() => this.#form()}>${t.library.add[this.shelf]}</button>`}</div>`;
  }

  #pages() {
    if (this.total <= PAGE) return nothing;
    const last = Math.min(this.first + PAGE, this.total);
    return html`<nav class="line pages" aria-label=${t.library.pages}><button ?disabled=${!this.first} @click=${() => this.#page(this.first - PAGE)}>${t.library.previous}</button>
      <span>${t.library.range(this.first + 1, last, this.total)}</span><button ?disabled=${last >= this.total} @click=${() => this.#page(this.first + PAGE)}>${t.library.next}</button></nav>`;
  }

  render() {
    const tab = (shelf, words) => html`<a href="#/library${shelf === 'clip' ? '' : `?shelf=${shelf}`}" aria-current=${this.shelf === shelf ? 'true' : nothing}>${words}</a>`;
    return html`<div class="head"><div><h1>${t.library.title}</h1></div><div class="line"><div class="switch">${tab('clip', t.library.clips)}${tab('character', t.library.characters)}</div>
        ${session.is('submit') ? html`<button class="main" @click=${() => this.#form()}>${t.library.add[this.shelf]}</button>` : nothing}</div></div>
      ${this.#filters()}
      ${this.clips === 'approved' ? html`<p class="note policy">${t.library.onlyApproved}</p>` : nothing}
      ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}
      ${!this.rows ? html`<p class="soft">${this.trouble ? '' : t.library.loading}</p>` : this.rows.length ? html`<ul class="shelf" aria-label=${this.shelf === 'clip' ? t.library.clips : t.library.characters}>${repeat(this.rows, (entry) => entry.id, (entry) => html`<li>${this.#card(entry)}</li>`)}</ul>${this.#pages()}` : this.#nothing()}
      <wa-entry-form @done=${() => this.#load(this.first)}></wa-entry-form>`;
  }
}
customElements.define('wa-library', Library);
