// Links for guests: made, copied, revoked.
import { html, nothing } from '../vendor/lit.js';
import { Part } from './base.js';
import { api, get, post } from '../api.js';
import { day } from '../format.js';
import { t } from '../texts.js';
import { toast, tried } from './toasts.js';

const RIGHTS = { view: ['view'], comment: ['view', 'comment'], decide: ['view', 'comment', 'decide'] };
const WEEK = 7;

class Invite extends Part {
  // shot: its id. sign: adds what the person calls themselves to a body.
  static properties = { shot: {}, sign: {}, links: { state: true }, made: { state: true }, trouble: { state: true } };

  get #dialog() {
    return this.querySelector('dialog');
  }

  async open() {
    this.made = this.trouble = null;
    this.#dialog.showModal();
    await this.#renew();
  }

  async #renew() {
    const found = await tried(() => get(`shots/${this.shot}/links`));
    if (found) this.links = found.data;
  }

  async #make(e) {
    e.preventDefault();
    const given = new FormData(e.target);
    const body = { label: given.get('label').trim(), rights: RIGHTS[given.get('rights')], days: Number(given.get('days')) };
    this.trouble = null;
    try {
      this.made = await post(`shots/${this.shot}/links`, this.sign(body));
    } catch (error) {
      this.trouble = error.message;
      return;
    }
    e.target.reset();
    await this.#renew();
    this.querySelector('.made input')?.select();
  }

  async #copy() {
    const field = this.querySelector('.made input');
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      toast(t.settings.copied);
    } catch {
      document.execCommand('copy');
    }
  }

  async #revoke(link) {
    if (await tried(() => api('DELETE', `shots/${this.shot}/links/${link.id}`))) await this.#renew();
    if (this.made?.id === link.id) this.made = null;
  }

  #row(link) {
    const rights = t.review.rights[link.rights.at(-1)];
    const until = link.works ? t.review.until(day(link.expires)) : link.revoked ? t.settings.revoked : t.settings.expired;
    return html`<li class="line apart ${link.works ? '' : 'over-with'}"><span><strong>${link.label || t.review.nobody}</strong> <span class="soft">${rights} · ${until}</span></span>
      ${link.works ? html`<button class="quiet" aria-label=${t.review.revokeName(link.label || t.review.nobody)} @click=${() => this.#revoke(link)}>${t.settings.revoke}</button>` : nothing}</li>`;
  }

  render() {
    return html`<dialog class="wide" aria-labelledby="inviting"><div class="stack">
      <div class="line apart"><h2 id="inviting">${t.review.invite}</h2><button class="quiet" aria-label=${t.close} @click=${() => this.#dialog.close()}>×</button></div>
      <p class="hint">${t.review.inviteAbout}</p>
      ${this.made ? html`<div class="note good made stack tight"><label class="field"><span>${t.review.linkMade}</span><input readonly .value=${this.made.url} @focus=${(e) => e.target.select()}></label><div><button @click=${() => this.#copy()}>${t.settings.copy}</button></div></div>` : nothing}
      <form class="stack tight" @submit=${this.#make}>
        <label class="field"><span>${t.review.forWhom}</span><input name="label" maxlength="80" placeholder=${t.review.forWhomHint}></label>
        <div class="line"><label class="field grow"><span>${t.review.mayDo}</span><select name="rights">${Object.keys(RIGHTS).map((name) => html`<option value=${name} ?selected=${name === 'comment'}>${t.review.rights[name]}</option>`)}</select></label>
          <label class="field"><span>${t.review.days}</span><input type="number" name="days" min="1" max="90" step="1" required value=${WEEK}></label></div>
        ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}
        <div><button class="main">${t.review.makeLink}</button></div></form>
      ${this.links?.length ? html`<ul class="stack tight links">${this.links.map((link) => this.#row(link))}</ul>` : nothing}</div></dialog>`;
  }
}
customElements.define('wa-invite', Invite);
