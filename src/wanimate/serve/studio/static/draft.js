// What the form holds, and the submission that it stands for. It outlives a reload of the page, not the tab.
const KEPT = 'draft';
const BLANK = {
  image: null, video: null, mask: null, mode: 'animation', checkpoint: '', size: 'own', custom: '', fps: '', speed: '', seed: '', steps: '', prompt: '', name: '',
  loras: [], relight: true, composite: true, audio: true, watermark: false, person: 'largest', at: '', start: '', end: '', upscale: '', fpsOut: '', origin: null,
};
export const AREAS = ['1280x720', '832x480', '480x272'];

export function loadDraft() {
  try {
    return { ...BLANK, ...JSON.parse(sessionStorage.getItem(KEPT) ?? '{}') };
  } catch {
    return { ...BLANK };
  }
}

export function keepDraft(draft) {
  const plain = (source) => source && { ...source, blob: undefined };
  const kept = { ...draft, image: plain(draft.image), video: plain(draft.video), mask: plain(draft.mask) };
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
}

const number = (text) => (String(text).trim() === '' ? undefined : Number(text));

// What a job takes for a picture or a clip of the form.
export const sourceOf = (given) => (given?.library ? { library: given.library } : given?.id ? { upload: given.id } : given?.address ? { url: given.address } : undefined);
// What a result shows: with the same files it is a new version of the job that the form was filled from.
const filesOf = (...sources) => sources.map((one) => one?.library ?? one?.id ?? one?.address ?? '').join(' ');

// The body of POST /v1/jobs. `kind`: animate or preprocess.
export function submissionOf(draft, kind) {
  const replaces = draft.mode === 'replacement';
  const preprocess = {};
  const size = draft.size === 'custom' ? draft.custom.trim().replace(/\s*[×*x]\s*/i, 'x') : draft.size;
  const tier = size.startsWith('tier:') ? size.slice(5) : undefined;
  if (!tier && size && size !== 'own') preprocess.area = size;
  if (!tier && String(draft.fps).trim()) preprocess.fps = String(draft.fps).trim();
  if (draft.person !== 'largest' || draft.at) preprocess.person = draft.at ? `${draft.person}@${draft.at}` : draft.person;
  if (number(draft.start)) preprocess.start = number(draft.start);
  if (number(draft.end) !== undefined) preprocess.end = number(draft.end);
  const generate = {};
  if (number(draft.seed) !== undefined) generate.seed = number(draft.seed);
  if (number(draft.steps) !== undefined) generate.steps = number(draft.steps);
  if (replaces && !draft.relight) generate.relight = false;
  const output = { sheet: true };
  if (!draft.audio) output.audio = false;
  if (draft.watermark) output.watermark = true;
  if (draft.upscale) output.upscale = draft.upscale;
  if (draft.fpsOut) output.fps_out = draft.fpsOut;
  if (replaces && !draft.composite) output.composite = false;
  return {
    kind, mode: draft.mode, image: sourceOf(draft.image), video: sourceOf(draft.video), mask: replaces ? sourceOf(draft.mask) : undefined, tier,
    checkpoint: draft.checkpoint || undefined, speed: draft.speed || undefined, loras: draft.loras.filter((lora) => lora.name), preprocess, generate, output,
    prompt: draft.prompt.trim() || undefined, name: draft.name.trim() || undefined,
    version_of: draft.origin?.files === filesOf(draft.image, draft.video) ? draft.origin.job : undefined,
  };
}

// The form that a submission came from; `uploads` by id tells which of its files are still kept.
export function draftOf(asked, uploads, origin) {
  const source = (given) => {
    if (!given) return null;
    if (given.library) return { library: given.library, name: given.library };
    if (given.url) return given.url.startsWith('data:') ? null : { address: given.url, name: given.url };
    return uploads[given.upload] ?? null;
  };
  const [person, at = ''] = String(asked.preprocess.person ?? 'largest').split('@');
  const area = asked.preprocess.area;
  const known = typeof area === 'string' && AREAS.includes(area);
  return {
    ...BLANK, image: source(asked.image), video: source(asked.video), mask: source(asked.mask), mode: asked.mode, checkpoint: asked.checkpoint ?? '',
    size: asked.tier ? `tier:${asked.tier}` : area === undefined || area === null ? 'own' : known ? area : 'custom', custom: area && !known ? String(area) : '',
    fps: asked.preprocess.fps ?? '', speed: asked.speed ?? '', seed: asked.generate.seed ?? '', steps: asked.generate.steps ?? '', prompt: asked.prompt ?? '',
    name: asked.name ?? '', loras: asked.loras.map(({ name, strength }) => ({ name, strength })), relight: asked.generate.relight !== false,
    composite: asked.output.composite !== false, audio: asked.output.audio !== false, watermark: asked.output.watermark === true, person, at,
    start: asked.preprocess.start ?? '', end: asked.preprocess.end ?? '', upscale: asked.output.upscale ?? '', fpsOut: asked.output.fps_out ?? '', origin: { job: origin, files: filesOf(source(asked.image), source(asked.video)) },
  };
}
