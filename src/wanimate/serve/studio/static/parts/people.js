// The people of a clip, to choose whom to follow.
import { html, nothing } from '../vendor/lit.js';
import { css, Part, say } from './base.js';
import { get, local, post } from '../api.js';
import { t } from '../texts.js';

const PACE = 1000;

class People extends Part {
  // video: what /v1/people takes as `video`, null for none. person, at: what is chosen. start: where what is used of the clip begins. Says `found` and `chosen`.
  static properties = { video: {}, person: {}, at: {}, start: {}, found: { state: true }, trouble: { state: true }, slow: { state: true } };

  willUpdate(changed) {
    const another = changed.has('video') && JSON.stringify(changed.get('video')) !== JSON.stringify(this.video);
    if (another || (changed.has('start') && changed.get('start') !== undefined && !this.at)) this.#look(this.at);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.turn = null;
  }

  async #look(at) {
    const turn = (this.turn = {});
    this.found = this.trouble = null;
    this.slow = false;
    if (!this.video) return;
    const began = Date.now();
    try {
      let told = await post('people', { video: this.video, wait: 0, ...(at ? { at: Number(at) } : this.start ? { start: Number(this.start) } : {}) });
      while (told.state === 'pending' || told.state === 'running') {
        await new Promise((fulfil) => setTimeout(fulfil, PACE));
        if (this.turn !== turn) return;
        this.slow = Date.now() - began > 20_000;
        told = await get(`people/${told.id}`);
      }
      if (this.turn !== turn) return;
      this.found = told;
      say(this, 'found', told);
    } catch (error) {
      if (this.turn !== turn) return;
      this.trouble = error.message;
      say(this, 'found', null);
    }
  }

  #choose(person) {
    say(this, 'chosen', { person, at: this.at });
  }

  #elsewhere() {
    const at = this.querySelector('[name="at"]').value;
    say(this, 'chosen', { person: this.person, at });
    this.#look(at);
  }

  #box({ number, box: [left, top, right, bottom] }, [width, height]) {
    const at = { left: `${(100 * left) / width}%`, top: `${(100 * top) / height}%`, width: `${(100 * (right - left)) / width}%`, height: `${(100 * (bottom - top)) / height}%` };
    return html`<button type="button" class="person" .style=${css(at)} aria-pressed=${this.person === String(number)} @click=${() => this.#choose(String(number))}
      aria-label=${t.start.person(number)}></button>`;
  }

  render() {
    if (!this.video) return nothing;
    return html`<section class="card stack" aria-label=${t.start.people}><h2>${t.start.people}</h2>${this.#told()}</section>`;
  }

  #told() {
    if (this.trouble) return html`<p class="note bad" role="alert">${this.trouble}</p>`;
    if (!this.found) return html`<p class="soft" role="status">${this.slow ? t.start.lookWaits : t.start.looking}</p>`;
    const { people, picture, size } = this.found;
    if (!people.length) return html`<p class="note warn" role="alert">${t.start.nobody}</p>`;
    const choices = ['largest', ...people.map((one) => String(one.number))];
    return html`<div class="crowd">
        <div class="picture"><img src=${local(picture)} alt=${people.length === 1 ? t.start.one : t.start.several(people.length)}>${people.length > 1 ? people.map((one) => this.#box(one, size)) : nothing}</div>
        <div class="stack"><p>${people.length === 1 ? t.start.one : t.start.several(people.length)}</p>
          ${people.length > 1
            ? html`<div role="radiogroup" aria-label=${t.start.people} class="stack tight">${choices.map((who) => html`<label class="check"><input type="radio" name="person" .checked=${this.person === who}
                @change=${() => this.#choose(who)}>${who === 'largest' ? t.start.largest : t.start.person(who)}</label>`)}</div>`
            : nothing}
          <details><summary>${t.start.at}</summary><div class="line"><label class="field"><span>${t.start.seconds}</span><input name="at" type="number" min="0" step="0.1" .value=${String(this.at ?? '')}></label>
            <button type="button" @click=${this.#elsewhere}>${t.start.look}</button></div></details></div>
      </div>`;
  }
}
customElements.define('wa-people', People);
