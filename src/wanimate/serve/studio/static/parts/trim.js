// Which stretch of a clip is used: two handles on its timeline, for the pointer and for the keyboard.
import { html, nothing, svg } from '../vendor/lit.js';
import { css, Part, say } from './base.js';
import { t } from '../texts.js';

class Trim extends Part {
  // count, fps: frames of the timeline. first, stop: the frames [first, stop) that are used. gaps: [[first, end)] of frames without a person.
  // least, most: seconds that may be used, most 0 for any. Says `trimmed` with { first, stop } while a handle is let go, and `sought` with a frame while it is moved.
  // origin: seconds of the clip at which the timeline begins.
  static properties = { count: {}, fps: {}, first: {}, stop: {}, gaps: {}, least: {}, most: {}, origin: {}, hint: {} };

  constructor() {
    super();
    Object.assign(this, { count: 0, fps: 30, first: 0, stop: 0, gaps: [], least: 2, most: 30, origin: 0, hint: '' });
  }

  #move(e, name) {
    const value = Number(e.target.value);
    if (name === 'first') this.first = Math.min(value, this.stop - 1);
    else this.stop = Math.max(value, this.first + 1);
    e.target.value = String(this[name]);
    say(this, 'sought', name === 'first' ? this.first : this.stop - 1);
  }

  #settle() {
    say(this, 'trimmed', { first: this.first, stop: this.stop });
  }

  #all() {
    [this.first, this.stop] = [0, this.count];
    this.#settle();
  }

  #at(frame) {
    return (this.origin + frame / this.fps).toFixed(2);
  }

  #handle(name, label) {
    return html`<input type="range" class=${name} name=${`trim-${name}`} min="0" max=${this.count} step="1" .value=${String(this[name])} aria-label=${label}
      aria-valuetext=${t.trim.at(this.#at(this[name]), name === 'first' ? this.first + 1 : this.stop)} @input=${(e) => this.#move(e, name)} @change=${() => this.#settle()}>`;
  }

  #told() {
    const seconds = (this.stop - this.first) / this.fps;
    const used = t.trim.used(seconds.toFixed(2), this.#at(this.first), this.#at(this.stop), this.stop - this.first);
    const slack = 0.5 / this.fps;
    if (seconds < this.least - slack) return html`<p class="note warn" role="status">${used} ${t.trim.short(this.least)}</p>`;
    if (this.most && seconds > this.most + slack) return html`<p class="note warn" role="status">${used} ${t.trim.long(this.most)}</p>`;
    return html`<p role="status">${used}</p>`;
  }

  render() {
    if (this.count < 2) return nothing;
    const share = (frame) => (100 * frame) / this.count;
    const part = (a, b, name) => svg`<rect class=${name} x=${a} y="0" width=${b - a} height="1"></rect>`;
    return html`<div class="trim" role="group" aria-label=${t.trim.label}>
        <div class="reel"><svg viewBox="0 0 ${this.count} 1" preserveAspectRatio="none" role="img" aria-label=${this.gaps.length ? t.player.empty : t.trim.label}>
            ${this.gaps.map(([a, b]) => part(a, b, 'gap'))}${part(0, this.first, 'cut')}${part(this.stop, this.count, 'cut')}</svg>
          <span class="kept" .style=${css({ left: `${share(this.first)}%`, right: `${100 - share(this.stop)}%` })}></span></div>
        ${this.#handle('first', t.trim.first)}${this.#handle('stop', t.trim.stop)}
      </div>
      <div class="line apart">${this.#told()}${this.first > 0 || this.stop < this.count ? html`<button type="button" class="quiet" @click=${() => this.#all()}>${t.trim.all}</button>` : nothing}</div>
      ${this.hint ? html`<p class="hint">${this.hint}</p>` : nothing}`;
  }
}
customElements.define('wa-trim', Trim);
