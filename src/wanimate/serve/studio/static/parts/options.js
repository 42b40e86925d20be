// The settings of a job: the usual ones in sight, the others folded away.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from './base.js';
import { AREAS } from '../draft.js';
import { t } from '../texts.js';
import { RATES, SIZES } from './finishing.js';
import './relight.js';

class Options extends Part {
  // draft: as draft.js has it. models: the answer of /v1/models. wrong: the field that the service refused. preview: as `job` of wa-relight.
  static properties = { draft: {}, models: {}, wrong: {}, preview: {} };

  #set(name, value) {
    say(this, 'set', { [name]: value });
  }

  #text(name, label, hint, more = {}) {
    const bad = this.wrong?.endsWith(name);
    return html`<label class="field"><span>${label}</span><input name=${name} type=${more.type ?? 'text'} min=${more.min ?? nothing} step=${more.step ?? nothing} inputmode=${more.mode ?? nothing}
      placeholder=${hint} aria-invalid=${bad ? 'true' : nothing} .value=${String(this.draft[name])} @input=${(e) => this.#set(name, e.target.value)}></label>`;
  }

  #choice(name, label, choices) {
    return html`<label class="field"><span>${label}</span><select name=${name} .value=${this.draft[name]} @change=${(e) => this.#set(name, e.target.value)}>
      ${choices.map(([value, words]) => html`<option value=${value} ?selected=${this.draft[name] === value}>${words}</option>`)}</select></label>`;
  }

  #check(name, label, about) {
    return html`<label class="check"><input type="checkbox" name=${name} .checked=${this.draft[name]} @change=${(e) => this.#set(name, e.target.checked)}>
      <span>${label}${about ? html`<small>${about}</small>` : nothing}</span></label>`;
  }

  #loras() {
    const { loras } = this.draft;
    const known = this.models.loras;
    const changed = (i, more) => this.#set('loras', loras.map((lora, j) => (i === j ? { ...lora, ...more } : lora)));
    if (!known.length) return html`<p class="hint">${t.start.noLoras}</p>`;
    return html`${loras.map((lora, i) => html`<div class="lora">
        <label class="field"><span>${t.start.lora}</span><select @change=${(e) => changed(i, { name: e.target.value })}>${known.map((name) => html`<option ?selected=${name === lora.name}>${name}</option>`)}</select></label>
        <label class="field"><span>${t.start.strength}</span><input type="number" step="0.05" min="-10" max="10" .value=${String(lora.strength)} @input=${(e) => changed(i, { strength: Number(e.target.value) })}></label>
        <button type="button" class="quiet" @click=${() => this.#set('loras', loras.filter((_, j) => j !== i))} aria-label="${t.start.remove} ${lora.name}">${t.start.remove}</button></div>`)}
      <div><button type="button" @click=${() => this.#set('loras', [...loras, { name: known[0], strength: 1 }])}>${t.start.addLora}</button></div>`;
  }

  render() {
    const { draft, models } = this;
    const usual = models.data.find((model) => model.default)?.id ?? '';
    const sizes = [['own', t.start.own], ...Object.entries(models.tiers).map(([name, tier]) => [`tier:${name}`, t.start.tier(name, tier.fps)]), ...AREAS.map((size) => [size, t.start.area(size.replace('x', ' × '))]), ['custom', t.start.custom]];
    return html`<section class="card stack" aria-label=${t.start.settings}>
      <h2>${t.start.settings}</h2>
      <div class="columns">
        ${this.#choice('size', t.start.quality, sizes)}
        ${draft.size === 'custom' ? this.#text('custom', t.start.customField, '1024x576') : nothing}
        ${this.#choice('speed', t.start.speed, Object.entries(t.start.speeds))}
        ${this.#text('seed', t.start.seed, t.start.seedHint, { type: 'number', min: 0, step: 1 })}
        ${this.#text('steps', t.start.steps, t.start.stepsHint, { type: 'number', min: 1, step: 1 })}
      </div>
      ${draft.mode === 'replacement' ? html`${this.#check('relight', t.start.relight, t.start.relightAbout)}<wa-relight .job=${this.preview}></wa-relight>${this.#check('composite', t.start.composite, t.start.compositeAbout)}` : nothing}
      <details><summary>${t.start.more}</summary><div class="stack">
        <div class="columns">
          ${draft.size.startsWith('tier:') ? nothing : this.#text('fps', t.start.fps, t.start.fpsHint, { mode: 'decimal' })}
          ${this.#choice('upscale', t.finishing.deliveredSize, [['', t.finishing.asDrawn], ...SIZES.map((size) => [size, t.finishing.sizes[size]])])}
          ${this.#choice('fpsOut', t.finishing.deliveredRate, [['', t.finishing.asDrawn], ...RATES.map((rate) => [rate, t.finishing.rates(rate)])])}
          ${models.data.length > 1 ? this.#choice('checkpoint', t.start.checkpoint, [['', t.start.byDefault(usual)], ...models.data.filter((model) => !model.default).map(({ id }) => [id, id])]) : nothing}
          ${this.#text('name', t.start.jobName, t.start.nameHint)}
        </div>
        ${this.#text('prompt', t.start.prompt, t.start.promptHint)}
        ${this.#check('audio', t.start.audio)}${this.#check('watermark', t.start.watermark)}
        <fieldset class="stack tight"><legend>${t.start.loras}</legend>${this.#loras()}</fieldset>
      </div></details>
      ${draft.mode === 'replacement' ? html`<details ?open=${!!draft.mask}><summary>${t.start.mask}</summary><wa-source .kind=${'mask'} .label=${t.start.mask} .hint=${t.start.maskHint} .value=${draft.mask} .most=${models.largest_upload}
        @changed=${(e) => (e.stopPropagation(), this.#set('mask', e.detail))}></wa-source></details>` : nothing}
    </section>`;
  }
}
customElements.define('wa-options', Options);
