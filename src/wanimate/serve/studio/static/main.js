// The page: who is signed in, which view is shown, and what stands around it.
import { html, nothing } from './vendor/lit.js';
import { Part } from './parts/base.js';
import { session, signIn, signOut, whoAmI } from './api.js';
import { stream } from './events.js';
import { go, place } from './router.js';
import { t } from './texts.js';
import './parts/toasts.js';
import './views/sign-in.js';
import './views/start.js';
import './views/jobs.js';
import './views/guides.js';
import './views/compare.js';
import './views/library.js';
import './views/settings.js';
import './views/guest.js';

// Views by the first word of the address: what they draw, and their name for the window's title.
const VIEWS = {
  start: { title: t.nav.start, draw: (_, query) => html`<wa-start .from=${query.get('from')}></wa-start>` },
  jobs: {
    title: t.nav.jobs,
    draw: ([, id], query) =>
      id ? html`<wa-compare .id=${id} .other=${query.get('with')}></wa-compare>` : html`<wa-jobs .show=${query.get('show') ?? 'queue'}></wa-jobs>`,
  },
  guides: { title: t.nav.guides, tab: 'jobs', draw: ([, id]) => html`<wa-guides .id=${id}></wa-guides>` },
  library: { title: t.nav.library, draw: (_, query) => html`<wa-library .shelf=${query.get('shelf') === 'character' ? 'character' : 'clip'}></wa-library>` },
  review: {
    title: t.nav.review,
    draw: ([, id, job]) => (id === 'of' ? html`<wa-review .job=${job}></wa-review>` : id ? html`<wa-review .id=${id}></wa-review>` : html`<wa-reviews></wa-reviews>`),
  },
  settings: { title: t.nav.settings, draw: () => html`<wa-settings></wa-settings>` },
};
const TABS = ['start', 'jobs', 'library', 'review', 'settings'];
const THEMES = ['auto', 'light', 'dark'];

class App extends Part {
  static properties = { state: {}, where: {}, theme: {}, connected: {}, trouble: {} };

  constructor() {
    super();
    this.state = 'asking';
    this.where = place();
    this.theme = this.#kept();
    this.connected = true;
    document.documentElement.dataset.theme = this.theme;
    addEventListener('hashchange', () => this.#moved());
    addEventListener('signed-out', () => this.#out());
    stream.addEventListener('connection', () => this.#connection());
    this.#enter();
  }

  async #enter() {
    if (this.where.path[0] === 'guest') return void (this.state = 'guest');
    const link = /^#link=([\w-]+)$/.exec(location.hash)?.[1];
    if (link) history.replaceState(null, '', location.pathname);
    try {
      if (link) await signIn({ link });
      else if (!(await whoAmI())) return void (this.state = 'out');
      this.#in();
    } catch (error) {
      this.trouble = error.message;
      this.state = 'out';
    }
  }

  #in() {
    this.where = place();
    this.state = 'in';
    stream.open();
  }

  #out() {
    if (this.state === 'guest') return;
    stream.close();
    this.state = 'out';
  }

  #moved() {
    this.where = place();
    if ((this.where.path[0] === 'guest') !== (this.state === 'guest')) return void location.reload();
    this.updateComplete.then(() => {
      scrollTo(0, 0);
      this.querySelector('main')?.focus({ preventScroll: true });
    });
  }

  // A moment without a stream is told only if it lasts: each reload would flash otherwise.
  #connection() {
    clearTimeout(this.waiting);
    if (stream.connected) this.connected = true;
    else this.waiting = setTimeout(() => (this.connected = stream.connected || !stream.wanted), 2500);
  }

  #kept() {
    const kept = localStorage.getItem('theme');
    return THEMES.includes(kept) ? kept : 'auto';
  }

  #next() {
    this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length];
    document.documentElement.dataset.theme = this.theme;
    localStorage.setItem('theme', this.theme);
  }

  async #leave() {
    await signOut();
    go('start', true);
    this.#out();
  }

  render() {
    if (this.state === 'asking') return nothing;
    if (this.state === 'guest') return html`<wa-guest .token=${this.where.path[1] ?? ''}></wa-guest>`;
    if (this.state === 'out') {
      document.title = t.name;
      return html`<wa-sign-in .trouble=${this.trouble ?? ''} @signed-in=${() => this.#in()}></wa-sign-in>`;
    }
    const name = this.where.path[0] in VIEWS ? this.where.path[0] : 'start';
    const view = VIEWS[name];
    document.title = `${view.title} · ${t.name}`;
    return html`
      <a class="skip" href="#main" @click=${(e) => (e.preventDefault(), this.querySelector('main').focus())}>${t.nav.skip}</a>
      <header class="bar">
        <a class="mark" href="#/start"><span class="logo" aria-hidden="true"></span>${t.brand}</a>
        <nav aria-label=${t.nav.label}>
          ${TABS.map((tab) => html`<a href="#/${tab}" aria-current=${(view.tab ?? name) === tab ? 'page' : nothing}>${VIEWS[tab].title}</a>`)}
        </nav>
        <div class="who">
          <button class="quiet" @click=${() => this.#next()}>${t.theme.label}: ${t.theme[this.theme]}</button>
          <span class="owner" title=${t.nav.owner}>${session.owner}</span>
          <button class="quiet" @click=${() => this.#leave()}>${t.nav.leave}</button>
        </div>
      </header>
      ${this.connected ? nothing : html`<p class="away" role="status">${t.errors.waiting}</p>`}
      <main id="main" tabindex="-1">${view.draw(this.where.path, this.where.query)}</main>
      <wa-toasts></wa-toasts>`;
  }
}
customElements.define('wa-app', App);
