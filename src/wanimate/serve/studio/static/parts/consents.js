// The consents that are known of a file: what they permit, and whether they hold.
import { html, nothing } from '../vendor/lit.js';
import { Part } from './base.js';
import { get } from '../api.js';
import { t } from '../texts.js';

const TAGS = { valid: 'approved', expired: 'retired', withdrawn: 'failed' };

class Consents extends Part {
  // asset: SHA-256 of a clip or a picture.
  static properties = { asset: {}, rows: { state: true }, trouble: { state: true } };

  async load() {
    const { asset } = this;
    [this.rows, this.trouble] = [null, ''];
    try {
      const { data } = await get(`consents?${new URLSearchParams({ asset, limit: 100 })}`);
      if (this.asset === asset) this.rows = data;
    } catch (error) {
      if (this.asset === asset) this.trouble = error.message;
    }
  }

  #row(one) {
    const dated = one.expires ? [t.consents.until(one.expires.slice(0, 10))] : [];
    const terms = [...one.permitted.map(t.consents.permitted), ...one.prohibited.map(t.consents.prohibited), ...dated];
    return html`<li class="stack tight"><p class="line"><code>${one.id}</code><span class="tag ${TAGS[one.state] ?? ''}">${t.consents.states[one.state]}</span></p>
      <p class="soft small">${terms.join(' · ')}</p></li>`;
  }

  render() {
    if (this.trouble) return html`<p class="note bad" role="alert">${this.trouble}</p>`;
    if (!this.rows) return nothing;
    if (!this.rows.length) return html`<p class="soft small">${t.consents.none}</p>`;
    return html`<div class="stack tight"><h3>${t.consents.title}</h3><ul class="stack" aria-label=${t.consents.title}>${this.rows.map((one) => this.#row(one))}</ul></div>`;
  }
}
customElements.define('wa-consents', Consents);
