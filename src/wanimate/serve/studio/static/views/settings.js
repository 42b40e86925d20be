// Who asks and what it uses; for an admin also keys, workers, checkpoints, disk.
import { html, nothing } from '../vendor/lit.js';
import { Part } from '../parts/base.js';
import { api, get, post, session } from '../api.js';
import { ago, bytes, day } from '../format.js';
import { t } from '../texts.js';
import { toast, tried } from '../parts/toasts.js';

const PACE = 5000;

class Settings extends Part {
  static properties = { me: { state: true }, models: { state: true }, keys: { state: true }, workers: { state: true }, stats: { state: true }, fresh: { state: true }, old: { state: true }, sure: { state: true }, trouble: { state: true } };

  connectedCallback() {
    super.connectedCallback();
    this.#open();
    const timer = setInterval(() => document.hidden || this.#pulse(), PACE);
    this.care(() => clearInterval(timer));
  }

  async #open() {
    try {
      [this.me, this.models] = await Promise.all([get('me'), get('models')]);
      if (session.is('admin')) await Promise.all([this.#pulse(), this.#keys()]);
    } catch (error) {
      this.trouble = error.message;
    }
  }

  async #pulse() {
    if (!session.is('admin')) return;
    const [workers, stats] = (await Promise.all([get('workers'), get('stats')]).catch(() => null)) ?? [];
    if (workers) [this.workers, this.stats] = [workers.data, stats];
  }

  async #keys() {
    this.keys = (await get('keys')).data;
  }

  async #create(e) {
    e.preventDefault();
    const form = e.target;
    const given = new FormData(form);
    const days = String(given.get('days')).trim();
    const made = await tried(() => post('keys', { owner: given.get('owner'), scopes: given.getAll('scope'), ...(days ? { days: Number(days) } : {}) }));
    if (!made) return;
    this.fresh = made;
    form.reset();
    await this.#keys();
    await this.updateComplete;
    this.querySelector('.fresh input')?.focus();
  }

  async #revoke() {
    const key = this.sure;
    this.#close();
    if (await tried(() => api('DELETE', `keys/${key.id}`))) await tried(() => this.#keys());
  }

  #ask(key) {
    this.sure = key;
    this.querySelector('dialog').showModal();
  }

  #close() {
    this.querySelector('dialog').close();
  }

  async #copy() {
    const field = this.querySelector('.fresh input');
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      toast(t.settings.copied);
    } catch {
      document.execCommand('copy');
    }
  }

  async #pause() {
    const told = await tried(() => post(`queue/${this.stats.paused ? 'resume' : 'pause'}`));
    if (told) this.stats = { ...this.stats, paused: told.paused };
  }

  // Drawing

  #you() {
    const { usage, quotas, owner, scopes } = this.me;
    const limit = (n) => (n === null ? t.settings.noLimit : t.settings.limit(n));
    return html`<section class="card stack"><h2>${t.settings.you}</h2><dl class="facts">
      <dt>${t.settings.owner}</dt><dd>${owner}</dd><dt>${t.settings.scopes}</dt><dd>${scopes.map((scope) => t.settings.scope[scope] ?? scope).join(', ')}</dd>
      <dt>${t.settings.running}</dt><dd>${usage.running} <span class="soft">${limit(quotas.running)}</span></dd>
      <dt>${t.settings.queued}</dt><dd>${usage.queued} <span class="soft">${limit(quotas.queued)}</span></dd>
      <dt>${t.settings.today}</dt><dd>${t.units.seconds(Math.round(usage.seconds_today))} <span class="soft">${limit(quotas.seconds_a_day)}</span></dd>
      <dt>${t.settings.quota.creations_a_second}</dt><dd>${quotas.creations_a_second}</dd></dl></section>`;
  }

  #models() {
    const { data, loras, tiers } = this.models;
    return html`<section class="card stack"><h2>${t.settings.checkpoints}</h2><ul class="stack tight">${data.map((model) => html`<li class="line"><span class="mono">${model.id}</span>${model.default ? html`<span class="tag">${t.settings.usual}</span>` : nothing}</li>`)}${loras.map((name) => html`<li class="line"><span class="mono">${name}</span><span class="tag">LoRA</span></li>`)}</ul>
      <h3>${t.settings.tiers}</h3><dl class="facts">${Object.entries(tiers).map(([name, tier]) => html`<dt class="mono">${name}</dt><dd>${t.settings.fps(tier.fps)}${tier.speed ? `, ${tier.speed}` : ''}</dd>`)}</dl></section>`;
  }

  #workers() {
    const state = this.stats.paused ? t.jobs.resume : t.jobs.pause;
    return html`<section class="card stack wide"><div class="line apart"><h2>${t.settings.workers}</h2><button @click=${() => this.#pause()}>${state}</button></div>
      ${this.stats.paused ? html`<p class="note warn">${t.jobs.paused}</p>` : nothing}
      ${this.workers.length
        ? html`<div class="scroll" tabindex="0" role="region" aria-label=${t.settings.workers}><table><thead><tr>${['device', 'stages', 'holds', 'working', 'host', 'seen'].map((name) => html`<th scope="col">${t.settings[name]}</th>`)}</tr></thead><tbody>
            ${this.workers.map((worker) => html`<tr><td class="mono">${worker.device}${worker.facts.gpu ? html` <span class="soft">${worker.facts.gpu}</span>` : nothing}</td><td>${worker.stages.join(', ')}</td><td class="mono">${worker.holds.replace(/\|$/, '') || '–'}</td>
              <td>${worker.job ? html`<a href="#/jobs/${worker.job}">${worker.job.slice(0, 8)}</a>` : html`<span class="soft">${t.settings.idle}</span>`}</td><td>${worker.host}</td><td>${ago(worker.seen)}</td></tr>`)}</tbody></table></div>`
        : html`<p class="note warn">${t.settings.noWorkers}</p>`}
      <p class="line">${Object.entries(this.stats.states).map(([name, n]) => html`<span class="tag ${name === 'failed' || name === 'running' ? name : ''}">${t.states[name] ?? name} ${n}</span>`)}</p></section>`;
  }

  #disk() {
    const { keeps } = this.stats;
    return html`<section class="card stack"><h2>${t.settings.disk}</h2><dl class="facts">
      <dt>${t.settings.stored}</dt><dd>${keeps.free_bytes === null ? t.settings.elsewhere : t.settings.free(bytes(keeps.free_bytes), bytes(keeps.total_bytes))}</dd>
      <dt>${t.settings.results}</dt><dd>${t.settings.kept(keeps.results_hours)}</dd><dt>${t.settings.uploads}</dt><dd>${t.settings.kept(keeps.uploads_hours)}</dd></dl></section>`;
  }

  #state(key) {
    if (key.revoked) return t.settings.revoked;
    return key.expires && key.expires < Date.now() ? t.settings.expired : t.settings.good;
  }

  #keysCard() {
    const shown = this.keys.filter((key) => this.old || this.#state(key) === t.settings.good);
    return html`<section class="card stack wide"><div class="line apart"><div><h2>${t.settings.keys}</h2><p class="hint">${t.settings.keysAbout}</p></div>
        <label class="check"><input type="checkbox" @change=${(e) => (this.old = e.target.checked)}><span>${t.settings.showOld}</span></label></div>
      ${this.fresh ? html`<div class="note good fresh stack tight"><strong>${t.settings.made}</strong><div class="line"><input readonly class="mono grow" aria-label=${t.settings.made} .value=${this.fresh.secret}><button @click=${() => this.#copy()}>${t.settings.copy}</button></div></div>` : nothing}
      <div class="scroll" tabindex="0" role="region" aria-label=${t.settings.keys}><table><thead><tr>${['owner', 'scopes', 'created', 'expires', 'state'].map((name) => html`<th scope="col">${t.settings[name]}</th>`)}<th scope="col"><span class="hidden">${t.settings.revoke}</span></th></tr></thead><tbody>
        ${shown.map((key) => html`<tr><td>${key.owner}</td><td>${key.scopes.join(', ')}</td><td>${day(key.created)}</td><td>${key.expires ? day(key.expires) : t.settings.never}</td><td>${this.#state(key)}</td>
          <td>${key.id === this.me.key ? html`<span class="soft">${t.settings.self}</span>` : key.revoked ? nothing : html`<button class="quiet" aria-label=${t.settings.revokeName(key.owner)} @click=${() => this.#ask(key)}>${t.settings.revoke}</button>`}</td></tr>`)}</tbody></table></div>
      <form class="line keyform" @submit=${this.#create}>
        <label class="field"><span>${t.settings.owner}</span><input name="owner" required maxlength="200" autocomplete="off"></label>
        <label class="field"><span>${t.settings.days}</span><input name="days" type="number" min="1" max="36499" placeholder=${t.settings.daysHint}></label>
        <fieldset class="line"><legend class="hidden">${t.settings.scopes}</legend>${Object.entries(t.settings.scope).map(([scope, words]) => html`<label class="check"><input type="checkbox" name="scope" value=${scope} ?checked=${scope !== 'admin'}><span>${words}</span></label>`)}</fieldset>
        <button class="main">${t.settings.create}</button></form>
      <dialog aria-labelledby="sure"><p id="sure">${this.sure ? t.settings.revokeSure(this.sure.owner) : ''}</p><div class="line"><button class="danger" @click=${() => this.#revoke()}>${t.settings.revoke}</button><button @click=${() => this.#close()}>${t.cancel}</button></div></dialog></section>`;
  }

  render() {
    return html`<div class="head"><h1>${t.settings.title}</h1></div>
      ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble}</p>` : nothing}
      <div class="tiles">${this.me ? this.#you() : nothing}${this.models ? this.#models() : nothing}${this.stats ? this.#disk() : nothing}
        ${this.workers && this.stats ? this.#workers() : nothing}${this.keys && this.me ? this.#keysCard() : nothing}
        ${this.me && !session.is('admin') ? html`<p class="hint">${t.settings.adminOnly}</p>` : nothing}</div>`;
  }
}
customElements.define('wa-settings', Settings);
