// The page, which counts from 0 as the plan's own messages do: it keeps nothing that its run's folder has not. `server` asks the session, `upload` sends a file; every
// change is told to the session at once, which answers with what it comes to.
const part = (name) => element.querySelector(`[data-id="${name}"]`);
const parts = Object.fromEntries([...element.querySelectorAll('[data-id]')].map((one) => [one.dataset.id, one]));
const state = { name: null, keyframes: [], settings: {}, plan: null, film: null, status: {}, models: [], joins: [], edit: {}, picked: { kind: 'film' }, measures: null, frame: 0, view: 'compare' };
const PIXELS_BETWEEN = 84, WIDEST = 12000, SHORTEST_FILM = 1, TYPING_PAUSE = 350, UNNOTICED = 400;

// ---- small helpers

function made(tag, options = {}, ...children) {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith('on')) one.addEventListener(name.slice(2), value);
    else if (name in one && name !== 'list') one[name] = value;
    else one.setAttribute(name, value);
  }
  one.append(...children.filter((child) => child !== null && child !== undefined));
  return one;
}
const media = (...path) => ['media', state.name, ...path].map(encodeURIComponent).join('/').replace(/^/, './');
const count = (number, word) => `${number} ${word}${number === 1 ? '' : 's'}`;
const fps = () => state.plan?.fps || 16;
const editing = () => state.plan?.job === 'edit';
// The place of a picture is its seconds in a film, and its frame in an edit.
const origin = () => editing() ? 0 : state.keyframes[0]?.[1] ?? 0;
const frameOf = (place) => editing() ? place : Math.round((place - origin()) * fps() + 1e-9);
const at = (frame) => editing() ? frame : origin() + frame / fps();
const least = () => editing() ? 1 : 2;
const rounded = (seconds) => Math.round(seconds * 1e6) / 1e6;
const lasting = (seconds) => seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;

// Messages name settings as files and the command line do. Here they are called by the labels of their fields, which each field tells as it
// is made; one that has no field is a word without the dashes and underscores that make a flag of it. What stands in brackets for the
// command line alone is left out.
const labels = {};
function plainly(text) {
  const named = (name) => labels[name] ? `“${labels[name]}”` : name.replaceAll('_', ' ');
  return text.replace(/ \([^()]*(?:--[a-z]|`wanedit )[^()]*\)/g, '').replace(/\bnull\b/g, 'nothing').replace(/(?<![\w-])--([a-z][a-z0-9_]*)/g, (_, name) => named(name))
    .replace(/(?<![\w/.-])[a-z]+(?:_[a-z0-9]+)+(?![\w/-]|\.\w)/g, named)
    .replace(/(^|[;.] )([a-z]+)(?= (?:is|are) )/g, (all, before, name) => labels[name] ? before + named(name) : all);
}

function notice(text, bad = false) {
  parts.notice.textContent = plainly(text || '');
  parts.notice.hidden = !text;
  parts.notice.classList.toggle('bad', bad);
}

// Of a server that is gone Gradio tells nothing and answers nothing.
const SILENT = 'The board does not answer: its command has ended, or this machine sleeps. Nothing is lost, and a run goes on; start the board again.';
async function answered(name, values) {
  try { return await server[name](values) ?? { error: SILENT }; } catch (error) { return { error: SILENT }; }
}

async function ask(name, ...values) {
  const answer = await answered(name, values);
  if (typeof answer.error === 'string') {
    notice(answer.error, true);
    if (answer.stale) {
      if (parts.side.contains(document.activeElement)) document.activeElement.blur(); // what was typed was not taken
      await open(state.name, answer.error);
    }
    throw new Error(answer.error);
  }
  return answer;
}

// Children by their `data-key`: one that is there stays the element that it is, under a finger and with the focus.
function refill(parent, wanted) {
  const old = Object.fromEntries([...parent.children].map((child) => [child.dataset.key, child]));
  const kept = wanted.map((fresh) => {
    const one = old[fresh.dataset.key];
    if (!one) return fresh;
    for (const { name, value } of fresh.attributes) if (one.getAttribute(name) !== value) one.setAttribute(name, value);
    if (one.innerHTML !== fresh.innerHTML) one.replaceChildren(...fresh.childNodes);
    return one;
  });
  for (const child of [...parent.children]) if (!kept.includes(child)) child.remove();
  kept.forEach((child, k) => { if (parent.children[k] !== child) parent.insertBefore(child, parent.children[k] || null); });
}

// ---- the draft: told to the session as it changes, one question at a time and the latest last

let asking = null, again = false, reckoning = false; // `reckoning`: long enough that what stands below is known to be of before
function changed() {
  draw();
  if (asking) { again = true; return asking; }
  const slow = setTimeout(() => { reckoning = true; drawRun(); }, UNNOTICED);
  asking = (async () => {
    try {
      do {
        again = false;
        const name = state.name, plan = await ask('plan', name, draft(), state.plan?.version ?? '');
        if (name !== state.name) continue; // another film was opened meanwhile
        if (!again) adopt(plan); else state.plan.version = plan.version;
      } while (again);
      notice('');
    } catch (error) { /* told */ } finally { asking = null; clearTimeout(slow); reckoning = false; drawRun(); }
  })();
  return asking;
}
const draft = () => ({ keyframes: state.keyframes, settings: state.settings });

function adopt(plan) {
  state.plan = plan;
  if (pause || holding) { draw(); return; } // what is being changed is told when it is done
  state.keyframes = plan.keyframes;
  state.settings = plan.settings;
  // The record of an edit has both prompts: of the same words the second goes on to mean the first, when that is changed.
  if (editing() && state.settings.source_prompt === state.settings.prompt) state.settings.source_prompt = null;
  draw();
}

function set(name, value) {
  if (JSON.stringify(state.settings[name] ?? null) === JSON.stringify(value ?? null)) return;
  state.settings = { ...state.settings, [name]: value };
  soon();
}
// While someone types every letter is kept here, and told when they pause.
let pause = 0;
function soon() {
  clearTimeout(pause);
  pause = setTimeout(() => { pause = 0; changed(); }, TYPING_PAUSE);
}
async function settled() {
  if (pause) { clearTimeout(pause); pause = 0; changed(); }
  await asking;
}

// What each segment has of its own, and each join: the lists of the settings, as long as the time line asks.
const listed = (name) => Array.isArray(state.settings[name]) ? state.settings[name] : [];
function ofSteps() {
  const steps = Math.max(0, state.keyframes.length - 1), filled = (name, length, empty) => Array.from({ length: Math.max(0, length) }, (_, k) => listed(name)[k] || empty);
  return { sub_prompts: filled('sub_prompts', steps, ''), takes: filled('takes', steps, 0), bridge_takes: filled('bridge_takes', steps - 1, 0) };
}
function changeSteps(change) {
  if (editing()) return;
  const steps = ofSteps();
  change(steps);
  for (const name of ['takes', 'bridge_takes']) if (!steps[name].some(Boolean)) steps[name] = [];
  state.settings = { ...state.settings, ...steps };
}
const packed = () => state.settings.window === 'pack';

// ---- pictures

let opening;
// Gives a file to the session; null where it is not taken, which is told.
async function send(name, file) {
  parts.live.textContent = `sending ${file.name}`;
  let sent;
  try {
    sent = await upload(file);
  } catch (error) {
    notice(`${file.name} could not be sent: it is larger than the board takes, or the board has ended.`, true);
    return null;
  }
  try { return await ask(name, state.name, sent.path); } catch (error) { notice(error.message.startsWith(file.name) ? error.message : `${file.name}: ${error.message}`, true); return null; }
}
async function addPictures(files, place = null, replacing = false) {
  await opening;
  if (editing() && !replacing) { await putPictures(files); return; }
  const images = [...files].filter((file) => file.type.startsWith('image/') || /\.(heic|avif|tiff?|jp2|ppm)$/i.test(file.name));
  if (!images.length) { notice('Those are no pictures; expected PNG, JPEG, WebP or another image.', true); return; }
  // Names that count say the order; others come as they were dropped.
  if (images.every((file) => /\d/.test(file.name))) images.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  const { name } = state;
  for (const file of images) {
    const picture = await send('add_picture', file);
    if (!picture || name !== state.name) return;
    const keyframes = state.keyframes.map((entry) => [...entry]);
    if (replacing) {
      keyframes[place][0] = picture.id;
    } else if (place !== null && place < keyframes.length) {
      const between = Math.round((frameOf(keyframes[place - 1][1]) + frameOf(keyframes[place][1])) / 2);
      changeSteps(({ sub_prompts, takes, bridge_takes }) => {
        sub_prompts.splice(place, 0, sub_prompts[place - 1] || '');
        takes.splice(place - 1, 1, 0, 0);
        bridge_takes.splice(place - 1, 0, 0);
      });
      keyframes.splice(place, 0, [picture.id, rounded(at(between))]);
      place += 1;
    } else {
      const last = keyframes.at(-1);
      const spacing = Math.max(1, Math.round((state.plan?.spacing || 1) * fps())) / fps();
      keyframes.push([picture.id, last ? rounded(last[1] + spacing) : 0]);
    }
    state.keyframes = keyframes;
    if (picture.notes.length) parts.live.textContent = `${file.name}: ${picture.notes.join('; ')}`;
  }
  await changed();
  if (place !== null && !replacing) pick({ kind: 'keyframe', index: place - 1 }); // the last that was put in
}

function removeKeyframe(k) {
  const within = k > 0 && k + 1 < state.keyframes.length;
  changeSteps(({ sub_prompts, takes, bridge_takes }) => {
    sub_prompts.splice(Math.min(k, sub_prompts.length - 1), 1);
    if (within) takes.splice(k - 1, 2, 0); else takes.splice(Math.min(k, takes.length - 1), 1);
    bridge_takes.splice(Math.min(Math.max(0, k - 1), bridge_takes.length - 1), 1);
  });
  state.keyframes = state.keyframes.filter((_, other) => other !== k);
  pick({ kind: 'film' });
  changed();
}

function swapKeyframes(k, j) {
  const ids = state.keyframes.map(([id]) => id);
  [ids[k], ids[j]] = [ids[j], ids[k]];
  state.keyframes = state.keyframes.map(([, seconds], n) => [ids[n], seconds]);
  pick({ kind: 'keyframe', index: j });
  changed();
}

const fixed = (k) => k === 0 && !editing();
function moveKeyframe(k, frame) {
  if (fixed(k)) return false;
  const frames = state.keyframes.map((entry) => frameOf(entry[1]));
  const end = editing() ? (state.plan.source?.frames ?? 1) - 1 : Infinity;
  const low = k ? frames[k - 1] + 1 : 0, high = k + 1 < frames.length && (editing() || !parts.ripple.checked) ? frames[k + 1] - 1 : end;
  const to = Math.min(high, Math.max(low, frame)), by = to - frames[k];
  if (!by) return false;
  state.keyframes = state.keyframes.map(([id, seconds], j) => [id, j === k || (j > k && !editing() && parts.ripple.checked) ? rounded(at(frames[j] + by)) : seconds]);
  return true;
}

let wanted = { place: null, replacing: false };
function choose(place, replacing = false) {
  wanted = { place, replacing };
  (replacing || place !== null ? parts.file : parts.files).click();
}
for (const input of [parts.files, parts.file]) {
  input.addEventListener('change', async () => {
    const files = [...input.files];
    input.value = '';
    if (files.length) await addPictures(files, wanted.place, wanted.replacing);
  });
}

// ---- the time line

let pixelsPerFrame = 8, holding = false;
function layout() {
  const frames = state.keyframes.map((entry) => frameOf(entry[1])), last = editing() ? Math.max(1, (state.plan.source?.frames ?? 2) - 1) : Math.max(frames.at(-1) || 0, SHORTEST_FILM * fps());
  const room = Math.max(200, parts.scroll.clientWidth - 84);
  const narrowest = editing() ? last : Math.min(...frames.slice(1).map((frame, k) => frame - frames[k]), last);
  pixelsPerFrame = Math.max(room / last, Math.min(PIXELS_BETWEEN / Math.max(1, narrowest), WIDEST / last));
  parts.track.style.width = `${Math.max(parts.scroll.clientWidth, last * pixelsPerFrame + 84)}px`;
  const tick = [1, 2, 4, 8, 16, 32, 64, 128].find((step) => step * pixelsPerFrame >= 7) || 256;
  const second = [1, 2, 5, 10, 20, 60, 300].find((step) => step * fps() * pixelsPerFrame >= 60) || 600;
  const marks = [];
  for (let frame = 0; frame <= last; frame += tick) marks.push(made('i', { style: `left:${frame * pixelsPerFrame}px` }));
  for (let seconds = 0; seconds * fps() <= last + 1e-6; seconds += second) {
    const left = `left:${seconds * fps() * pixelsPerFrame}px`;
    marks.push(made('i', { className: 'second', style: left }), made('b', { style: left }, `${seconds} s`));
  }
  parts.ruler.replaceChildren(...marks);
  return frames;
}

function drawTimeline() {
  if (holding) return; // a picture under a finger stays the element that it is
  const frames = layout(), lane = [];
  const current = state.plan?.keyframe_frames?.length === frames.length && state.plan.keyframe_frames.every((f, k) => f === frames[k]);
  for (let k = 0; k + 1 < frames.length && !editing(); k += 1) {
    const span = frames[k + 1] - frames[k] + 1, sampled = Math.ceil((span - 1) / 4) * 4 + 1;
    const found = current ? state.plan.segments.find((one) => one.start <= frames[k] && one.end >= frames[k + 1]) : null;
    const told = { sample: 'to sample', decode: 'to decode', kept: 'made' }[found?.todo] || '';
    const left = frames[k] * pixelsPerFrame, width = (frames[k + 1] - frames[k]) * pixelsPerFrame;
    const shownSampled = found && found.start === frames[k] && found.end === frames[k + 1] ? found.sampled : sampled;
    lane.push(made('button', {
      type: 'button', className: `wb-segment ${found?.todo || ''}`, style: `left:${left + 6}px;width:${Math.max(12, width - 12)}px`,
      'data-key': `segment-${k}`, 'aria-pressed': String(state.picked.kind === 'segment' && state.picked.index === k),
      'aria-label': `Segment ${k}: ${span} frames, sampled as ${shownSampled}${told ? `, ${told}` : ''}`, title: shownSampled === span ? count(span, 'frame') : `${count(span, 'frame')}, for which ${shownSampled} are sampled: a model takes 4n + 1`,
      onclick: () => pick({ kind: 'segment', index: k }),
    }, made('span', {}, shownSampled === span ? count(span, 'frame') : `${span} → ${shownSampled}`), made('small', {}, told)));
    lane.push(made('button', {
      type: 'button', className: 'wb-insert', style: `left:${left + width / 2}px`, 'data-key': `insert-${k}`,
      'aria-label': `Insert a picture between ${k} and ${k + 1}`, title: 'Insert a picture here', onclick: () => choose(k + 1),
    }, '+'));
  }
  state.keyframes.forEach(([id], k) => {
    const key = made('button', {
      type: 'button', className: `wb-keyframe${fixed(k) ? ' fixed' : ''}`, style: `left:${frames[k] * pixelsPerFrame}px`, 'data-key': `keyframe-${k}`,
      'aria-pressed': String(state.picked.kind === 'keyframe' && state.picked.index === k),
      'aria-label': `Picture ${k} at frame ${frames[k]}, ${(frames[k] / fps()).toFixed(2)} seconds. Arrow keys move it.`,
    }, made('img', { src: media('picture', id), alt: '', draggable: false }), made('span', {}, `${(frames[k] / fps()).toFixed(2)} s · ${frames[k]}`));
    key.addEventListener('pointerdown', (event) => grab(event, k, key));
    key.addEventListener('keydown', (event) => nudge(event, k));
    key.addEventListener('click', () => { if (!dragged) pick({ kind: 'keyframe', index: k }); });
    lane.push(key);
    if (k && k + 1 < frames.length && !editing()) {
      const scores = state.measures?.joins?.[String(frames[k])];
      lane.push(made('button', {
        type: 'button', className: `wb-join${shows(scores) ? ' shows' : ''}`, style: `left:${frames[k] * pixelsPerFrame}px`, 'data-key': `join-${k}`,
        'aria-label': `Join at frame ${frames[k]}${shows(scores) ? ', which shows' : ''}`, title: `Join at frame ${frames[k]}${shows(scores) ? ', which shows' : ''}`, onclick: () => pick({ kind: 'join', index: k }),
      }));
    }
  });
  refill(parts.lane, lane);
  parts.hint.hidden = state.keyframes.length >= least();
  parts.hint.textContent = editing() ? 'A frame that you change and put back stands here, at its place in the video.' : state.keyframes.length ? 'One more picture, and between the two there is a film.' : 'Pictures stand here, each at its time: drop them anywhere on this page.';
  const total = editing() ? state.plan.source?.frames ?? 0 : frames.length > 1 ? frames.at(-1) + 1 : 0;
  parts.told.textContent = total ? `${count(total, 'frame')}, ${(total / fps()).toFixed(2)} s at ${+fps().toFixed(3)} fps` : '';
}
const shows = (scores) => !!scores && Object.values(scores).some((one) => one && one.shows);

parts.lane.addEventListener('pointerdown', () => { holding = true; });
for (const name of ['pointerup', 'pointercancel']) window.addEventListener(name, () => setTimeout(() => {
  if (holding) { holding = false; drawTimeline(); } // after the click that it makes
}));
let dragged = false;
function grab(event, k, key) {
  if (event.button || fixed(k)) { dragged = false; return; }
  dragged = false;
  const from = event.clientX, began = frameOf(state.keyframes[k][1]), scale = pixelsPerFrame;
  key.setPointerCapture(event.pointerId);
  const move = (to) => {
    if (!dragged && Math.abs(to.clientX - from) < 4) return;
    dragged = true;
    key.classList.add('dragging');
    if (moveKeyframe(k, began + Math.round((to.clientX - from) / scale))) place(scale);
  };
  const done = () => {
    key.removeEventListener('pointermove', move);
    key.removeEventListener('pointerup', done);
    key.removeEventListener('pointercancel', done);
    key.classList.remove('dragging');
    holding = false;
    if (dragged) changed();
  };
  key.addEventListener('pointermove', move);
  key.addEventListener('pointerup', done);
  key.addEventListener('pointercancel', done);
}
// While a picture is dragged only places change: the element under the finger stays.
function place(scale) {
  const frames = state.keyframes.map((entry) => frameOf(entry[1]));
  const put = (name, left, width) => {
    const one = parts.lane.querySelector(`[data-key="${name}"]`);
    if (one) { one.style.left = `${left}px`; if (width !== undefined) one.style.width = `${Math.max(12, width)}px`; }
    return one;
  };
  frames.forEach((frame, k) => {
    put(`keyframe-${k}`, frame * scale).querySelector('span').textContent = `${(frame / fps()).toFixed(2)} s · ${frame}`;
    put(`join-${k}`, frame * scale);
    if (k + 1 === frames.length || editing()) return;
    const width = (frames[k + 1] - frame) * scale, span = frames[k + 1] - frame + 1, sampled = Math.ceil((span - 1) / 4) * 4 + 1;
    put(`segment-${k}`, frame * scale + 6, width - 12).firstChild.textContent = sampled === span ? count(span, 'frame') : `${span} → ${sampled}`;
    put(`insert-${k}`, frame * scale + width / 2);
  });
}
function nudge(event, k) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) {
    event.preventDefault();
    event.stopPropagation();
    if (moveKeyframe(k, frameOf(state.keyframes[k][1]) + by * (event.shiftKey ? 4 : 1))) changed();
  } else if (event.key === 'Delete' || event.key === 'Backspace') {
    event.preventDefault();
    removeKeyframe(k);
  }
}

// ---- what is selected

function pick(what) {
  state.picked = what;
  draw();
  if (what.kind === 'join' && !state.measures && state.film) measure();
  if (editing()) { if (what.kind === 'keyframe') seek(state.keyframes[what.index][1]); return; }
  if (what.kind !== 'film' && state.film && state.plan?.keyframe_frames) {
    const frame = state.plan.keyframe_frames[what.index];
    if (frame !== undefined && frame < state.film.frames) seek(frame);
  }
}

function field(label, input, hint) {
  if (input.dataset.field) labels[input.dataset.field] = label.split(';')[0];
  return made('label', { className: 'wb-field' }, made('span', {}, label), input, hint ? made('span', { className: 'wb-soft' }, hint) : null);
}
function text(name, label, rows, hint) {
  const area = rows > 1 ? made('textarea', { rows, value: state.settings[name] ?? '' }) : made('input', { type: 'text', value: state.settings[name] ?? '' });
  area.setAttribute('data-field', name);
  area.addEventListener('input', () => set(name, area.value));
  return field(label, area, hint);
}
function number(name, label, options = {}) {
  const own = state.plan?.resolved?.[name];
  const input = made('input', { type: 'number', value: state.settings[name] ?? '', placeholder: own === null || own === undefined ? 'the model’s own' : String(own), ...options });
  input.setAttribute('data-field', name);
  input.addEventListener('input', () => set(name, input.value === '' ? null : Number(input.value)));
  return field(label, input);
}
function choice(name, label, options) {
  const now = String(state.settings[name] ?? options[0][0] ?? '');
  const input = made('select', {}, ...options.map(([value, words]) => made('option', { value: String(value ?? ''), selected: String(value ?? '') === now }, words)));
  input.setAttribute('data-field', name);
  input.addEventListener('change', () => set(name, input.value === '' ? null : input.value));
  return field(label, input);
}
// One of several settings at once; what stands, where it is none of them, is named so. A setting that is null is at its default.
function presetChoice(label, presets, defaults = {}) {
  const now = presets.findIndex(({ settings }) => Object.entries(settings).every(([name, value]) => (state.settings[name] ?? defaults[name] ?? null) === (value ?? defaults[name] ?? null)));
  const input = made('select', { 'data-field': 'preset' }, ...presets.map(({ words }, k) => made('option', { value: String(k), selected: k === now }, words)), ...(now < 0 ? [made('option', { value: '-1', selected: true }, 'As under “Advanced”')] : []));
  input.addEventListener('change', () => { const preset = presets[Number(input.value)]; if (preset) { state.settings = { ...state.settings, ...preset.settings }; soon(); } });
  return field(label, input);
}
const modelChoice = () => choice('model', 'Model', [...new Set([...state.models, state.settings.model].filter(Boolean))].map((name) => [name, name]));
const sizeField = () => field('Size', made('input', { type: 'text', value: state.settings.size ?? '', placeholder: state.plan?.resolved?.size || 'width*height', 'data-field': 'size', oninput: (event) => set('size', event.target.value.trim() || null) }));
const facts = (rows) => made('dl', { className: 'wb-facts' }, ...rows.filter(Boolean).flatMap(([name, value]) => [made('dt', {}, name), made('dd', {}, value)]));
const heading = (title, ...rest) => made('header', {}, made('h2', {}, title), made('span', { className: 'wb-grow' }), ...rest, state.picked.kind === 'film' ? null : made('button', { type: 'button', className: 'wb-quiet', onclick: () => pick({ kind: 'film' }) }, editing() ? 'Edit settings' : 'Film settings'));
const strip = (images) => made('div', { className: 'wb-strip' }, ...images.map(({ src, words, marked }) => made('figure', { className: marked ? 'at' : '' }, made('img', { src, alt: words, loading: 'lazy' }), made('figcaption', {}, words))));

const SIDES = {
  film() {
    if (editing()) return editSide();
    if (state.plan && state.plan.job !== 'generate') return [heading('A run'), made('p', { className: 'wb-soft' }, `This was made by \`wanedit ${state.plan.job}\`. The board shows it; its settings are those of its folder.`)];
    return [
      heading('Film settings'),
      text('prompt', 'What the whole film shows', 3),
      modelChoice(),
      presetChoice('What it is made at', state.plan?.presets || [], state.plan?.own),
      choice('joins', 'Joins', state.joins.map((name) => [name, { none: 'as sampled', bridge: 'bridged: sampled once more', co_denoise: 'denoised together' }[name] || name])),
      made('details', { open: openDetails, ontoggle: (event) => { openDetails = event.target.open; } }, made('summary', {}, 'Advanced'),
        made('div', { className: 'wb-pair' },
          sizeField(), number('fps', 'Frames a second', { min: 1, max: 1000, step: 'any' }),
          number('num_inference_steps', 'Steps', { min: 1, step: 1 }), number('guidance_scale', 'Guidance', { min: 0, step: 'any' }),
          number('shift', 'Shift', { min: 0, step: 'any' }), number('base_seed', 'Seed', { min: 0, step: 1, placeholder: 'drawn' })),
        choice('solver', 'Solver', [[null, 'the model’s own'], ...['unipc', 'dpm++', 'euler', 'heun'].map((name) => [name, name])]),
        text('negative_prompt', 'What to steer away from', 2)),
    ];
  },
  keyframe() {
    if (editing()) return editedSide();
    const k = state.picked.index, [id, seconds] = state.keyframes[k];
    const time = made('input', { type: 'number', step: 'any', min: 0, value: +(seconds - origin()).toFixed(4), disabled: k === 0 });
    time.addEventListener('change', () => { if (moveKeyframe(k, Math.round(Number(time.value) * fps()))) changed(); else draw(); });
    return [
      heading(`Picture ${k}`),
      made('img', { className: 'wb-big', src: media('picture', id), alt: `Picture ${k}` }),
      field('Seconds', time, k === 0 ? 'The film begins here.' : `frame ${frameOf(seconds)}`),
      made('div', { className: 'wb-row' },
        made('button', { type: 'button', className: 'wb-quiet', onclick: () => choose(k, true) }, 'Replace'),
        made('button', { type: 'button', className: 'wb-quiet', onclick: () => removeKeyframe(k) }, 'Take out'),
        made('button', { type: 'button', className: 'wb-quiet', disabled: k === 0, onclick: () => swapKeyframes(k, k - 1) }, 'Earlier'),
        made('button', { type: 'button', className: 'wb-quiet', disabled: k + 1 === state.keyframes.length, onclick: () => swapKeyframes(k, k + 1) }, 'Later')),
    ];
  },
  segment() {
    const k = state.picked.index, frames = state.keyframes.map((entry) => frameOf(entry[1]));
    const found = state.plan?.segments?.find((one) => one.start <= frames[k] && one.end >= frames[k + 1]);
    const own = made('textarea', { rows: 2, value: ofSteps().sub_prompts[k], placeholder: 'what happens in this step; put behind the film’s prompt' });
    own.setAttribute('data-field', 'sub_prompt');
    own.addEventListener('input', () => { changeSteps(({ sub_prompts }) => { sub_prompts[k] = own.value; }); soon(); });
    const shown = [];
    if (found?.piece) {
      const most = Math.min(8, found.piece_frames), last = found.piece_frames - 1;
      for (let i = 0; i < most; i += 1) {
        const frame = Math.round((i * last) / Math.max(1, most - 1));
        shown.push({ src: media('frame', found.piece, frame), words: String(found.start + frame) });
      }
    }
    const now = ofSteps().takes[k], takes = found && !packed() ? found.takes : [], next = Math.max(now, ...takes.map((one) => one.take)) + 1;
    return [
      heading(`Segment ${k}`),
      shown.length ? strip(shown) : made('p', { className: 'wb-soft' }, 'Not made yet with these settings.'),
      takes.length ? made('div', { className: 'wb-row' },
        ...(takes.length > 1 || now !== takes[0].take ? takes.map((one) => take(k, one, now)) : []),
        made('button', { type: 'button', className: 'wb-quiet', disabled: !!state.status.running, title: 'Another seed for this segment alone; what is there is kept', onclick: () => chooseTake('takes', k, next) }, 'Sample again')) : null,
      field('Prompt of this step', own),
      facts([
        ['frames', `${frames[k]} … ${frames[k + 1]}, ${frames[k + 1] - frames[k] + 1}`],
        found && ['sampled as', `${found.sampled} = 4·${(found.sampled - 1) / 4} + 1`],
        found && ['state', { sample: 'to sample', decode: 'to decode', kept: 'made' }[found.todo]],
        found?.seconds ? ['sampling took', lasting(found.seconds)] : null,
        found && ['hash', found.digest.slice(0, 12)],
      ]),
    ];
  },
  join() {
    const k = state.picked.index, frame = frameOf(state.keyframes[k][1]), here = state.film && state.film.joins.includes(frame);
    const rows = [heading(`Join at frame ${frame}`)];
    if (!here) return [...rows, made('p', { className: 'wb-soft' }, state.film ? 'The film that is there has no join at this frame; make it anew to see one.' : 'There is no film yet.')];
    const around = [-3, -2, -1, 0, 1, 2, 3].map((by) => frame + by).filter((one) => one >= 0 && one < state.film.frames);
    rows.push(strip(around.map((one) => ({ src: `${media('frame', 'film', one)}?v=${state.film.id}`, words: String(one), marked: one === frame }))));
    const scores = state.measures?.joins?.[String(frame)], marked = Object.entries(scores || {}).filter(([, one]) => one?.shows).map(([name]) => name);
    rows.push(made('p', { className: 'wb-soft wb-over' }, !scores ? state.measures?.note || 'Measuring …' : marked.length ? `This join shows: it is unlike the rest of the film in ${marked.join(', ')}.` : 'This join does not show: it is as the rest of the film.'));
    const found = state.plan?.segments?.[k], now = ofSteps().bridge_takes[k - 1];
    if (found && !packed() && (state.settings.joins || 'none') !== 'co_denoise') {
      const bridges = [...new Set(found.bridges)].sort((a, b) => a - b), next = Math.max(0, now, ...bridges) + 1, off = state.settings.joins === 'bridge' ? 'Bridge 0' : 'No bridge';
      rows.push(made('p', { className: 'wb-soft' }, 'A bridge samples the frames about this join once more, all else held.'), made('div', { className: 'wb-row' },
        ...(now || bridges.length ? [0, ...bridges.filter(Boolean)].map((one) => made('button', { type: 'button', className: 'wb-quiet', disabled: !!state.status.running, 'aria-pressed': String(one === now), onclick: () => chooseTake('bridge_takes', k - 1, one) }, one ? `Bridge ${one}` : off)) : []),
        made('button', { type: 'button', className: 'wb-quiet', disabled: !!state.status.running, onclick: () => chooseTake('bridge_takes', k - 1, next) }, now || bridges.length ? 'Another bridge' : 'Bridge this join')));
    }
    if (scores) {
      rows.push(made('table', { className: 'wb-measures' },
        made('tr', {}, made('th', {}, 'measure'), made('th', {}, 'here'), made('th', {}, 'elsewhere'), made('th', {}, 'ratio')),
        ...Object.entries(scores).map(([name, one]) => made('tr', { className: one.shows ? 'shows' : '' }, made('th', {}, name), ...['value', 'interior', 'ratio'].map((key) => made('td', {}, one[key] === null ? '–' : Number(one[key]).toPrecision(3)))))));
    }
    return rows;
  },
};
let openDetails = false;

function take(k, one, now) {
  const middle = Math.floor(one.piece_frames / 2);
  return made('button', { type: 'button', className: 'wb-take', disabled: !!state.status.running, 'aria-pressed': String(one.take === now), onclick: () => chooseTake('takes', k, one.take) },
    one.piece ? made('img', { src: media('frame', one.piece, middle), alt: '' }) : null, `Take ${one.take}`);
}
// Taken at once where it costs one sample or none; where other changes wait, too, with them.
async function chooseTake(name, k, number) {
  changeSteps((steps) => { steps[name][k] = number; });
  await changed();
  const cost = state.plan?.cost;
  if (cost && !state.plan.error && !state.status.running && cost.segments + cost.bridges <= 1) await begin();
}

async function measure() {
  const film = state.film.id;
  try {
    const found = await ask('measures', state.name);
    if (film === state.film?.id) { state.measures = found; draw(); }
  } catch (error) { /* told */ }
}

function drawSide() {
  const { kind, index } = state.picked, most = { keyframe: state.keyframes.length, segment: state.keyframes.length - 1, join: state.keyframes.length - 1 }[kind];
  if (kind !== 'film' && index >= most) state.picked = { kind: 'film' };
  // What is being typed into is not taken away by an answer that comes meanwhile.
  const showing = `${state.picked.kind} ${state.picked.index}`, typing = document.activeElement?.matches('input, textarea') && parts.side.contains(document.activeElement);
  if (typing && parts.side.dataset.showing === showing) return;
  const focused = parts.side.contains(document.activeElement) ? document.activeElement.dataset.field : null, scrolled = parts.side.scrollTop;
  parts.side.replaceChildren(...SIDES[state.picked.kind]().filter(Boolean));
  parts.side.scrollTop = parts.side.dataset.showing === showing ? scrolled : 0;
  parts.side.dataset.showing = showing;
  if (focused) parts.side.querySelector(`[data-field="${focused}"]`)?.focus({ preventScroll: true });
}
parts.side.addEventListener('focusout', () => setTimeout(() => { if (!parts.side.contains(document.activeElement)) drawSide(); }));

// ---- cost, progress

const SENT = /source_[0-9a-f]{16}\.\w+/; // what the session calls a video that was dropped
function drawRun() {
  const running = !!state.status.running, cost = state.plan?.cost, error = state.plan?.error;
  parts.progress.hidden = parts.cancel.hidden = !running;
  parts.cost.hidden = running;
  parts.go.hidden = running;
  if (running) {
    const stage = state.status.stage || {};
    parts.stage.textContent = stage.total ? `${stage.label.replace(SENT, 'the video')}: ${stage.done} of ${stage.total} ${stage.unit || ''}` : `${(stage.label || 'starting').replace(/^starting$/, 'starting: the program is loading')} …`;
    parts.left.textContent = state.status.left === null || state.status.left === undefined ? '' : `about ${lasting(state.status.left)} left${state.status.of === 'all' ? '' : ' of this'}`;
    if (stage.total) { parts.meter.max = stage.total; parts.meter.value = stage.done; } else parts.meter.removeAttribute('value');
  }
  const ready = !!cost && !error;
  const nothing = ready && !cost.segments && !cost.pieces && !cost.bridges;
  parts.go.disabled = !ready || state.keyframes.length < least();
  const [again, changed, first] = editing() ? ['Write again', 'Edit anew', 'Edit the video'] : ['Stitch again', 'Make what changed', 'Make the film'];
  parts.go.textContent = state.status.stopped ? 'Go on' : nothing && state.film ? again : state.film ? changed : first;
  parts.go.className = nothing && state.film ? 'wb-quiet' : 'wb-main-button';
  if (reckoning) {
    parts.cost.textContent = 'Reckoning what this comes to …';
  } else if (!ready) {
    parts.cost.textContent = state.keyframes.length < least() ? (!editing() ? 'Two pictures at least make a film.' : 'Put one edited frame, at least, back into the video.') : error ? 'Mend what is named above, and it can be made.' : '';
  } else {
    const words = [];
    words.push(nothing ? 'Everything is made; ' : editing() ? count(state.plan.num_frames, 'frame') : `${cost.segments} of ${count(cost.of, 'segment')} to sample`);
    if (nothing) words.push('nothing is to be sampled.');
    if (editing() && !nothing) words.push(cost.flops ? `, ${count(cost.passes, 'pass').replace('passs', 'passes')} of the network` : ', no network is asked');
    if (cost.bridges) words.push(`, ${count(cost.bridges, 'bridge')}`);
    if (!nothing && cost.whole) words.push(`, about ${lasting(cost.whole)} as it went before`);
    else if (cost.segments && cost.flops) words.push(cost.seconds ? `, about ${lasting(cost.seconds)} of sampling as it went before` : `, ${(cost.flops / 1e12).toPrecision(2)} TFLOP; how long is known after the first run`);
    if (!nothing && cost.memory) words.push(`, ${(cost.memory / 1e9).toFixed(1)} GB of memory`);
    parts.cost.replaceChildren(made('b', {}, words[0]), words.slice(1).join(''));
  }
  const warnings = (state.plan?.warnings || []).map((words) => made('li', {}, plainly(words)));
  if (state.plan?.about) warnings.push(made('li', { className: 'plain' }, plainly(state.plan.about)));
  if (error) warnings.unshift(made('li', { className: 'bad', role: 'alert' }, plainly(error)));
  parts.warnings.replaceChildren(...warnings);
}

async function begin() {
  parts.go.disabled = true;
  try {
    await settled();
    state.status = await ask('start', state.name, draft(), state.plan.version);
    notice('');
  } catch (error) { /* told */ }
  draw();
  watch();
}
parts.go.addEventListener('click', begin);
parts.cancel.addEventListener('click', async () => {
  parts.cancel.disabled = true;
  try { state.status = await ask('cancel', state.name); notice('Stopped. What was finished is kept; “Go on” continues there.'); } catch (error) { /* told */ }
  parts.cancel.disabled = false;
  await refresh();
});

let watching = 0, made_ = null;
async function watch() {
  const mine = (watching += 1);
  while (mine === watching && element.isConnected) {
    await new Promise((done) => setTimeout(done, state.status.running ? 700 : 4000));
    if (mine !== watching || document.hidden || !state.name) continue;
    const name = state.name, before = state.status.running;
    const found = await answered('status', [name]);
    if (mine !== watching || name !== state.name) continue;
    if (found.error) { notice(found.error, true); continue; }
    if (parts.notice.textContent === SILENT) notice('');
    state.status = found.status;
    const shown = found.preview ? `${media('preview')}?v=${found.preview}` : '';
    // The last one stays until there is another: between two segments nothing jumps.
    parts.preview.hidden = !found.status.running || !(shown || parts.preview.getAttribute('src'));
    if (!found.status.running) parts.preview.removeAttribute('src');
    if (shown && parts.preview.getAttribute('src') !== shown) parts.preview.src = shown;
    showFilm(found.film);
    if (before && !found.status.running) {
      await refresh();
      if (found.status.error) notice(found.status.error, true);
      else if (!found.status.stopped) { parts.live.textContent = editing() ? 'The video is edited.' : 'The film is made.'; if (editing()) look('compare'); }
    } else if ((found.version !== state.plan?.version || found.made !== made_) && !asking && !pause) { made_ = found.made; await refresh(); }
    else drawRun();
  }
}

async function refresh() {
  const name = state.name;
  if (!name) return;
  try {
    const found = await ask('open', name);
    if (name !== state.name) return;
    state.status = { ...found.status, error: null, stopped: found.status.stopped };
    showFilm(found.film);
    adopt(found.plan);
  } catch (error) { /* told */ }
}

// ---- the film

function showFilm(film) {
  if (film?.id === state.film?.id && parts.film.hidden === !film) return;
  const kept = state.film && film ? Math.min(Number(parts.scrub.value), film.frames - 1) : 0; // what was changed is looked at
  state.film = film;
  state.measures = null;
  parts.film.hidden = !film;
  parts.empty.hidden = !!film || editing();
  parts.transport.hidden = parts.head.hidden = !film && !editing();
  if (!film) { parts.film.removeAttribute('src'); parts.joins.replaceChildren(); drawStage(); return; }
  parts.screen.classList.toggle('small', film.size[0] < 320);
  parts.film.src = `${media('film')}?v=${film.id}`;
  if (film.job === 'edit') { look(state.view); drawRun(); return; }
  parts.scrub.max = film.frames - 1;
  const last = Math.max(1, film.frames - 1);
  const mark = (frame, end) => made('button', {
    type: 'button', className: end ? 'end' : '', style: `left:${(100 * frame) / last}%`, title: end ? `Picture at frame ${frame}` : `Join at frame ${frame}`,
    'aria-label': end ? `Picture at frame ${frame}` : `Join at frame ${frame}`, onclick: () => {
      seek(frame);
      const k = (state.plan?.keyframe_frames || []).indexOf(frame);
      if (!end && k > 0) pick({ kind: 'join', index: k });
    },
  });
  parts.joins.replaceChildren(...film.keyframes.map((frame) => mark(frame, !film.joins.includes(frame))));
  seek(kept);
  drawRun();
  if (state.picked.kind === 'join') measure();
}
function seek(frame) {
  if (editing()) { seekBoth(frame); return; }
  if (!state.film) return;
  const to = Math.min(state.film.frames - 1, Math.max(0, frame));
  parts.film.pause();
  // The middle of a frame's time is never taken for its neighbour's.
  parts.film.currentTime = (to + 0.5) / state.film.fps;
  readout(to);
}
function readout(frame) {
  if (editing()) { readBoth(frame); return; }
  if (!state.film) return;
  parts.scrub.value = frame;
  parts.readout.textContent = `${frame} / ${state.film.frames - 1} · ${(frame / state.film.fps).toFixed(2)} s`;
  parts.head.style.left = `calc(2.6rem + ${(frame / state.film.fps) * fps() * pixelsPerFrame}px)`;
}
const shown = () => editing() ? shownSource() : Math.min(state.film.frames - 1, Math.floor(parts.film.currentTime * state.film.fps + 1e-3));
parts.scrub.addEventListener('input', () => seek(Number(parts.scrub.value)));
parts.play.addEventListener('click', () => {
  if (editing()) { playBoth(); return; }
  if (!parts.film.paused) { parts.film.pause(); return; }
  if (shown() >= state.film.frames - 1) parts.film.currentTime = 0;
  parts.film.play();
});
for (const name of ['play', 'pause', 'ended']) parts.film.addEventListener(name, () => {
  if (editing()) return;
  const playing = !parts.film.paused;
  parts.play.classList.toggle('playing', playing);
  parts.play.setAttribute('aria-label', playing ? 'Pause' : 'Play');
  const tick = () => { if (!parts.film.paused && !parts.film.ended) { readout(shown()); requestAnimationFrame(tick); } };
  if (name === 'play') tick();
});
parts.film.addEventListener('ended', () => { if (!editing()) readout(state.film.frames - 1); });

document.addEventListener('keydown', (event) => {
  if (!element.isConnected || event.ctrlKey || event.metaKey || event.altKey || !(state.film || editing())) return;
  if (event.target.closest?.('input:not([type="range"]), textarea, select, button, summary')) { if (![',', '.'].includes(event.key) || event.target.matches('input, textarea, select')) return; }
  if (event.key === ' ') { event.preventDefault(); parts.play.click(); } else if (event.key === ',') seek(shown() - 1); else if (event.key === '.') seek(shown() + 1);
});

// ---- runs

async function open(name, words = '') {
  let found;
  if (name !== state.name) await settled(); // what was changed of the one that is left
  try { found = await ask('open', name); } catch (error) { return false; }
  state.name = name;
  state.picked = { kind: 'film' };
  state.status = found.status;
  state.film = undefined;
  state.frame = 0;
  adopt(found.plan);
  showFilm(found.film);
  notice(words || found.status.error || '', !!found.status.error);
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  parts.runs.value = name;
  watch();
  return true;
}

async function list(name = null) {
  const found = await ask('runs');
  state.models = found.models;
  state.joins = found.joins;
  state.edit = found.edit;
  const names = found.runs.map((run) => run.name), hash = decodeURIComponent(location.hash.slice(1));
  const next = name || (names.includes(hash) ? hash : null) || found.only || names[0] || 'film';
  if (!names.includes(next)) names.unshift(next);
  parts.runs.replaceChildren(...names.map((one) => made('option', { value: one }, one)));
  parts.new.hidden = !!found.only;
  parts.runs.disabled = !!found.only && names.length < 2;
  if (await open(next)) return;
  // A name that is refused is none: shown is what was.
  if (!found.runs.some((run) => run.name === next)) [...parts.runs.options].find((one) => one.value === next).remove();
  parts.runs.value = state.name;
}
// One after the other, as they were asked for; what is dropped meanwhile waits for it.
function next(step) { opening = opening.then(step).catch(() => {}); } // what fails is told
parts.runs.addEventListener('change', () => { const name = parts.runs.value; next(() => open(name)); });
parts.new.addEventListener('click', () => {
  const names = [...parts.runs.options].map((one) => one.value);
  const fresh = Array.from({ length: 1000 }, (_, k) => `film-${k + 1}`).find((name) => !names.includes(name));
  const name = prompt('Name of the film or edit, which its folder gets', fresh);
  if (name) next(() => list(name.trim()));
});
parts.choose.addEventListener('click', () => choose(null));
parts.choose_video.addEventListener('click', () => parts.videofile.click());
parts.add.addEventListener('click', () => choose(null));

let over = 0;
element.addEventListener('dragenter', (event) => { event.preventDefault(); over += 1; element.classList.add('wb-dropping'); });
element.addEventListener('dragleave', () => { over -= 1; if (over <= 0) element.classList.remove('wb-dropping'); });
element.addEventListener('dragover', (event) => event.preventDefault());
element.addEventListener('drop', async (event) => {
  event.preventDefault();
  over = 0;
  element.classList.remove('wb-dropping');
  const files = [...event.dataTransfer.files], video = files.find(isVideo);
  if (video) await addVideo(video); else if (files.length) await addPictures(files);
});

const THEMES = ['auto', 'light', 'dark'];
function theme(name) {
  if (name === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  parts.theme.textContent = name[0].toUpperCase() + name.slice(1);
  parts.theme.setAttribute('aria-label', `Colour theme: ${name === 'auto' ? 'as the system' : name}`);
  try { localStorage.setItem('wanedit-theme', name); } catch (error) { /* a private window */ }
}
parts.theme.addEventListener('click', () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || 'auto') + 1) % 3]));
try { theme(localStorage.getItem('wanedit-theme') || 'auto'); } catch (error) { theme('auto'); }

function draw() {
  drawTimeline();
  drawSide();
  drawRun();
  drawStage();
  readHead();
}
// The line on the time line, which is at another place of another width.
function readHead() { if (state.film || editing()) readout(Number(parts.scrub.value)); }
new ResizeObserver(() => { if (state.name) { drawTimeline(); readHead(); } }).observe(parts.scroll);
async function first() {
  await list().catch(() => {}); // told
  while (!state.name && parts.notice.textContent === SILENT) {
    await new Promise((done) => setTimeout(done, 2000));
    await list().catch(() => {});
  }
}
opening = first();
