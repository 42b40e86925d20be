// How a version stands: the three states, who has decided what and when, and the buttons that decide.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from './base.js';
import { day } from '../format.js';
import { t } from '../texts.js';

// Whether a version may not leave before it is approved.
export const isHeld = (version) => !!version?.approval?.held && version.approval.missing.length > 0;
export const stand = (state) => html`<span class="tag ${state}">${t.review.states[state]}</span>`;

class Verdict extends Part {
  // version: the one that is shown. decisions: of the whole shot, oldest first. numbers: of versions by job. may: whether this person may decide. intact: whether the chain is.
  static properties = { version: {}, decisions: {}, numbers: {}, may: {}, intact: {}, busy: {}, asked: { state: true }, whole: { state: true } };

  constructor() {
    super();
    Object.assign(this, { decisions: [], numbers: {}, asked: null, whole: false });
  }

  willUpdate(changed) {
    if (changed.has('version') && changed.get('version')?.job !== this.version.job) this.asked = null;
  }

  async #ask(state) {
    this.asked = state;
    await this.updateComplete;
    this.querySelector('textarea')?.focus();
  }

  #decide(e) {
    e.preventDefault();
    say(this, 'decide', { state: this.asked, reason: new FormData(e.target).get('reason').trim() });
    this.asked = null;
  }

  #form() {
    const words = this.#words(this.asked);
    return html`<form class="stack tight" @submit=${this.#decide} @keydown=${(e) => e.key === 'Escape' && (this.asked = null)}>
      <label class="field"><span>${words.ask}</span><textarea name="reason" maxlength="5000" placeholder=${t.review.reason}></textarea></label>
      <div class="line"><button class="main" ?disabled=${this.busy}>${words.go}</button><button type="button" class="quiet" @click=${() => (this.asked = null)}>${t.cancel}</button></div></form>`;
  }

  // An approval is revoked, everything else is taken back.
  #words(state) {
    return state === 'needs_review' && this.version.approval?.given ? t.review.revoke : t.review.verdicts[state];
  }

  // How many of several people have approved it, and what is missing until it may leave.
  #progress() {
    const { approval, state } = this.version;
    if (!approval) return nothing;
    const { given, held, missing, needed } = approval;
    const counted = needed > 1 && (given || held) && state !== 'changes_asked';
    if (!counted && !held) return nothing;
    const other = counted ? missing.filter((one) => !one.startsWith(`there are ${given} of `)) : missing;
    return html`<div class="line">${isHeld(this.version) ? html`<span class="tag held">${t.review.held}</span>` : nothing}${counted ? html`<strong>${t.review.given(given, needed)}</strong>` : nothing}</div>
      ${held && other.length ? html`<ul class="hint">${other.map((one) => html`<li>${one[0].toUpperCase()}${one.slice(1)}.</li>`)}</ul>` : nothing}`;
  }

  #buttons() {
    const { approval, state, kept } = this.version;
    if (!kept) return html`<p class="hint">${t.review.goneDecide}</p>`;
    return html`<div class="line"><button class=${state === 'approved' ? '' : 'main'} @click=${() => this.#ask('approved')}>${t.review.verdicts.approved.button}</button>
      <button @click=${() => this.#ask('changes_asked')}>${t.review.verdicts.changes_asked.button}</button>
      ${state === 'needs_review' && !approval?.given ? nothing : html`<button class="quiet" @click=${() => this.#ask('needs_review')}>${this.#words('needs_review').button}</button>`}</div>`;
  }

  render() {
    const { version } = this;
    const told = [...this.decisions].reverse();
    const shown = this.whole ? told : told.slice(0, 4);
    return html`<section class="card stack"><div class="line apart"><h2>${t.review.version(version.number)}</h2>${stand(version.state)}</div>
      ${this.#progress()}
      ${this.intact ? nothing : html`<p class="note bad" role="alert">${t.review.broken}</p>`}
      ${this.may ? (this.asked ? this.#form() : this.#buttons()) : nothing}
      ${told.length
        ? html`<ol class="history" aria-label=${t.review.history}>${shown.map((one) => html`<li><span class="dot ${one.state}" aria-hidden="true"></span><div><p><strong>${one.name}</strong>${one.role === 'guest' ? html` <span class="tag">${t.review.guest}</span>` : nothing} ${t.review.verdicts[one.state].did(this.numbers[one.job])}</p><p class="hint"><time datetime=${new Date(one.at).toISOString()}>${day(one.at)}</time></p>${one.reason ? html`<p class="said">${one.reason}</p>` : nothing}</div></li>`)}</ol>
            ${told.length > shown.length ? html`<div><button class="quiet" @click=${() => (this.whole = true)}>${t.review.older(told.length - shown.length)}</button></div>` : nothing}`
        : html`<p class="soft">${t.review.undecided}</p>`}</section>`;
  }
}
customElements.define('wa-verdict', Verdict);
