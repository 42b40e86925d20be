// What a job is called, how it stands, and what may be done with it: shared by the views.
import { html, nothing } from '../vendor/lit.js';
import { api, post } from '../api.js';
import { duration, fromOne, percent, short } from '../format.js';
import { t } from '../texts.js';
import { toast, tried } from './toasts.js';

export const isOpen = (job) => job.state === 'pending' || job.state === 'running';
export const called = (job) => job.name || t.jobs.untitled(t.kinds[job.kind] ?? job.kind, short(job.id));
export const addressOf = (job) => `#/${job.kind === 'preprocess' ? 'guides' : 'jobs'}/${job.id}`;

export function stateOf(job) {
  if (job.cancelling && isOpen(job)) return 'cancelling';
  if (job.held && isOpen(job) && !job.in_work) return 'held';
  return job.state;
}

export function tag(job) {
  const found = stateOf(job);
  const state = found === 'running' && !job.in_work ? 'between' : found;
  const words = t.states[state];
  return html`<span class="tag ${state}">${words}</span>`;
}

// One line: what it does now, or what became of it.
export function doing(job) {
  const parts = [];
  if (job.in_work) {
    if (job.progress.doing) parts.push(t.stages[job.progress.doing] ?? job.progress.doing);
    if (job.step) parts.push(t.jobs.segment(job.step.segment + 1, job.step.segments), t.jobs.step(job.step.step, job.step.steps));
    if (job.progress.seconds_left !== null) parts.push(t.units.left(duration(job.progress.seconds_left)));
  } else if (isOpen(job)) {
    if (job.position) parts.push(t.jobs.position(job.position));
    if (job.priority) parts.push(`${t.jobs.priority} ${job.priority}`);
  } else if (job.state === 'failed') parts.push(fromOne(job.error?.message) ?? '');
  if (job.warnings.length) parts.push(t.jobs.warnings(job.warnings.length));
  return parts.join(' · ');
}

export function bar(job) {
  if (!job.in_work) return nothing;
  return html`<progress max="1" value=${job.progress.fraction} aria-label="${called(job)}, ${percent(job.progress.fraction)}"></progress>`;
}

export const cancel = (job) => tried(async () => {
  const changed = await post(`jobs/${job.id}/cancel`);
  toast(t.jobs.stopped(called(job)));
  return changed;
});
export const change = (job, changes) => tried(() => api('PATCH', `jobs/${job.id}`, changes));
