// Where results of a shot went, and what of it is to be taken back.
import { html, nothing } from '../vendor/lit.js';
import { get, post } from '../api.js';
import { Part } from './base.js';
import { day } from '../format.js';
import { t } from '../texts.js';
import { tried } from './toasts.js';

class Gone extends Part {
  // shot: its id. mark: changes when something was decided. sign(body): with the name of who confirms.
  static properties = { shot: {}, mark: {}, sign: {}, rows: { state: true } };

  constructor() {
    super();
    this.rows = [];
  }

  willUpdate(changed) {
    if (changed.has('shot') || changed.has('mark')) this.#load();
  }

  async #load() {
    const { data } = await get(`shots/${this.shot}/releases`).catch(() => ({ data: [] }));
    this.rows = data;
  }

  async #confirm(id) {
    if (await tried(() => post(`shots/${this.shot}/releases/${id}/recalled`, this.sign({})))) await this.#load();
  }

  render() {
    if (!this.rows.length) return nothing;
    return html`<section class="card stack"><h2>${t.review.out.title}</h2><ul class="gone">${this.rows.map((one) => html`<li>
      <div class="line apart"><p><strong>${t.review.out.ways[one.way] ?? one.way}</strong> <span class="soft">${t.review.out.place(one.place)}</span></p><span class="tag ${one.state}">${t.review.out.states[one.state]}</span></div>
      <p class="hint"><time datetime=${new Date(one.at).toISOString()}>${day(one.at)}</time>${one.derived.length ? html` · ${t.review.out.derived(one.derived.map(([name]) => name).join(', '))}` : nothing}${one.confirmed ? html` · ${t.review.out.confirmed(day(one.confirmed))}` : nothing}</p>
      ${one.state === 'to_be_taken_back' ? html`<div><button @click=${() => this.#confirm(one.id)} aria-label=${t.review.out.confirmName(t.review.out.place(one.place))}>${t.review.out.confirm}</button></div>` : nothing}</li>`)}</ul></section>`;
  }
}
customElements.define('wa-gone', Gone);
