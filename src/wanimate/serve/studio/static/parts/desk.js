// How a review is read and written: by somebody with a key, or by a guest of one shot.
import { api, get, post } from '../api.js';
import { Stream, stream } from '../events.js';

const KEPT = 'reviewer';

function routes(place) {
  const comment = (id) => `${place}/comments/${id}`;
  return {
    load: () => get(place),
    comment: (body) => post(`${place}/comments`, body),
    reply: (id, body) => post(`${comment(id)}/replies`, body),
    change: (id, body) => api('PATCH', comment(id), body),
    remove: (id) => api('DELETE', comment(id)),
    decide: (body) => post(`${place}/decisions`, body),
  };
}

// What a person with a key calls themselves is kept in the browser.
export const member = (id) => ({
  ...routes(`shots/${id}`), id, guest: false, stream,
  name: localStorage.getItem(KEPT) ?? '',
  called(name) {
    this.name = name.trim();
    localStorage.setItem(KEPT, this.name);
  },
  signed(body) {
    return this.name ? { ...body, name: this.name } : body;
  },
});

export const guest = () => ({ ...routes('guest'), id: null, guest: true, stream: new Stream('/v1/guest/events'), signed: (body) => body });
