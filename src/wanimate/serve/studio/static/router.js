// Addresses behind the `#`: `#/jobs/ID?with=OTHER` is { path: ['jobs', 'ID'], query }.
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  return { path: path.split('/').filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query ?? '') };
}

export function go(path, replace = false) {
  if (replace) {
    history.replaceState(null, '', `#/${path}`);
    dispatchEvent(new HashChangeEvent('hashchange'));
  } else location.hash = `#/${path}`;
}
