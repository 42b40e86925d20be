// Short messages about what was just done, read out by screen readers.
import { html, repeat } from '../vendor/lit.js';
import { Part } from './base.js';
import { t } from '../texts.js';

const LASTS = 6000;
let count = 0;

// kind: 'done' or 'error'. Errors stay until they are closed.
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
    this.care(() => removeEventListener('toast', show));
  }

  #show(told) {
    const one = { ...told, id: ++count };
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
