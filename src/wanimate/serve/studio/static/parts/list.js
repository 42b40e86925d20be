// A list of which only the rows in sight are in the page, so that thousands scroll smoothly. All rows have the same height.
import { html, nothing, repeat } from '../vendor/lit.js';
import { css, Part, say } from './base.js';

const MARGIN = 6;

class List extends Part {
  // total: rows there are. at(i): row i, or null while it is not loaded. key(row). draw(row, i). label: what the list is called.
  // Says `range` with the rows in sight.
  static properties = { total: {}, version: {}, at: {}, key: {}, draw: {}, label: {}, first: { state: true }, last: { state: true }, height: { state: true } };

  constructor() {
    super();
    this.total = 0;
    this.first = 0;
    this.last = 20;
  }

  connectedCallback() {
    super.connectedCallback();
    const narrow = matchMedia('(max-width: 640px)');
    const look = () => {
      this.height = narrow.matches ? 156 : 84;
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.#look());
    };
    for (const name of ['scroll', 'resize']) {
      addEventListener(name, look, { passive: true });
      this.care(() => removeEventListener(name, look));
    }
    this.care(() => cancelAnimationFrame(this.frame));
    look();
  }

  updated(changed) {
    if (changed.has('total') || changed.has('version')) this.#look();
  }

  // Bring a row into sight, and give what is in it the focus.
  async show(i, selector) {
    const top = this.getBoundingClientRect().top + i * this.height;
    if (top < 0 || top + this.height > innerHeight) scrollBy(0, top - innerHeight / 2);
    this.#look();
    await this.updateComplete;
    this.querySelector(`[data-row="${i}"] ${selector}`)?.focus({ preventScroll: true });
  }

  #look() {
    if (!this.isConnected) return;
    const top = -this.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(top / this.height) - MARGIN);
    const last = Math.min(this.total, Math.ceil((top + innerHeight) / this.height) + MARGIN);
    if (first === this.first && last === this.last && this.told === this.total) return;
    this.told = this.total;
    [this.first, this.last] = [first, Math.max(first, last)];
    say(this, 'range', { first: this.first, last: this.last });
  }

  render() {
    const rows = [];
    for (let i = this.first; i < Math.min(this.last, this.total); i++) rows.push([i, this.at(i)]);
    return html`<ol class="list" aria-label=${this.label} .style=${css({ height: `${this.total * this.height}px` })}>
      ${repeat(
        rows,
        ([i, row]) => (row ? this.key(row) : i),
        ([i, row]) => html`<li data-row=${i} aria-setsize=${this.total} aria-posinset=${i + 1} .style=${css({ transform: `translateY(${i * this.height}px)`, height: `${this.height}px` })}>
          ${row ? this.draw(row, i) : nothing}</li>`,
      )}
    </ol>`;
  }
}
customElements.define('wa-list', List);
