// An entry of the library: what it is called and like, and what a form of a new job holds of it.
import { html, nothing } from '../vendor/lit.js';
import { get, local } from '../api.js';
import { rate } from '../format.js';
import { t } from '../texts.js';

export const PLACES = { clip: 'video', character: 'image' };

// As `parts/source.js` has a picture or a clip.
export const sourceFrom = (entry) => ({ library: entry.name, name: entry.title, url: local(entry.file), width: entry.width ?? undefined, height: entry.height ?? undefined, seconds: entry.seconds ?? undefined });

// The same of an entry by its name; null where there is none.
export async function sourceNamed(name, part) {
  const shelf = Object.keys(PLACES).find((one) => PLACES[one] === part);
  const { data } = await get(`library?${new URLSearchParams({ shelf, search: name, limit: 100 })}`);
  const found = data.filter((entry) => entry.name === name).sort((a, b) => a.house - b.house)[0];
  return found ? sourceFrom(found) : null;
}

// `clips`: the service's policy, any or approved.
export const isUsable = (entry, owner, clips) => (clips === 'approved' ? entry.status === 'approved' : entry.status !== 'retired') && !entry.trouble && !entry.looking && (entry.house || entry.owner === owner);

// One line: length, size, loop, people.
export function measures(entry) {
  if (entry.looking) return t.library.looking;
  const parts = [];
  if (entry.seconds !== null) parts.push(t.library.seconds(entry.seconds.toFixed(1)));
  if (entry.width) parts.push(`${entry.width} × ${entry.height}`);
  if (entry.loop) parts.push(t.library.loop(((entry.loop.stop - entry.loop.start) / rate(entry.fps)).toFixed(1)));
  if (entry.people > 1) parts.push(t.library.people(entry.people));
  return parts.join(' · ');
}

export const badges = (entry) => html`<span class="tag ${entry.trouble ? 'failed' : entry.status}">${entry.trouble ? t.library.broken : t.library.states[entry.status]}</span>${entry.kind && entry.kind !== 'other' ? html`<span class="tag">${t.library.kinds[entry.kind]}</span>` : nothing}${entry.house ? html`<span class="tag">${t.library.house}</span>` : nothing}`;
