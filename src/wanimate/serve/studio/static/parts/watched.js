// A view of one job, kept up to date by the stream.
import { Part } from './base.js';
import { files, get } from '../api.js';
import { after, FINAL, stream } from '../events.js';
import { isOpen } from './job.js';
import { t } from '../texts.js';

export class Watched extends Part {
  static properties = { id: {}, job: { state: true }, files: { state: true }, trouble: { state: true } };

  connectedCallback() {
    super.connectedCallback();
    this.care(stream.listen((told) => this.#heard(told)));
  }

  willUpdate(changed) {
    if (changed.has('id') && this.id !== changed.get('id')) {
      this.job = this.files = null;
      this.renew();
    }
  }

  #heard(told) {
    if (told.kind === 'open') return void (this.job && isOpen(this.job) && this.renew());
    if (told.job !== this.id || this.leaving) return;
    const changed = this.job && after(this.job, told);
    if (changed) this.job = changed;
    else if (told.kind === 'deleted') this.trouble = t.errors.gone;
    else this.renew();
    if (FINAL.includes(told.kind)) this.finished?.();
  }

  // What happens while the answer is on its way may not be in it: then it is asked for once more.
  async renew() {
    this.again = true;
    if (this.asking) return;
    this.asking = true;
    while (this.again && this.isConnected) {
      this.again = false;
      await this.#ask();
    }
    this.asking = false;
  }

  async #ask() {
    const id = this.id;
    try {
      const job = await get(`jobs/${id}`);
      const found = job.state === 'succeeded' || job.stage === 'generate' ? await files(id) : {};
      if (this.id !== id) return;
      const { step, seen } = this.job?.id === id ? this.job : {};
      this.job = { ...job, step, seen: seen ?? (found.preview ? 1 : 0) };
      this.files = found;
      this.trouble = null;
      this.loaded?.();
    } catch (error) {
      if (this.id === id) this.trouble = error.status === 404 ? t.errors.gone : error.message;
    }
  }
}
