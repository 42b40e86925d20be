// A poster of the library, and its clip that plays while the button around it is pointed at or has the focus.
import { html, nothing } from '../vendor/lit.js';
import { Part } from './base.js';
import { local } from '../api.js';

const still = matchMedia('(prefers-reduced-motion: reduce)');

class Glance extends Part {
  // entry: as /v1/library has it. press: a press of the button plays and stops, for people who want no motion of its own.
  static properties = { entry: {}, press: { type: Boolean }, plays: { state: true }, runs: { state: true } };

  connectedCallback() {
    super.connectedCallback();
    const button = this.closest('button');
    const turn = (plays) => () => still.matches || this.#turn(plays);
    const heard = { pointerenter: turn(true), focus: turn(true), pointerleave: turn(false), blur: () => this.#turn(false), click: () => this.press && this.#turn(!this.plays) };
    for (const [name, hear] of Object.entries(heard)) {
      button.addEventListener(name, hear);
      this.care(() => button.removeEventListener(name, hear));
    }
  }

  #turn(plays) {
    if (!this.entry.preview || plays === !!this.plays) return;
    this.plays = plays;
    this.runs = false;
    this.closest('button').toggleAttribute('data-plays', plays);
  }

  updated(changed) {
    if (changed.has('plays') && this.plays) this.querySelector('video').play().catch(() => this.#turn(false));
  }

  render() {
    const { poster, preview } = this.entry;
    return html`${poster ? html`<img src=${local(poster)} alt="" loading="lazy" decoding="async">` : html`<span class="kind" aria-hidden="true"></span>`}
      ${this.plays ? html`<video class=${this.runs ? 'runs' : ''} src=${local(preview)} muted loop playsinline tabindex="-1" aria-hidden="true" .muted=${true} @playing=${() => (this.runs = true)}></video>` : nothing}`;
  }
}
customElements.define('wa-glance', Glance);
