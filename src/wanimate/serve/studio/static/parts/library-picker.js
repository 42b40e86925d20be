// "From the library": a dialog in which a clip or a character is chosen. Says `picked` with a source.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from './base.js';
import { get, session } from '../api.js';
import { t } from '../texts.js';
import { isUsable, measures, PLACES, sourceFrom } from './entry.js';
import './glance.js';

const PAUSE = 200;
const MOST = 60;

class LibraryPicker extends Part {
  // kind: image or video.
  static properties = { kind: {}, rows: { state: true }, next: { state: true }, trouble: { state: true } };

  get #shelf() {
    return Object.keys(PLACES).find((shelf) => PLACES[shelf] === this.kind);
  }

  async #load(search = '') {
    const turn = (this.turn = {});
    try {
      const [told, { clips }] = await Promise.all([get(`library?${new URLSearchParams({ shelf: this.#shelf, search, limit: MOST })}`), get('models')]);
      if (this.turn !== turn) return;
      [this.rows, this.next, this.trouble] = [told.data.filter((entry) => isUsable(entry, session.owner, clips)), told.next, ''];
    } catch (error) {
      if (this.turn === turn) this.trouble = error.message;
    }
  }

  #open() {
    this.rows = null;
    this.querySelector('dialog').showModal();
    this.querySelector('input').value = '';
    this.#load();
  }

  #type(e) {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.#load(e.target.value.trim()), PAUSE);
  }

  #pick(entry) {
    this.querySelector('dialog').close();
    say(this, 'picked', sourceFrom(entry));
  }

  #row(entry) {
    return html`<li><button type="button" class="pick" @click=${() => this.#pick(entry)}><span class="glance"><wa-glance .entry=${entry}></wa-glance></span>
      <span class="clip"><strong>${entry.title}</strong></span><small class="soft">${measures(entry)}</small></button></li>`;
  }

  render() {
    const title = t.library.choose[this.kind];
    return html`<button type="button" @click=${this.#open}>${t.library.from}</button>
      <dialog class="broad" aria-label=${title}><div class="line apart"><h2>${title}</h2><button type="button" class="quiet" @click=${() => this.querySelector('dialog').close()}>${t.close}</button></div>
        <label class="field"><span>${t.library.search}</span><input type="search" placeholder=${t.library.searchHint} @input=${this.#type}></label>
        ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}
        <p class="soft" role="status">${this.rows === null ? t.library.loading : this.rows?.length ? this.next ? t.library.first(this.rows.length) : t.library.total(this.rows.length) : this.rows ? t.library.noneFound : ''}</p>
        <ul class="picks">${(this.rows ?? []).map((entry) => this.#row(entry))}</ul></dialog>`;
  }
}
customElements.define('wa-library-picker', LibraryPicker);
