// The service's own interface under /v1, asked with the session's cookie.
import { t } from './texts.js';

// A refusal begins with the name of its field and what was given; here the field is called as the page calls it.
function worded(field, message) {
  const name = field?.split('.').at(-1);
  const rest = message?.startsWith(name) && /^( = None)?(?=: | = )(.*)$/s.exec(message.slice(name.length));
  return rest ? `${t.fields[name] ?? name}${rest[2]}` : message;
}

export class ApiError extends Error {
  constructor(status, told = {}) {
    super(worded(told.field, told.message) ?? t.errors.unknown(status));
    Object.assign(this, { status, code: told.code, field: told.field, request: told.request_id });
  }
}

export const session = { owner: null, scopes: [], is(scope) { return this.scopes.includes(scope) || this.scopes.includes('admin'); } };

function refused(status, told) {
  if (status === 401) dispatchEvent(new Event('signed-out'));
  return new ApiError(status, told);
}

async function asked(method, path, body, headers = {}) {
  const request = { method, headers: { ...headers }, credentials: 'same-origin' };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers['Content-Type'] = 'application/json';
  }
  let answer;
  try {
    answer = await fetch(`/v1/${path}`, request);
  } catch {
    throw new ApiError(0, { message: t.errors.away });
  }
  if (!answer.ok) throw refused(answer.status, (await answer.json().catch(() => ({}))).error);
  return answer;
}

export async function api(method, path, body, headers) {
  return (await asked(method, path, body, headers)).json().catch(() => ({}));
}

// Have a file made, and save it under the name that the service gives it.
export async function save(path, body) {
  const answer = await asked('POST', path, body);
  const name = /filename="([^"]*)"/.exec(answer.headers.get('Content-Disposition') ?? '')?.[1] ?? 'package.zip';
  const url = URL.createObjectURL(await answer.blob());
  Object.assign(document.createElement('a'), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return name;
}

export const get = (path) => api('GET', path);
export const post = (path, body, headers) => api('POST', path, body, headers);

// Send a file. `progress` is called with 0 to 1; fetch could not tell it. `stop` of what is returned breaks it off.
export function upload(file, name, progress) {
  const request = new XMLHttpRequest();
  const done = new Promise((fulfil, reject) => {
    request.open('POST', `/v1/uploads?filename=${encodeURIComponent(name)}`);
    request.setRequestHeader('Content-Type', 'application/octet-stream');
    request.responseType = 'json';
    request.upload.onprogress = (e) => progress(e.lengthComputable ? e.loaded / e.total : 0);
    request.onload = () => (request.status === 201 ? fulfil(request.response) : reject(refused(request.status, request.response?.error)));
    request.onerror = () => reject(new ApiError(0, { message: t.errors.away }));
    request.onabort = () => reject(new ApiError(0, { message: t.errors.stopped, code: 'stopped' }));
    request.send(file);
  });
  return { done, stop: () => request.abort() };
}

// A signed link as this page may load it: the service may call itself by another name than the browser does.
export const local = (url) => (url ? new URL(url, location.href).pathname : null);

// Files of a job by name: { video: {...}, 'previews/driver.mp4': {...} }, their links ready to load.
export async function files(id) {
  const { data } = await get(`jobs/${id}/files`);
  return Object.fromEntries(data.map((file) => [file.name, { ...file, url: local(file.url), watch: local(file.watch) }]));
}

export async function signIn(given) {
  Object.assign(session, await post('session', given));
}

export async function whoAmI() {
  const told = await get('session');
  Object.assign(session, { owner: told.owner, scopes: told.scopes });
  return told.signed_in;
}

export async function signOut() {
  await api('DELETE', 'session');
  Object.assign(session, { owner: null, scopes: [] });
}
