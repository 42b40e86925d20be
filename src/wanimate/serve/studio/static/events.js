// The page's one stream of events. The browser comes back by itself and says what it has seen last; where the service refuses
// (while it starts), the stream is opened anew behind the last event.
const KINDS = [
  'created', 'scheduled', 'claimed', 'prepared', 'stage_started', 'progress', 'step', 'stage_finished', 'notice', 'changed',
  'cancelling', 'retrying', 'given back', 'succeeded', 'failed', 'cancelled', 'deleted', 'review',
];
const AGAIN = 3000;
export const FINAL = ['succeeded', 'failed', 'cancelled'];

export class Stream extends EventTarget {
  #source = null;
  #path;
  #last = null;
  #timer = 0;
  connected = false;
  wanted = false;

  constructor(path = '/v1/events') {
    super();
    this.#path = path;
  }

  open() {
    this.wanted = true;
    this.#begin();
  }

  close() {
    this.wanted = false;
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
    this.#last = null;
    this.#tell(false);
  }

  // Call `heard` with each event of any job, and with { kind: 'open' } whenever the stream (again) stands. Returns an undo.
  listen(heard) {
    const pass = (e) => heard(e.detail);
    this.addEventListener('heard', pass);
    return () => this.removeEventListener('heard', pass);
  }

  #begin() {
    this.#source?.close();
    const source = new EventSource(`${this.#path}${this.#last === null ? '' : `?after=${this.#last}`}`);
    this.#source = source;
    source.onopen = () => {
      this.#tell(true);
      this.#pass({ kind: 'open' });
    };
    source.onerror = () => {
      this.#tell(false);
      if (source.readyState === EventSource.CLOSED && this.wanted) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#begin(), AGAIN);
      }
    };
    for (const kind of KINDS) {
      source.addEventListener(kind, (e) => {
        this.#last = e.lastEventId;
        const data = JSON.parse(e.data);
        this.#pass({ kind, job: data.job, data });
      });
    }
  }

  #pass(detail) {
    this.dispatchEvent(new CustomEvent('heard', { detail }));
  }

  #tell(connected) {
    if (connected === this.connected) return;
    this.connected = connected;
    this.dispatchEvent(new Event('connection'));
  }
}

export const stream = new Stream();

// What an event says of a job that is shown already. Returns a changed copy, or null where the job has to be asked for anew.
export function after(job, { kind, data }) {
  if (!['stage_started', 'progress', 'step', 'stage_finished'].includes(kind) && !(kind === 'notice' && data.level !== 'warning')) return null;
  const progress = { ...job.progress };
  if (typeof data.fraction === 'number') progress.fraction = data.fraction;
  if (data.seconds_left !== undefined) progress.seconds_left = data.seconds_left;
  if (kind === 'stage_started') progress.doing = data.stage;
  const next = { ...job, progress };
  if (kind === 'step') Object.assign(next, { step: { ...data }, seen: (job.seen ?? 0) + 1 });
  return next;
}
