// The player of a review: pins over the picture and the timeline, and the shuttle of J, K and L.
import { html, nothing } from '../vendor/lit.js';
import { css, say } from './base.js';
import { Player } from './player.js';
import { t } from '../texts.js';
import './ink.js';

const FASTEST = 8;
const FAR = 10;
const instant = () => new Promise((fulfil) => requestAnimationFrame(fulfil));

class Reel extends Player {
  // size: [width, height] of the picture. notes: comments of the version, numbered. chosen: id of one. draft: a comment that is being written.
  static properties = { size: {}, notes: {}, chosen: {}, draft: {}, may: {}, silent: { state: true }, pace: { state: true } };

  constructor() {
    super();
    Object.assign(this, { notes: [], draft: null, chosen: null, pace: 0, silent: false });
    this.held = false;
  }

  connectedCallback() {
    super.connectedCallback();
    const up = (e) => e.key.toLowerCase() === 'k' && (this.held = false);
    addEventListener('keyup', up);
    this.care(() => removeEventListener('keyup', up));
    this.care(() => (this.back = null));
  }

  get moves() {
    return this.playing || this.pace < 0;
  }

  // Faster with every press in the same direction, 8 times at most. `way`: 1 on, -1 back.
  shuttle(way) {
    const pace = this.moves && this.pace * way > 0 ? Math.min(FASTEST, Math.abs(this.pace) * 2) * way : way;
    if (way < 0) return this.#rewind(pace);
    this.back = null;
    this.pace = pace;
    this.speed = pace;
    if (this.playing) for (const video of this.videos) video.playbackRate = pace;
    return this.play();
  }

  pause() {
    this.back = null;
    if (this.pace) this.speed = 1;
    this.pace = 0;
    return super.pause();
  }

  toggle() {
    return this.moves ? this.pause() : this.play();
  }

  // Browsers play no video backwards: the frames are shown one after the other, as many as there is time for.
  async #rewind(pace) {
    const turn = (this.back = {});
    const from = this.frame;
    await super.pause();
    this.pace = pace;
    const began = performance.now();
    while (this.back === turn && this.frame > 0) {
      const i = Math.max(0, from + Math.floor(((performance.now() - began) / 1000) * this.fps * pace));
      if (i === this.frame) await instant();
      else await this.show(i);
    }
    if (this.back === turn) this.pause();
  }

  step(by) {
    this.back = null;
    this.pace = 0;
    return this.show(this.frame + by);
  }

  keys(e) {
    const key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
    const onRange = e.target.matches('input[type="range"]');
    const onPin = e.target.closest('.pin.fresh');
    const onButton = e.target.closest('button, a');
    const far = e.shiftKey ? FAR : 1;
    const arrows = { ArrowLeft: -far, ArrowRight: far };
    const asks = { i: 'write', d: 'draw', n: 'later', p: 'earlier', '?': 'help' };
    if (key === ' ' && !onButton) this.toggle();
    else if (key === 'k') [this.held] = [true, this.pause()];
    else if (key === 'l') this.held ? this.step(1) : e.repeat || this.shuttle(1);
    else if (key === 'j') this.held ? this.step(-1) : e.repeat || this.shuttle(-1);
    else if (key in arrows && !onRange && !onPin) this.step(arrows[key]);
    else if (key === 'Home' && !onRange) this.step(-this.count);
    else if (key === 'End' && !onRange) this.step(this.count);
    else if (key === 'm') this.silent = !this.silent;
    else if (key === 'Escape' && this.draft) say(this, 'dropped');
    else if (key in asks) say(this, 'asked', asks[key]);
    else return;
    e.preventDefault();
  }

  // Comments whose frames are shown now, and the chosen one.
  get #shown() {
    return this.notes.filter(({ frame, duration }) => frame <= this.frame && this.frame < frame + duration);
  }

  framed(picture, first) {
    const [w, h] = this.size;
    const shape = { 'aspect-ratio': `${w} / ${h}`, width: `min(100%, calc(var(--tall) * ${w / h}))` };
    return html`<div class="frame" .style=${css(shape)}>${picture}${first ? this.#ink() : nothing}</div>`;
  }

  #ink() {
    const shown = this.draft ? [] : this.#shown;
    const pins = shown.filter(({ x }) => x !== null).map(({ id, n, x, y, resolved }) => ({ id, n, x, y, chosen: id === this.chosen, done: resolved !== null }));
    return html`<wa-ink .size=${this.size} .pins=${pins} .strokes=${shown.flatMap(({ marks }) => marks)} .draft=${this.draft} .may=${this.may} .colour=${this.draft?.colour} .width=${this.draft?.width}></wa-ink>`;
  }

  above() {
    const all = Math.max(1, this.count - 1);
    const draft = this.draft ? [{ ...this.draft, id: 'draft', n: '', resolved: null }] : [];
    return html`<div class="pins" aria-hidden="true">${[...this.notes, ...draft].map(
      ({ id, n, frame, duration, resolved }) => html`<span class="when ${id === this.chosen ? 'chosen' : ''} ${id === 'draft' ? 'fresh' : ''} ${resolved ? 'done' : ''}" .style=${css({ left: `${(frame / all) * 100}%`, width: `max(2px, ${((Math.min(duration, this.count - frame) - 1) / all) * 100}%)` })}>
        <i @click=${() => id !== 'draft' && say(this, 'chosen', id)}>${n}</i></span>`,
    )}</div>`;
  }

  hint() {
    const pace = this.pace < 0 || this.pace > 1 ? html`<span class="tag">${this.pace < 0 ? t.review.back(-this.pace) : t.review.fast(this.pace)}</span>` : nothing;
    return html`<div class="line hint shuttle"><button class="quiet" aria-pressed=${this.silent ? 'false' : 'true'} @click=${() => (this.silent = !this.silent)}>${t.review.sound}</button>
      <button class="quiet" @click=${() => say(this, 'asked', 'help')}>${t.review.shortcuts}</button><span class="keys">${t.review.keysShort}</span>${pace}</div>`;
  }
}
customElements.define('wa-reel', Reel);
