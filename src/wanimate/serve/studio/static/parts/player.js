// Several videos in step, frame by frame. The first one leads; the others show the frame of the same time.
import { classMap, html, nothing, svg } from '../vendor/lit.js';
import { css, Part, say } from './base.js';
import { t } from '../texts.js';

const NUDGE = 0.2;
const SPEEDS = [0.25, 0.5, 1, 2];
const PATIENCE = 4000;

// What tells tracks apart: a link may be signed anew and still leads to the same file.
const mark = (tracks) => JSON.stringify(tracks.map(({ id, url, label, fps, still }) => [id, url?.replace(/^\/files\/[^/]+/, ''), label, fps, still]));

export class Player extends Part {
  // tracks: [{ id, url, label, fps }]. count: frames of the first. layout: side, wipe, alone or over. gaps: [[first, end)] of frames without a person.
  static properties = { tracks: { noAccessor: true }, count: {}, fps: {}, layout: {}, gaps: {}, blend: {}, frame: { state: true }, playing: { state: true }, speed: { state: true }, loop: { state: true }, split: { state: true }, broken: { state: true } };

  constructor() {
    super();
    Object.assign(this, { tracks: [], gaps: [], layout: 'side', frame: 0, speed: 1, loop: true, split: 50, broken: '', silent: true });
  }

  get tracks() {
    return this._tracks;
  }

  // Views make the array at each of their updates. Only others than before begin the videos anew: nothing else may stop what plays.
  set tracks(tracks) {
    const before = this._tracks;
    if (before && mark(before) === mark(tracks)) return;
    this._tracks = tracks;
    this.requestUpdate('tracks', before);
  }

  connectedCallback() {
    super.connectedCallback();
    const keys = (e) => this.typing(e) || this.keys(e);
    addEventListener('keydown', keys);
    this.care(() => removeEventListener('keydown', keys));
    this.care(() => this.#halt());
  }

  updated(changed) {
    if (changed.has('tracks') || changed.has('layout')) this.show(this.frame);
  }

  get videos() {
    return [...this.querySelectorAll('video')];
  }

  // The middle of the frame that a track has at the time of frame i: the edges of two frames are nobody's.
  #time(i, video) {
    const own = Number(video.dataset.fps) || this.fps;
    return (Math.floor(((i + 0.5) / this.fps) * own + 1e-6) + 0.5) / own;
  }

  // Show frame i on all. Fulfilled when all have it; only the newest of several wishes is waited for.
  async show(i) {
    this.frame = Math.min(Math.max(0, i), Math.max(0, this.count - 1));
    this.#halt();
    await (this.turn = this.#seek(this.frame, this.turn));
    say(this, 'shown', this.frame);
  }

  async #seek(i, earlier) {
    await earlier?.catch?.(() => null);
    if (i !== this.frame || !this.isConnected) return;
    await Promise.all(
      this.videos.map(async (video) => {
        const at = this.#time(i, video);
        if (video.readyState < 1) await once(video, 'loadedmetadata');
        if (Math.abs(video.currentTime - at) < 1e-4 && video.readyState >= 2) return;
        const there = once(video, 'seeked');
        video.currentTime = Math.min(at, Math.max(0, (video.duration || at) - 1e-3));
        await there;
      }),
    );
  }

  async play() {
    if (this.playing) return;
    const [lead, ...others] = this.videos;
    if (!lead) return;
    if (this.frame >= this.count - 1) await this.show(0);
    else await this.turn;
    this.playing = true;
    for (const video of this.videos) video.playbackRate = this.speed;
    await Promise.all(this.videos.map((video) => video.play().catch(() => null)));
    const step = (_, { mediaTime }) => {
      if (!this.playing) return;
      this.frame = Math.min(this.count - 1, Math.round(mediaTime * this.fps));
      for (const video of others) {
        const behind = lead.currentTime - video.currentTime;
        if (Math.abs(behind) > NUDGE) video.currentTime = lead.currentTime;
        else video.playbackRate = this.speed * (1 + Math.max(-0.5, Math.min(0.5, behind * 6)));
      }
      lead.requestVideoFrameCallback(step);
    };
    lead.requestVideoFrameCallback(step);
    lead.onended = () => this.#ended();
  }

  async #ended() {
    if (!this.playing) return;
    this.#halt();
    if (this.loop) {
      await this.show(0);
      this.play();
    }
  }

  pause() {
    return this.show(this.frame);
  }

  #halt() {
    this.playing = false;
    for (const video of this.videos) video.pause();
  }

  get moves() {
    return this.playing;
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  // Whether a key is meant for something else than the player.
  typing(e) {
    return e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || !!e.target.closest('input:not([type="range"]), select, textarea, summary, dialog, [contenteditable]');
  }

  keys(e) {
    const onRange = e.target.matches('input[type="range"]');
    const onButton = e.target.closest('button, a');
    const steps = { ArrowLeft: -1, ArrowRight: 1, j: -10, l: 10 };
    if (e.key === ' ' && !onButton) this.toggle();
    else if (e.key === 'k') this.toggle();
    else if (e.key in steps && !(onRange && e.key.startsWith('Arrow'))) this.show(this.frame + steps[e.key]);
    else return;
    e.preventDefault();
  }

  // What players of other kinds do otherwise: what is around a picture and over the first one, and what stands over the timeline.
  framed(picture, _first) {
    return picture;
  }

  above() {
    return nothing;
  }

  hint() {
    return html`<p class="hint keys">${t.player.keys}</p>`;
  }

  #video(track, first = false, covered = first) {
    const video = html`<video src=${track.url} data-track=${track.id} data-fps=${track.fps ?? this.fps} .muted=${this.silent || !first} playsinline preload="auto" aria-label=${track.label}
      @error=${() => (this.broken = t.player.failed)}></video>`;
    return this.framed(video, covered);
  }

  #stage() {
    const [first, second] = this.tracks;
    if (this.layout === 'side') return html`<div class="side n${this.tracks.length}">${this.tracks.map((track, i) => html`<figure>${this.#video(track, i === 0)}<figcaption>${track.label}</figcaption></figure>`)}</div>`;
    if (this.layout === 'alone' || !second) return html`<div class="side n1"><figure>${this.#video(first, true)}<figcaption>${first.label}</figcaption></figure></div>`;
    if (this.layout === 'over') {
      return html`<div class="over">${first.still ? html`<img src=${first.url} alt=${first.label}>` : this.#video(first)}<div class="veil ${this.blend ?? ''}">${this.#video(second)}</div></div>`;
    }
    return html`<div class="over wipe"><div>${this.#video(first, true, false)}</div><div class="veil" .style=${css({ 'clip-path': `inset(0 0 0 ${this.split}%)` })}>${this.#video(second)}</div>${this.framed(nothing, true)}
        <span class="edge" .style=${css({ left: `${this.split}%` })}></span><span class="name left">${first.label}</span><span class="name right">${second.label}</span></div>
      <label class="wiper"><span class="hidden">${t.player.divider}</span><input type="range" min="0" max="100" .value=${String(this.split)} @input=${(e) => (this.split = Number(e.target.value))}></label>`;
  }

  #marks() {
    if (!this.gaps.length) return nothing;
    return html`<svg class="marks" viewBox="0 0 ${this.count} 1" preserveAspectRatio="none" role="img" aria-label=${t.player.empty}>${this.gaps.map(([a, b]) => svg`<rect x=${a} y="0" width=${b - a} height="1"></rect>`)}</svg>`;
  }

  render() {
    if (!this.tracks.length) return nothing;
    const seconds = (this.frame / this.fps).toFixed(2);
    const empty = this.gaps.some(([a, b]) => a <= this.frame && this.frame < b);
    return html`<div class="stage ${classMap({ empty })}">${this.#stage()}</div>
      ${this.broken ? html`<p class="note bad" role="alert">${this.broken}</p>` : nothing}
      <div class="time">${this.above()}<input type="range" name="frame" min="0" max=${this.count - 1} step="1" .value=${String(this.frame)} aria-label=${t.player.frame} aria-valuetext=${t.player.position(this.frame + 1, this.count)}
        @input=${(e) => this.show(Number(e.target.value))}>${this.#marks()}</div>
      <div class="line controls">
        <button class="main" @click=${() => this.toggle()}>${this.moves ? t.player.pause : t.player.play}</button>
        <button class="icon" aria-label=${t.player.previous} title=${t.player.previous} @click=${() => this.show(this.frame - 1)}>‹</button>
        <button class="icon" aria-label=${t.player.next} title=${t.player.next} @click=${() => this.show(this.frame + 1)}>›</button>
        <span class="mono count">${t.player.of(this.frame + 1, this.count, `${seconds} s`)}</span>
        <label class="line pace"><span class="hidden">${t.player.speed}</span><select @change=${(e) => ((this.speed = Number(e.target.value)), this.playing && this.pause().then(() => this.play()))}>${SPEEDS.map((n) => html`<option value=${n} ?selected=${n === this.speed}>${n}×</option>`)}</select></label>
        <label class="check"><input type="checkbox" .checked=${this.loop} @change=${(e) => (this.loop = e.target.checked)}><span>${t.player.loop}</span></label>
      </div>
      ${this.hint()}`;
  }
}
customElements.define('wa-player', Player);

// An event of a video, or its fault, or that it takes too long: a broken one must not hold the others up.
function once(video, name) {
  return new Promise((fulfil) => {
    const done = () => {
      clearTimeout(timer);
      video.removeEventListener(name, done);
      video.removeEventListener('error', done);
      fulfil();
    };
    const timer = setTimeout(done, PATIENCE);
    video.addEventListener(name, done);
    video.addEventListener('error', done);
  });
}
