// Short messages about what was just done, read out by screen readers.
import { html, repeat } from '../vendor/lit.js';
import { Part } from './base.js';
import { place } from '../router.js';
import { t } from '../texts.js';

const LASTS = 6000;
const viewed = () => place().path.join('/');
let count = 0;

// kind: 'done' or 'error'. Errors stay until they are closed or another view is opened.
export function toast(text, kind = 'done') {
  dispatchEvent(new CustomEvent('toast', { detail: { text, kind } }));
}

// Do something that may be refused, and say so. Returns what it returned, null where it was refused.
export async function tried(work) {
  try {
    return await work();
  } catch (error) {
    toast(error.message, 'error');
    return null;
  }
}

class Toasts extends Part {
  static properties = { shown: {} };

  constructor() {
    super();
    this.shown = [];
  }

  connectedCallback() {
    super.connectedCallback();
    const show = (e) => this.#show(e.detail);
    addEventListener('toast', show);
    const leave = () => (this.shown = this.shown.filter((one) => one.kind !== 'error' || one.at === viewed()));
    addEventListener('hashchange', leave);
    this.care(() => (removeEventListener('toast', show), removeEventListener('hashchange', leave)));
  }

  #show(told) {
    const one = { ...told, id: ++count, at: viewed() };
    this.shown = [...this.shown.slice(-3), one];
    if (told.kind === 'done') setTimeout(() => this.#drop(one.id), LASTS);
  }

  #drop(id) {
    this.shown = this.shown.filter((one) => one.id !== id);
  }

  render() {
    return html`<div class="toasts" role="status" aria-live="polite">
      ${repeat(
        this.shown,
        (one) => one.id,
        (one) => html`<p class="toast ${one.kind}">
          <span>${one.text}</span><button class="quiet" aria-label=${t.close} @click=${() => this.#drop(one.id)}>×</button>
        </p>`,
      )}
    </div>`;
  }
}
customElements.define('wa-toasts', Toasts);
