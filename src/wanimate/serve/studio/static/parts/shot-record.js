// Camera, light and size of each shot of the clip: what the analysis proposes, and what people say of it.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from './base.js';
import { api, get, session } from '../api.js';
import { fromOne, percent } from '../format.js';
import { t } from '../texts.js';
import { tried } from './toasts.js';

// Fields that are shown before the others; what nobody knows of the rest stays folded.
const FIRST = ['xmpDM:cameraMove', 'xmpDM:shotSize', 'temperature', 'drift', 'white'];
const REST = ['xmpDM:cameraAngle', 'timeOfDay', 'place', 'luma', 'black', 'temperatureDrift', 'mixed', 'exif:LightSource', 'Iptc4xmpCore:Scene'];

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

class ShotRecord extends Part {
  // job: the id of a job that has guides. Says `sought` with the first frame of a shot.
  static properties = { job: {}, record: { state: true }, number: { state: true }, editing: { state: true }, busy: { state: true }, trouble: { state: true } };

  constructor() {
    super();
    this.number = 1;
  }

  willUpdate(changed) {
    if (!changed.has('job')) return;
    Object.assign(this, { record: null, number: 1, editing: null, trouble: null });
    this.#load();
  }

  async #load() {
    const { job } = this;
    const record = await get(`jobs/${job}/shot`).catch((error) => void (this.trouble = error.message));
    if (record && job === this.job) this.record = record;
  }

  async #tell(body) {
    this.busy = true;
    const record = await tried(() => api('PATCH', `jobs/${this.job}/shot`, { shot: this.number, ...body }));
    this.busy = false;
    if (!record) return;
    this.record = record;
    this.editing = null;
  }

  async #edit(field) {
    this.editing = field;
    await this.updateComplete;
    this.querySelector('.edit select, .edit input')?.focus();
  }

  #save(e, field) {
    e.preventDefault();
    const value = new FormData(e.target).get('value').trim();
    if (value) this.#tell({ set: { [field]: value } });
  }

  get #shot() {
    return this.record.shots[this.number - 1];
  }

  #form(field, one) {
    const { choices } = this.record;
    const words = field === 'mixed' ? ['false', 'true'] : choices[field];
    const now = one?.value === null || one === undefined ? '' : String(one.value);
    return html`<form class="edit line" @submit=${(e) => this.#save(e, field)} @keydown=${(e) => e.key === 'Escape' && (this.editing = null)}>
      ${words
        ? html`<select name="value" aria-label=${t.shot.fields[field]}>${words.map((word) => html`<option value=${word} ?selected=${word === now}>${t.shot.words[word] ?? word}</option>`)}</select>`
        : html`<input name="value" maxlength="200" aria-label=${t.shot.fields[field]} .value=${now}>`}
      <button ?disabled=${this.busy}>${t.shot.save}</button><button type="button" class="quiet" @click=${() => (this.editing = null)}>${t.cancel}</button></form>`;
  }

  #row(field) {
    const one = this.#shot.values[field];
    const name = t.shot.fields[field];
    const known = one && one.value !== null;
    const said = known && one.by !== 'analysis';
    const measured = known && !said && one.confidence === 1;
    return html`<div><dt>${name}</dt><dd>${this.editing === field
      ? this.#form(field, one)
      : html`<div class="line apart"><span>${t.shot.value(field, known ? one.value : null)} <span class="soft">${said ? t.shot.by(one.by) : measured || !known ? '' : t.shot.sure(percent(one.confidence))}</span></span>
          ${session.is('submit')
            ? html`<span class="acts">${known && !said && !measured ? html`<button class="quiet" ?disabled=${this.busy} aria-label=${t.shot.confirmName(name)} @click=${() => this.#tell({ confirm: [field] })}>${t.shot.confirm}</button>` : nothing}
                <button class="quiet" aria-label=${t.shot.changeName(name)} @click=${() => this.#edit(field)}>${t.shot.change}</button></span>`
            : nothing}</div>`}</dd></div>`;
  }

  #choose(number) {
    this.number = number;
    this.editing = null;
    say(this, 'sought', this.#shot.first);
  }

  #advice(advice) {
    return html`<div class="note ${advice.action === 'relight' ? 'good' : 'warn'}"><p><strong>${t.shot.actions[advice.action]}</strong></p><p>${capital(advice.reasons.map((reason) => fromOne(reason)).join('; '))}.</p></div>`;
  }

  render() {
    if (this.trouble) return html`<section class="card"><p class="note bad" role="alert">${this.trouble}</p></section>`;
    if (!this.record) return nothing;
    const { shots, advice } = this.record;
    return html`<section class="card stack record" aria-label=${t.shot.title}><h2>${t.shot.title}</h2>
      ${shots.length > 1
        ? html`${this.#advice(advice)}<label class="field"><span>${t.shot.which}</span><select @change=${(e) => this.#choose(Number(e.target.value))}>${shots.map((shot, i) => html`<option value=${i + 1} ?selected=${i + 1 === this.number}>${t.shot.one(i + 1, shot.first + 1, shot.stop)}</option>`)}</select></label>`
        : nothing}
      ${this.#advice(this.#shot.advice)}
      <dl class="facts">${FIRST.map((field) => this.#row(field))}</dl>
      <details><summary>${t.shot.more}</summary><dl class="facts">${REST.map((field) => this.#row(field))}</dl></details></section>`;
  }
}
customElements.define('wa-shot-record', ShotRecord);
