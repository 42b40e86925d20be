// What lies over a picture in a review: pins, drawn lines, and the hand that sets and draws them. Places are shares of the picture.
import { html, nothing, repeat, svg } from '../vendor/lit.js';
import { css, Part, say } from './base.js';
import { t } from '../texts.js';

const WIDE = 1000;
const NEAR = 0.002;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const most = (n) => Math.min(1, Math.max(0, n));
const short = (n) => Math.round(n * 1e4) / 1e4;

class Ink extends Part {
  // size: [width, height]. pins: [{ id, n, x, y, chosen, done }]. strokes: lines to show. draft: a comment that is being written. colour, width: of the pen.
  // may: whether a click sets a pin. Says `placed` { x, y }, `drawn` a stroke, `chosen` an id.
  static properties = { size: {}, pins: {}, strokes: {}, draft: {}, colour: {}, width: {}, may: {}, line: { state: true } };

  constructor() {
    super();
    Object.assign(this, { size: [16, 9], pins: [], strokes: [], draft: null, line: null });
  }

  get #draws() {
    return this.draft?.tool === 'draw';
  }

  #at(e) {
    const box = this.getBoundingClientRect();
    return [short(most((e.clientX - box.left) / box.width)), short(most((e.clientY - box.top) / box.height))];
  }

  #down(e) {
    if (!this.#draws || e.button > 0 || e.target.closest('button')) return;
    e.preventDefault();
    e.currentTarget.setPointerCapture(e.pointerId);
    this.line = { colour: this.colour, width: this.width, points: [this.#at(e)] };
  }

  #move(e) {
    if (!this.line) return;
    const found = [...this.line.points];
    for (const one of e.getCoalescedEvents?.() ?? [e]) {
      const [x, y] = this.#at(one);
      const [a, b] = found.at(-1);
      if (Math.hypot(x - a, y - b) >= NEAR && found.length < 2000) found.push([x, y]);
    }
    this.line = { ...this.line, points: found };
  }

  #up() {
    if (!this.line) return;
    say(this, 'drawn', this.line);
    this.line = null;
  }

  #click(e) {
    if (this.#draws || !this.may || e.target.closest('button')) return;
    const [x, y] = this.#at(e);
    say(this, 'placed', { x, y });
  }

  // The pin of the comment that is being written goes by the arrow keys, too.
  #keys(e) {
    const way = KEYS[e.key];
    if (!way) return;
    e.preventDefault();
    const step = e.shiftKey ? 0.05 : 0.01;
    say(this, 'placed', { x: short(most(this.draft.x + way[0] * step)), y: short(most(this.draft.y + way[1] * step)) });
  }

  #stroke({ points, colour, width }) {
    const [w, h] = this.size;
    const all = points.length > 1 ? points : [points[0], points[0]];
    return svg`<polyline points=${all.map(([x, y]) => `${x * WIDE},${(y * WIDE * h) / w}`).join(' ')} stroke=${colour} stroke-width=${width * WIDE}></polyline>`;
  }

  #pin({ id, n, x, y, chosen, done }) {
    return html`<button class="pin ${chosen ? 'chosen' : ''} ${done ? 'done' : ''}" .style=${css({ left: `${x * 100}%`, top: `${y * 100}%` })} aria-label=${t.review.pin(n)} @click=${() => say(this, 'chosen', id)}>${n}</button>`;
  }

  render() {
    const [w, h] = this.size;
    const { draft } = this;
    const lines = [...this.strokes, ...(draft?.marks ?? []), ...(this.line ? [this.line] : [])];
    return html`<div class="sheet-of ${this.#draws ? 'draws' : this.may ? 'places' : ''}" @pointerdown=${this.#down} @pointermove=${this.#move} @pointerup=${this.#up} @pointercancel=${this.#up} @click=${this.#click}>
      <svg viewBox="0 0 ${WIDE} ${(WIDE * h) / w}" preserveAspectRatio="none" aria-hidden="true">${lines.map((one) => this.#stroke(one))}</svg>
      ${repeat(this.pins, (pin) => pin.id, (pin) => this.#pin(pin))}
      ${draft && draft.x !== null ? html`<button class="pin fresh" .style=${css({ left: `${draft.x * 100}%`, top: `${draft.y * 100}%` })} aria-label=${t.review.movePin} @keydown=${this.#keys}></button>` : nothing}
    </div>`;
  }
}
customElements.define('wa-ink', Ink);
