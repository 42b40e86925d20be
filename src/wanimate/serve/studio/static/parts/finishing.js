// The frames of a finished job, brought to a file anew: larger, at another rate, in another format. Nothing is drawn again.
import { html } from '../vendor/lit.js';
import { post } from '../api.js';
import { go } from '../router.js';
import { t } from '../texts.js';
import { Part } from './base.js';
import { tried } from './toasts.js';

export const SIZES = ['1080p', '2160p', '2x'];
export const RATES = ['24000/1001', '24', '25', '30', '50', '60'];

class Finishing extends Part {
  // job: with its submission.
  static properties = { job: {}, busy: { state: true } };

  async #go(e) {
    e.preventDefault();
    const given = Object.fromEntries([...new FormData(e.target)].filter(([, value]) => value !== ''));
    const { audio, composite } = this.job.submission.output;
    const output = { audio, composite, ...given };
    this.busy = true;
    const made = await tried(() => post('jobs', { kind: 'finish', parent: this.job.id, output, name: this.job.submission.name }));
    this.busy = false;
    if (made) go(`jobs/${made.id}?with=${this.job.id}`);
  }

  #choice(name, label, choices) {
    return html`<label class="field"><span>${label}</span><select name=${name}>${choices.map(([value, words]) => html`<option value=${value}>${words}</option>`)}</select></label>`;
  }

  render() {
    const words = t.finishing;
    return html`<form class="card stack" @submit=${this.#go}><h2>${words.title}</h2><p class="hint">${words.about}</p>
      <div class="columns">${this.#choice('upscale', words.size, [['', words.asDrawn], ...SIZES.map((size) => [size, words.sizes[size]])])}
        ${this.#choice('fps_out', words.rate, [['', words.asDrawn], ...RATES.map((rate) => [rate, words.rates(rate)])])}
        ${this.#choice('codec', words.codec, Object.entries(words.codecs))}
        ${this.#choice('upscale_style', words.style, Object.entries(words.styles))}</div>
      <div class="line"><button class="end" ?disabled=${this.busy}>${words.go}</button></div></form>`;
  }
}
customElements.define('wa-finishing', Finishing);
