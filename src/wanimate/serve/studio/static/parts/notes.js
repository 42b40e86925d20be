// Comments of a version as a list, and the form of a new one.
import { html, nothing, repeat } from '../vendor/lit.js';
import { css, Part, say } from './base.js';
import { ago } from '../format.js';
import { t } from '../texts.js';

export const COLOURS = ['#ff3b30', '#ffcc00', '#34c759', '#0a84ff', '#ffffff', '#000000'];
export const WIDTHS = [0.004, 0.008, 0.016];

class Notes extends Part {
  // notes: numbered comments. draft: the one that is being written. fps, count: of the version. may: whether this person may comment.
  static properties = { notes: {}, draft: {}, chosen: {}, fps: {}, count: {}, may: {}, busy: {}, open: { state: true }, answering: { state: true }, editing: { state: true } };

  constructor() {
    super();
    Object.assign(this, { notes: [], draft: null, open: false, answering: null, editing: null });
  }

  updated(changed) {
    if (changed.has('chosen') && this.chosen) this.querySelector('.note-of.chosen')?.scrollIntoView({ block: 'nearest' });
  }

  async write() {
    await this.updateComplete;
    this.querySelector('form.write textarea')?.focus();
  }

  #set(more) {
    say(this, 'draft', { ...this.draft, ...more });
  }

  #send(e) {
    e.preventDefault();
    if (this.draft.text.trim()) say(this, 'send');
  }

  #keys(e) {
    if (e.key === 'Escape') say(this, 'dropped');
    else if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) this.#send(e);
  }

  async #answer(e, id) {
    e.preventDefault();
    const text = new FormData(e.target).get('text').trim();
    if (!text) return;
    say(this, 'reply', { id, text });
    this.answering = null;
  }

  async #edit(e, id) {
    e.preventDefault();
    const text = new FormData(e.target).get('text').trim();
    if (!text) return;
    say(this, 'change', { id, text });
    this.editing = null;
  }

  #tools() {
    const { draft } = this;
    const draws = draft.tool === 'draw';
    return html`<div class="line tools"><div class="switch" role="group" aria-label=${t.review.tool}>
        <button type="button" aria-pressed=${draws ? 'false' : 'true'} @click=${() => this.#set({ tool: 'pin' })}>${t.review.point}</button>
        <button type="button" aria-pressed=${draws ? 'true' : 'false'} @click=${() => this.#set({ tool: 'draw' })}>${t.review.draw}</button></div>
      ${draws
        ? html`<div class="line swatches" role="radiogroup" aria-label=${t.review.colour}>${COLOURS.map((colour, i) => html`<label class="swatch"><input type="radio" name="colour" value=${colour} .checked=${draft.colour === colour} @change=${() => this.#set({ colour })}><span .style=${css({ background: colour })} title=${t.review.colours[i]}><span class="hidden">${t.review.colours[i]}</span></span></label>`)}</div>
            <label class="line"><span class="hidden">${t.review.width}</span><select @change=${(e) => this.#set({ width: Number(e.target.value) })}>${WIDTHS.map((width, i) => html`<option value=${width} ?selected=${draft.width === width}>${t.review.widths[i]}</option>`)}</select></label>
            <button type="button" class="quiet" ?disabled=${!draft.marks.length} @click=${() => this.#set({ marks: draft.marks.slice(0, -1) })}>${t.review.undo}</button>`
        : draft.x === null
          ? html`<button type="button" class="quiet" @click=${() => this.#set({ x: 0.5, y: 0.5 })}>${t.review.middle}</button>`
          : html`<button type="button" class="quiet" @click=${() => this.#set({ x: null, y: null })}>${t.review.noPoint}</button>`}</div>
      <p class="hint">${draws ? t.review.drawHint : t.review.pointHint}</p>`;
  }

  #writing() {
    const { draft } = this;
    if (!draft) return html`<div><button class="main" @click=${() => say(this, 'asked', 'write')}>${t.review.write}</button></div>`;
    return html`<form class="write stack tight" @submit=${this.#send} @keydown=${this.#keys}>
      <label class="field"><span>${t.review.at(draft.frame + 1)}</span><textarea required maxlength="5000" placeholder=${t.review.placeholder} .value=${draft.text} @input=${(e) => this.#set({ text: e.target.value })}></textarea></label>
      ${this.#tools()}
      <label class="field line lasts"><span>${t.review.lasts}</span><input type="number" min="1" max=${this.count - draft.frame} .value=${String(draft.duration)} @input=${(e) => this.#set({ duration: Math.min(this.count - draft.frame, Math.max(1, Math.round(Number(e.target.value)) || 1)) })}></label>
      <div class="line"><button class="main" ?disabled=${this.busy || !draft.text.trim()}>${t.review.send}</button><button type="button" class="quiet" @click=${() => say(this, 'dropped')}>${t.cancel}</button></div></form>`;
  }

  #own(id, note) {
    if (!this.may || !note.mine.includes(id)) return nothing;
    return html`<button class="quiet" @click=${() => (this.editing = id)}>${t.review.edit}</button><button class="quiet" @click=${() => say(this, 'remove', id)}>${t.compare.remove}</button>`;
  }

  #words(id, text) {
    if (this.editing !== id) return html`<p class="said">${text}</p>`;
    return html`<form class="stack tight" @submit=${(e) => this.#edit(e, id)}><label><span class="hidden">${t.review.edit}</span><textarea name="text" required maxlength="5000" .value=${text}></textarea></label>
      <div class="line"><button>${t.review.save}</button><button type="button" class="quiet" @click=${() => (this.editing = null)}>${t.cancel}</button></div></form>`;
  }

  #note(note) {
    const { id, n, frame, duration, author, role, at, resolved, resolved_by, replies } = note;
    const last = frame + duration;
    const where = duration > 1 ? t.guides.stretch(frame + 1, last) : t.review.frame(frame + 1);
    return html`<li class="note-of ${id === this.chosen ? 'chosen' : ''} ${resolved ? 'done' : ''}">
      <div class="line apart"><button class="quiet where" aria-current=${id === this.chosen ? 'true' : nothing} @click=${() => say(this, 'chosen', id)}><span class="hidden">${t.review.show} </span><span class="n">${n}</span>${where} · ${(frame / this.fps).toFixed(2)} s</button>
        ${this.may ? html`<label class="check"><input type="checkbox" .checked=${resolved !== null} @change=${(e) => say(this, 'change', { id, resolved: e.target.checked })}><span>${t.review.resolved}</span></label>` : resolved ? html`<span class="soft">${t.review.resolved}</span>` : nothing}</div>
      <p class="by"><strong>${author}</strong>${role === 'guest' ? html` <span class="tag">${t.review.guest}</span>` : nothing} <span class="soft">${ago(at)}</span></p>
      ${this.#words(id, note.text)}
      ${resolved ? html`<p class="hint">${t.review.resolvedBy(resolved_by, ago(resolved))}</p>` : nothing}
      ${replies.length ? html`<ul class="answers">${replies.map((one) => html`<li><p class="by"><strong>${one.author}</strong>${one.role === 'guest' ? html` <span class="tag">${t.review.guest}</span>` : nothing} <span class="soft">${ago(one.at)}</span></p>${this.#words(one.id, one.text)}<div class="line">${this.#own(one.id, note)}</div></li>`)}</ul>` : nothing}
      ${this.answering === id
        ? html`<form class="stack tight" @submit=${(e) => this.#answer(e, id)}><label><span class="hidden">${t.review.answer}</span><textarea name="text" required maxlength="5000" placeholder=${t.review.answerHint}></textarea></label>
            <div class="line"><button>${t.review.send}</button><button type="button" class="quiet" @click=${() => (this.answering = null)}>${t.cancel}</button></div></form>`
        : this.may ? html`<div class="line acts"><button class="quiet" @click=${() => this.#begin(id)}>${t.review.answer}</button>${this.#own(id, note)}</div>` : nothing}
    </li>`;
  }

  async #begin(id) {
    this.answering = id;
    await this.updateComplete;
    this.querySelector('.note-of textarea[name="text"]')?.focus();
  }

  render() {
    const left = this.notes.filter((note) => note.resolved === null);
    const shown = this.open ? left : this.notes;
    return html`<section class="card stack notes"><div class="line apart"><h2>${t.review.comments}</h2>
        ${this.notes.length > left.length ? html`<label class="check"><input type="checkbox" .checked=${this.open} @change=${(e) => (this.open = e.target.checked)}><span>${t.review.onlyOpen}</span></label>` : nothing}</div>
      ${this.may ? this.#writing() : nothing}
      ${shown.length ? html`<ol class="stack">${repeat(shown, (note) => note.id, (note) => this.#note(note))}</ol>` : html`<p class="soft">${this.notes.length ? t.review.allResolved : t.review.noComments}</p>`}</section>`;
  }
}
customElements.define('wa-notes', Notes);
