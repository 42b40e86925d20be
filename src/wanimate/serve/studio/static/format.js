// Numbers and times as people read them.
import { t } from './texts.js';

const numbers = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const days = new Intl.DateTimeFormat('en', { dateStyle: 'medium', timeStyle: 'short' });

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '';
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return t.units.seconds(whole);
  if (whole < 3600) return t.units.minutes(whole < 600 ? Math.floor(whole / 60) : Math.round(whole / 60), whole < 600 ? whole % 60 : 0);
  return t.units.hours(Math.floor(whole / 3600), Math.round((whole % 3600) / 60));
}

export function about(seconds) {
  if (seconds < 60) return t.units.seconds(Math.max(1, Math.ceil(seconds / 5) * 5));
  if (seconds < 3600) return t.units.minutes(Math.round(seconds / 60), 0);
  return t.units.hours(Math.floor(seconds / 3600), Math.round((seconds % 3600) / 60));
}

export const bytes = (n) => (n >= 2 ** 30 ? `${numbers.format(n / 2 ** 30)} GiB` : n >= 2 ** 20 ? `${numbers.format(n / 2 ** 20)} MiB` : `${Math.max(1, Math.round(n / 1024))} KiB`);
export const percent = (fraction) => `${Math.floor((fraction ?? 0) * 100)} %`;
export const day = (at) => (at ? days.format(new Date(at)) : '');

export function ago(at, now = Date.now()) {
  const seconds = (now - at) / 1000;
  if (seconds < 60) return t.units.now;
  if (seconds < 86400) return t.units.ago(about(seconds));
  return day(at);
}

// "30000/1001", "25" or 25 as a number; null where nobody knows.
export function rate(fps) {
  if (fps === undefined || fps === null) return null;
  const [top, bottom = 1] = String(fps).split('/').map(Number);
  return top / bottom;
}

// Texts of the preprocessing count frames from 0, the page from 1: "frame 2, 6", "3 of 12 frames (2, 6-7)".
const LIST = String.raw`\d+(?:-\d+)?(?:, \d+(?:-\d+)?)*`;
const FRAMES = new RegExp(String.raw`(\d+ of \d+ frames \(|\bframes? )(${LIST})`, 'g');
export const fromOne = (text) => text?.replace(FRAMES, (_, before, list) => before + list.replace(/\d+/g, (n) => Number(n) + 1));

// Whether browsers show a file of this kind: pictures in a ZIP, ProRes, DNxHR and FFV1 are for others.
export const isShown = (type) => ['video/mp4', 'video/webm'].includes(type);

export const short = (id) => id.slice(0, 8);
