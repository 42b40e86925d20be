// What every element has: it renders into the page itself, so that one stylesheet holds for all of it.
import { LitElement } from '../vendor/lit.js';

export class Part extends LitElement {
  createRenderRoot() {
    return this;
  }

  constructor() {
    super();
    this._cares = [];
  }

  // Something that is to be undone when the element leaves the page: `undo` is a function.
  care(undo) {
    this._cares.push(undo);
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    for (const undo of this._cares.splice(0)) undo();
  }
}

// An event that other parts of the page listen to.
export const say = (from, name, detail) => from.dispatchEvent(new CustomEvent(name, { detail, bubbles: true }));

// Values for `.style=`: through the element's own property, since the page's policy lets no style attributes in.
export const css = (values) => Object.entries(values).map(([name, value]) => `${name}: ${value}`).join('; ');
