// Signing in with a key, once.
import { html, nothing } from '../vendor/lit.js';
import { Part, say } from '../parts/base.js';
import { signIn } from '../api.js';
import { t } from '../texts.js';

class SignIn extends Part {
  static properties = { trouble: {}, busy: {} };

  async #enter(e) {
    e.preventDefault();
    const field = this.querySelector('input');
    this.busy = true;
    this.trouble = '';
    try {
      await signIn({ key: field.value });
      say(this, 'signed-in');
    } catch (error) {
      this.trouble = error.message;
      await this.updateComplete;
      field.focus();
    } finally {
      this.busy = false;
    }
  }

  render() {
    return html`<main class="alone">
      <form class="card" @submit=${this.#enter}>
        <h1><span class="logo" aria-hidden="true"></span>${t.name}</h1>
        <p class="soft">${t.signIn.about}</p>
        <label class="field"><span>${t.signIn.key}</span>
          <input type="password" name="key" required autocomplete="current-password" spellcheck="false" autofocus
            aria-invalid=${this.trouble ? 'true' : nothing} aria-describedby=${this.trouble ? 'trouble' : nothing}>
        </label>
        ${this.trouble ? html`<p class="error" id="trouble" role="alert">${this.trouble}</p>` : nothing}
        <button class="main" ?disabled=${this.busy}>${t.signIn.enter}</button>
        <p class="hint">${t.signIn.hint} <code>wanimate keys create --owner NAME</code></p>
      </form>
    </main>`;
  }
}
customElements.define('wa-sign-in', SignIn);
