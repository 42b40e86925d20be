// A picture or a clip: dropped, chosen, an example, or one that was sent before. It is sent at once, and shown.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from './base.js';
import { local, upload } from '../api.js';
import { bytes, percent } from '../format.js';
import { t } from '../texts.js';
import { sourceNamed } from './entry.js';
import './library-picker.js';

const PATIENCE = 8000;

// Width and height of a picture, or of a clip with its seconds; {} where this browser cannot open it, which is no fault of it.
function measured(url, isClip) {
  return new Promise((fulfil) => {
    const seen = document.createElement(isClip ? 'video' : 'img');
    const timer = setTimeout(() => fulfil({}), PATIENCE);
    const done = (found) => {
      clearTimeout(timer);
      fulfil(found);
    };
    seen.onerror = () => done({});
    if (isClip) {
      seen.preload = 'metadata';
      seen.onloadedmetadata = () => done({ width: seen.videoWidth, height: seen.videoHeight, seconds: seen.duration });
    } else seen.onload = () => done({ width: seen.naturalWidth, height: seen.naturalHeight });
    seen.src = url;
  });
}

class Source extends Part {
  // kind: image, video or mask. value: { id, name, url, width, height, seconds } or null. demos: [{ url, name, label }]. most: bytes that a file may have. library: whether one may be taken from the library. only: from nowhere else.
  static properties = { kind: {}, label: {}, hint: {}, value: {}, demos: {}, recent: {}, trouble: {}, most: {}, library: {}, only: {}, sending: { state: true }, over: { state: true } };

  constructor() {
    super();
    this.demos = [];
    this.recent = [];
    this.trouble = '';
    this.library = true;
  }

  get isClip() {
    return this.kind !== 'image';
  }

  // An entry of the library that is known by its name alone, as an earlier job has it, is shown, too.
  async updated(changed) {
    const { value } = this;
    if (!changed.has('value') || !value?.library || value.url) return;
    const found = await sourceNamed(value.library, this.kind).catch(() => null);
    if (found && this.value === value) this.value = found;
  }

  #change(value) {
    this.trouble = '';
    say(this, 'changed', value);
  }

  async take(file) {
    const family = this.isClip ? 'video' : 'image';
    if (file.type && !file.type.startsWith(`${family}/`)) {
      this.trouble = t.start.wrongKind[family];
      return;
    }
    if (this.most && file.size > this.most) {
      this.trouble = t.start.tooLarge(bytes(file.size), bytes(this.most));
      return;
    }
    this.sending?.stop();
    const { done, stop } = upload(file, file.name, (share) => (this.sending = { ...this.sending, share }));
    this.sending = { name: file.name, share: 0, stop };
    this.trouble = '';
    const blob = URL.createObjectURL(file);
    try {
      const [sent, size] = await Promise.all([done, measured(blob, this.isClip)]);
      if (!sent.media_type.startsWith(`${family}/`)) throw new Error(t.start.wrongKind[family]);
      this.#change({ id: sent.id, name: sent.filename, url: local(sent.url), ...size });
    } catch (error) {
      if (error.code !== 'stopped') this.trouble = error.message;
    } finally {
      URL.revokeObjectURL(blob);
      this.sending = null;
    }
  }

  async #example(demo) {
    const answer = await fetch(demo.url);
    await this.take(new File([await answer.blob()], demo.name, { type: this.isClip ? 'video/mp4' : 'image/png' }));
  }

  async #again(id) {
    const sent = this.recent.find((one) => one.id === id);
    if (!sent) return;
    const url = local(sent.url);
    this.#change({ id, name: sent.filename, url, ...(await measured(url, this.isClip)) });
  }

  #drop(e) {
    e.preventDefault();
    this.over = false;
    const [file] = e.dataTransfer.files;
    if (file && !this.only) this.take(file);
  }

  #shown() {
    const { url, name, width, height, seconds } = this.value;
    const size = width ? `${width}×${height}${seconds ? `, ${seconds.toFixed(1)} s` : ''}` : '';
    return html`<figure class="source">
      ${!url ? nothing : this.isClip ? html`<video src=${url} muted loop playsinline controls preload="metadata" aria-label=${name}></video>` : html`<img src=${url} alt=${name}>`}
      <figcaption class="line apart"><span class="grow clip"><span title=${name}>${name}</span> <small class="soft">${size}</small></span>
        <button type="button" class="quiet" @click=${() => this.#change(null)}>${t.start.change}</button></figcaption>
    </figure>`;
  }

  #asked() {
    if (this.only) return html`<div class="drop"><p>${t.library.onlyApproved}</p><wa-library-picker .kind=${this.kind} @picked=${(e) => this.#change(e.detail)}></wa-library-picker></div>`;
    const accept = this.isClip ? 'video/*,.mkv,.avi' : 'image/*';
    return html`<div class="drop ${this.over ? 'over' : ''}">
      ${this.sending
        ? html`<div class="stack sending"><p>${t.start.sending(this.sending.name, percent(this.sending.share))}</p>
            <progress max="1" value=${this.sending.share} aria-label=${t.start.sending(this.sending.name, '')}></progress>
            <button type="button" class="quiet" @click=${() => this.sending.stop()}>${t.start.stop}</button></div>`
        : html`<p>${t.start.drop}
            <label class="link">${t.start.choose}<input type="file" accept=${accept} aria-label="${this.label}: ${t.start.choose}"
              @change=${(e) => (e.target.files[0] && this.take(e.target.files[0]), (e.target.value = ''))}></label></p>
          <p class="hint">${this.hint}</p>`}
    </div>
    ${this.library && this.kind !== 'mask' ? html`<wa-library-picker .kind=${this.kind} @picked=${(e) => this.#change(e.detail)}></wa-library-picker>` : nothing}
    ${this.demos.length
      ? html`<div class="line"><span class="hint">${t.start.demo}</span>
          ${this.demos.map((demo) => html`<button type="button" class="thumb" aria-label=${demo.label} title=${demo.label} @click=${() => this.#example(demo)}>
            ${this.isClip ? html`<video src=${demo.url} muted playsinline preload="metadata" tabindex="-1" aria-hidden="true"></video>` : html`<img src=${demo.url} alt="">`}</button>`)}</div>`
      : nothing}
    ${this.recent.length
      ? html`<label class="field"><span>${t.start.recent}</span><select @change=${(e) => this.#again(e.target.value)}><option value="">–</option>
          ${this.recent.map((sent) => html`<option value=${sent.id}>${sent.filename}</option>`)}</select></label>`
      : nothing}`;
  }

  render() {
    return html`<section class="stack slot" aria-label=${this.label}
      @dragover=${(e) => (e.preventDefault(), (this.over = true))} @dragleave=${() => (this.over = false)} @drop=${this.#drop}>
      <h2>${this.label}</h2>
      ${this.value ? this.#shown() : this.#asked()}
      ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}
    </section>`;
  }
}
customElements.define('wa-source', Source);
