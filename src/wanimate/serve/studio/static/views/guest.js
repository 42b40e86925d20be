// The page of a guest: one shot behind a link, and nothing else of the studio.
import { html, nothing } from '../vendor/lit.js';
import { Part } from '../parts/base.js';
import { api, post } from '../api.js';
import { day } from '../format.js';
import { t } from '../texts.js';
import { guest } from '../parts/desk.js';
import { tried } from '../parts/toasts.js';
import '../parts/toasts.js';
import './review.js';

class GuestPage extends Part {
  static properties = { token: {}, welcome: { state: true }, desk: { state: true }, trouble: { state: true }, busy: { state: true } };

  connectedCallback() {
    super.connectedCallback();
    const out = () => this.#over(t.review.linkOver);
    addEventListener('signed-out', out);
    this.care(() => removeEventListener('signed-out', out));
    this.care(() => this.desk?.stream.close());
  }

  willUpdate(changed) {
    if (changed.has('token')) this.#look();
  }

  #over(text) {
    this.desk?.stream.close();
    this.desk = this.welcome = null;
    this.trouble = text;
  }

  async #look(name) {
    this.busy = true;
    try {
      this.welcome = await post('guest', { token: this.token, ...(name ? { name } : {}) });
      this.trouble = null;
      if (this.welcome.you) this.#enter();
    } catch (error) {
      if (error.status === 401) this.#over(t.review.linkOver);
      else this.trouble = error.message;
    } finally {
      this.busy = false;
    }
  }

  #enter() {
    this.desk = guest();
    this.desk.stream.open();
  }

  #begin(e) {
    e.preventDefault();
    const name = new FormData(e.target).get('name').trim();
    if (name) this.#look(name);
  }

  async #leave() {
    await tried(() => api('DELETE', 'guest'));
    this.#over(t.review.left);
  }

  #door() {
    const { welcome } = this;
    return html`<main class="alone"><form class="card" @submit=${this.#begin}><h1><span class="logo" aria-hidden="true"></span>${welcome?.shot ?? t.brand}</h1>
      ${welcome ? html`<p>${t.review.welcome}</p><p class="hint">${t.review.youMay(t.review.rights[welcome.rights.at(-1)])} ${t.review.linkUntil(day(welcome.expires))}</p>
        <label class="field"><span>${t.review.yourName}</span><input name="name" required maxlength="80" autocomplete="name"></label><div><button class="main" ?disabled=${this.busy}>${t.review.enter}</button></div>` : nothing}
      ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}</form></main><wa-toasts></wa-toasts>`;
  }

  render() {
    document.title = this.welcome ? `${this.welcome.shot} · ${t.name}` : t.name;
    if (!this.desk) return this.welcome || this.trouble ? this.#door() : nothing;
    return html`<a class="skip" href="#main" @click=${(e) => (e.preventDefault(), this.querySelector('main').focus())}>${t.nav.skip}</a>
      <header class="bar"><span class="mark"><span class="logo" aria-hidden="true"></span>${t.brand}</span><div class="who"><button class="quiet" @click=${() => this.#leave()}>${t.review.leave}</button></div></header>
      <main id="main" tabindex="-1"><wa-review .desk=${this.desk} .id=${'guest'}></wa-review></main><wa-toasts></wa-toasts>`;
  }
}
customElements.define('wa-guest', GuestPage);
