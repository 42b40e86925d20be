// The dialog in which an entry of the library is added or changed. Says `done` with the entry, null where it was removed.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from './base.js';
import { api, get, post, session } from '../api.js';
import { t } from '../texts.js';
import { PLACES } from './entry.js';
import { toast, tried } from './toasts.js';
import './consents.js';
import './source.js';

const split = (text) => text.split(',').map((one) => one.trim()).filter(Boolean);

class EntryForm extends Part {
  static properties = { entry: { state: true }, shelf: { state: true }, file: { state: true }, uploads: { state: true }, trouble: { state: true }, sure: { state: true }, busy: { state: true } };

  // Open for a new entry of a shelf, or for one that is there.
  async open(shelf, entry = null) {
    [this.shelf, this.entry, this.file, this.trouble, this.sure] = [shelf, entry, null, null, false];
    await this.updateComplete;
    this.querySelector('form').reset();
    for (const [name, value] of Object.entries(this.#values())) if (this.#field(name)) this.#field(name).value = value;
    this.querySelector('dialog').showModal();
    this.querySelector('wa-consents')?.load();
    if (!entry) this.uploads = (await get('uploads').catch(() => ({ data: [] }))).data;
  }

  #field(name) {
    return this.querySelector(`[name="${name}"]`);
  }

  #values() {
    const entry = this.entry ?? { title: '', kind: 'other', tags: [], licence: '', consent_ids: [] };
    return { title: entry.title, kind: entry.kind ?? '', tags: entry.tags.join(', '), licence: entry.licence ?? '', consents: entry.consent_ids.join(', ') };
  }

  #close() {
    this.querySelector('dialog').close();
  }

  async #save(e) {
    e.preventDefault();
    const given = new FormData(e.target);
    const text = (name) => String(given.get(name) ?? '').trim();
    const said = { tags: split(text('tags')), consent_ids: split(text('consents')), licence: text('licence') || null, ...(text('title') ? { title: text('title') } : {}), ...(this.shelf === 'clip' ? { kind: text('kind') } : {}) };
    this.busy = true;
    this.trouble = null;
    try {
      const more = { upload: this.file?.id, ...(text('name') ? { name: text('name') } : {}), ...(given.get('house') ? { house: true } : {}) };
      const done = this.entry ? await api('PATCH', `library/${this.entry.id}`, said) : await post('library', { ...said, ...more });
      toast(this.entry ? t.library.saved(done.title) : t.library.added(done.title));
      this.#close();
      say(this, 'done', done);
    } catch (error) {
      this.trouble = error;
    } finally {
      this.busy = false;
    }
  }

  async #remove() {
    if (!(await tried(() => api('DELETE', `library/${this.entry.id}`)))) return;
    toast(t.library.removed(this.entry.title));
    this.#close();
    say(this, 'done', null);
  }

  #text(name, label, hint, more = {}) {
    const fields = { consents: 'consent_ids' };
    return html`<label class="field"><span>${label}</span><input name=${name} placeholder=${more.placeholder ?? nothing} maxlength=${more.most ?? nothing} autocomplete="off" aria-invalid=${this.trouble?.field === (fields[name] ?? name) ? 'true' : nothing}>${hint ? html`<small>${hint}</small>` : nothing}</label>`;
  }

  #source() {
    const part = PLACES[this.shelf];
    const recent = (this.uploads ?? []).filter((sent) => sent.media_type.startsWith(`${part}/`)).slice(0, 20);
    return html`<wa-source .kind=${part} .label=${t.library.file} .hint=${t.start[part === 'video' ? 'clipHint' : 'pictureHint']} .recent=${recent} .value=${this.file} .library=${false} @changed=${(e) => (this.file = e.detail)}></wa-source>`;
  }

  #removal() {
    if (!this.sure) return html`<button type="button" class="quiet" @click=${() => (this.sure = true)}>${t.library.remove}</button>`;
    return html`<span role="status">${t.library.removeSure}</span><button type="button" class="danger" @click=${() => this.#remove()}>${t.library.remove}</button>`;
  }

  render() {
    const title = this.entry ? t.library.change : t.library.add[this.shelf ?? 'clip'];
    return html`<dialog class="broad" aria-label=${title}><form class="stack" @submit=${this.#save}>
      <div class="line apart"><h2>${title}</h2><button type="button" class="quiet" @click=${() => this.#close()}>${t.close}</button></div>
      ${this.entry ? nothing : this.#source()}
      <div class="columns">${this.#text('title', t.library.titleField, '', { placeholder: this.entry ? '' : t.library.titleHint, most: 200 })}
        ${this.entry ? nothing : this.#text('name', t.library.name, t.library.nameHint, { placeholder: 'wave-03', most: 63 })}
        ${this.shelf === 'clip' ? html`<label class="field"><span>${t.library.kind}</span><select name="kind">${Object.entries(t.library.kinds).map(([kind, words]) => html`<option value=${kind}>${words}</option>`)}</select></label>` : nothing}</div>
      ${this.#text('tags', t.library.tags, t.library.tagsHint)}
      <div class="pair">${this.#text('licence', t.library.licence, t.library.licenceHint, { placeholder: 'CC-BY-4.0', most: 200 })}${this.#text('consents', t.library.consents, t.library.consentsHint)}</div>
      ${this.entry ? html`<wa-consents .asset=${this.entry.sha256}></wa-consents>` : nothing}
      ${!this.entry && session.is('admin') ? html`<label class="check"><input type="checkbox" name="house" value="yes"><span>${t.library.forHouse}<small>${t.library.forHouseAbout}</small></span></label>` : nothing}
      ${this.entry?.trouble ? html`<p class="note bad">${this.entry.trouble}</p>` : nothing}
      ${this.trouble ? html`<p class="note bad" role="alert">${this.trouble.message}</p>` : nothing}
      <div class="line apart"><span class="line"><button class="main" ?disabled=${this.busy || (!this.entry && !this.file)}>${this.entry ? t.library.save : t.library.put}</button></span>
        ${this.entry ? html`<span class="line">${this.#removal()}</span>` : nothing}</div></form></dialog>`;
  }
}
customElements.define('wa-entry-form', EntryForm);
