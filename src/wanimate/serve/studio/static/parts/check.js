// What there is to know of picture and clip before a GPU is used: a worker looks at every frame, as the job would.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from './base.js';
import { api, get, post } from '../api.js';
import { fromOne } from '../format.js';
import { t } from '../texts.js';

const PACE = 1000;
const PAUSE = 900;
const LISTED = 4;
const LONG = 20_000;

class Check extends Part {
  // job: the body of POST /v1/check, null where something is missing. Says `checked` with the answer, and `sought` with seconds of the clip.
  static properties = { job: {}, found: { state: true }, trouble: { state: true }, slow: { state: true } };

  willUpdate(changed) {
    const key = JSON.stringify(this.job ?? null);
    if (changed.has('job') && key !== this.key) {
      this.key = key;
      this.#later();
    }
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    clearTimeout(this.timer);
    this.#drop();
    this.key = undefined;
  }

  // Nobody waits for an answer to what was asked before.
  #drop() {
    this.turn = null;
    if (this.asked) api('DELETE', `jobs/${this.asked}`).catch(() => null);
    this.asked = null;
  }

  #later() {
    clearTimeout(this.timer);
    this.#drop();
    this.found = this.trouble = null;
    this.slow = false;
    if (this.job) this.timer = setTimeout(() => this.#look(), PAUSE);
  }

  async #look() {
    const turn = (this.turn = {});
    const began = Date.now();
    try {
      let told = await post('check', { job: this.job, wait: 0 });
      while (told.state === 'pending' || told.state === 'running') {
        if (this.turn !== turn) return void api('DELETE', `jobs/${told.id}`).catch(() => null);
        this.asked = told.id;
        this.slow = told.state === 'pending' && Date.now() - began > LONG;
        await new Promise((fulfil) => setTimeout(fulfil, PACE));
        if (this.turn !== turn) return;
        told = await get(`check/${told.id}`);
      }
      if (this.turn !== turn) return;
      this.asked = null;
      if (told.state !== 'succeeded') return;
      this.found = told;
      say(this, 'checked', told);
    } catch (error) {
      if (this.turn !== turn) return;
      this.asked = null;
      this.trouble = error.message;
    }
  }

  #spans(spans) {
    return html`<div class="line">${spans.slice(0, LISTED).map((one) => html`<button type="button" class="quiet" aria-label=${t.guides.showGap(one.first + 1, one.stop)}
      @click=${() => say(this, 'sought', one.start)}>${t.guides.stretch(one.first + 1, one.stop)}</button>`)}${spans.length > LISTED ? html`<span class="soft">${t.check.more(spans.length - LISTED)}</span>` : nothing}</div>`;
  }

  #words({ kind, text, spans, count, factor }) {
    if (kind === 'nobody') return t.check.nobody(spans.reduce((sum, one) => sum + one.end - one.start, 0).toFixed(1));
    if (kind === 'others') return t.check.others(count);
    if (kind === 'proportions') return t.check.proportions(factor.toFixed(1));
    if (kind === 'character') return t.check.character[this.job?.mode ?? 'animation'];
    if (kind === 'cuts') return t.check.cuts(spans.length);
    if (kind === 'hdr') return t.check.hdr;
    return `${text.charAt(0).toUpperCase()}${fromOne(text.slice(1))}.`;
  }

  render() {
    if (!this.job) return nothing;
    return html`<section class="card stack tight" aria-label=${t.check.title}><h2>${t.check.title}</h2>${this.#told()}</section>`;
  }

  #told() {
    if (this.trouble) return html`<p class="note bad" role="alert">${this.trouble}</p>`;
    if (!this.found) return html`<p class="soft" role="status">${this.slow ? t.start.lookWaits : t.check.looking}</p>`;
    const { findings } = this.found;
    const good = findings.every((one) => one.kind === 'light') ? html`<p class="note good" role="status">${t.check.good}</p>` : nothing;
    if (!findings.length) return good;
    return html`<div role="status" class="stack tight">${good}<ul class="stack tight findings">${findings.map((one) => html`<li class="note ${['hdr', 'cuts', 'light'].includes(one.kind) ? '' : 'warn'}"><p>${this.#words(one)}</p>${one.spans.length ? this.#spans(one.spans) : nothing}</li>`)}</ul></div>`;
  }
}
customElements.define('wa-check', Check);
