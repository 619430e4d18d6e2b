
// ---- edits: a source beside its result, frames taken out and put back

const VIEWS = [...parts.views.querySelectorAll('button')];
const isVideo = (file) => file.type.startsWith('video/') || /\.(mp4|mov|mkv|webm|avi|m4v|ts|gif)$/i.test(file.name);
// Whether the result shows the stretch of the source that is edited now.
const matching = () => !!state.film && state.film.job === 'edit' && !!state.plan?.source && state.film.start === state.plan.source.start && state.film.frames === state.plan.source.frames;

async function addVideo(file) {
  await opening;
  await settled();
  notice(`Sending ${file.name} …`);
  const found = await send('add_video', file);
  if (!found) return;
  notice('');
  state.picked = { kind: 'film' };
  state.status = found.status;
  state.film = undefined;
  adopt(found.plan);
  showFilm(found.film);
  const { frames, total } = found.plan.source || {};
  if (frames < total) notice(`The video has ${total} frames. The first ${frames} are edited, which is what the model is good for; more or others under “Source”.`);
}
parts.videofile.addEventListener('change', async () => {
  const [file] = parts.videofile.files;
  parts.videofile.value = '';
  if (file) await addVideo(file);
});

// A picture whose name is a number goes to that frame, as one that was taken out is called; others to the frame that is shown.
async function putPictures(files) {
  const last = (state.plan.source?.frames ?? 1) - 1;
  let put = null;
  for (const file of files) {
    const named = /^(\d+)\.[a-z]+$/i.exec(file.name), frame = named && Number(named[1]) <= last ? Number(named[1]) : state.frame;
    const picture = await send('add_picture', file);
    if (!picture) return;
    putKeyframe(picture.id, frame);
    put = frame;
  }
  await changed(); // first, for what it changes is drawn of what is kept
  const index = state.keyframes.findIndex(([, frame]) => frame === put);
  if (index >= 0) pick({ kind: 'keyframe', index });
}
function putKeyframe(id, frame) {
  state.keyframes = [...state.keyframes.filter(([, other]) => other !== frame), [id, frame]].sort((a, b) => a[1] - b[1]);
}

// ---- the stage

function drawStage() {
  const source = editing() ? state.plan.source : null;
  parts.views.hidden = parts.source.hidden = !source;
  parts.follow.hidden = editing();
  parts.track.classList.toggle('flat', editing());
  parts.add.textContent = editing() ? 'Put a picture here' : 'Add pictures';
  if (editing()) { parts.empty.hidden = true; parts.transport.hidden = parts.head.hidden = !source; }
  if (!parts.empty.hidden) {
    // The first pictures are on the time line: what is next is the button below.
    const begun = state.keyframes.length > 0;
    parts.chooses.hidden = begun;
    parts.begin.textContent = !begun ? 'Begin with pictures, or with a video' : state.status.running ? 'Being made' : state.keyframes.length > 1 ? 'Ready to be made' : 'One more picture at least';
    parts.how.textContent = begun ? 'The film shows here. Below, on the time line, pictures are dragged to their times.' : 'Drop two pictures or more, and what lies between them is sampled. Or drop a video, change a few of its frames, and all of it follows.';
  }
  if (!source) {
    if (!editing()) { parts.source.removeAttribute('src'); delete parts.source.dataset.of; for (const name of ['changes', 'seam', 'wipe']) parts[name].hidden = true; parts.film.style.clipPath = ''; }
    return;
  }
  const fresh = parts.source.dataset.of !== `${state.name} ${source.id}`;
  if (fresh) {
    parts.source.dataset.of = `${state.name} ${source.id}`;
    parts.source.src = `${media('source')}?v=${source.id}`;
    parts.screen.classList.toggle('small', source.size[0] < 320);
    state.frame = Math.min(state.frame, source.frames - 1);
  }
  parts.scrub.max = source.frames - 1;
  const marks = state.keyframes.map(([, frame], k) => made('button', {
    type: 'button', style: `left:${(100 * frame) / Math.max(1, source.frames - 1)}%`, title: `Picture at frame ${frame}`, 'aria-label': `Picture at frame ${frame}`, 'data-key': `mark-${frame}`,
    onclick: () => pick({ kind: 'keyframe', index: k }),
  }));
  parts.joins.replaceChildren(...marks);
  look(state.view);
  if (fresh) seekBoth(state.frame); else readBoth(state.frame);
}

function look(view) {
  const both = matching();
  state.view = view;
  const now = !both && ['compare', 'result'].includes(view) ? 'source' : view;
  for (const button of VIEWS) {
    button.disabled = !both && ['compare', 'result'].includes(button.dataset.view);
    button.setAttribute('aria-pressed', String(button.dataset.view === now));
  }
  parts.film.hidden = now === 'source' || now === 'changes' || !both;
  parts.seam.hidden = parts.wipe.hidden = now !== 'compare';
  parts.changes.hidden = now !== 'changes';
  wipe();
  const stale = both && state.plan.digest && state.film.digest !== state.plan.digest;
  parts.shows.textContent = now === 'changes' ? 'grey is as in the source; the brighter, the more is changed' : !state.film ? '' : !both ? 'the result is of other frames of the source' : stale ? 'the result is of earlier settings' : '';
  if (now === 'changes') drawChanges();
}
function wipe() {
  const place = Number(parts.wipe.value);
  parts.film.style.clipPath = parts.seam.hidden ? '' : `inset(0 0 0 ${place}%)`;
  parts.seam.style.left = `${place}%`;
}
parts.wipe.addEventListener('input', wipe);
for (const button of VIEWS) button.addEventListener('click', () => look(button.dataset.view));

// The latest frame that was asked for, when the one before has come.
let painting = false, wantedChanges = '';
function drawChanges() {
  const of = matching() ? 'film' : 'keyframe', at = state.frame, picture = state.keyframes.find(([, frame]) => frame === at);
  if (of === 'keyframe' && !picture) { wantedChanges = ''; parts.changes.removeAttribute('src'); parts.changes.alt = 'Nothing is changed here yet: go to a frame with a picture, or make the edit.'; return; }
  wantedChanges = `${media('changes', of, at)}?v=${of === 'film' ? state.film.id : picture[0]}-${state.plan.source.id}`;
  parts.changes.alt = `What is changed of frame ${at}`;
  if (!painting && parts.changes.getAttribute('src') !== wantedChanges) { painting = true; parts.changes.src = wantedChanges; }
}
for (const name of ['load', 'error']) parts.changes.addEventListener(name, () => {
  painting = false;
  if (wantedChanges && parts.changes.getAttribute('src') !== wantedChanges) { painting = true; parts.changes.src = wantedChanges; }
});

const shownSource = () => Math.min((state.plan.source?.frames ?? 1) - 1, Math.floor(parts.source.currentTime * fps() + 1e-3));
function seekBoth(frame) {
  if (!state.plan.source) return;
  const to = Math.min(state.plan.source.frames - 1, Math.max(0, frame));
  parts.source.pause();
  parts.film.pause();
  parts.source.currentTime = (to + 0.5) / fps();
  if (matching()) parts.film.currentTime = (to + 0.5) / state.film.fps;
  const moved = to !== state.frame;
  readBoth(to);
  if (moved && state.picked.kind === 'film') drawSide();
}
function readBoth(frame) {
  state.frame = frame;
  parts.scrub.value = frame;
  parts.readout.textContent = `${frame} / ${(state.plan.source?.frames ?? 1) - 1} · ${(frame / fps()).toFixed(2)} s`;
  parts.head.style.left = `calc(2.6rem + ${frame * pixelsPerFrame}px)`;
  if (!parts.changes.hidden) drawChanges();
}
function playBoth() {
  const { source, film } = parts;
  if (!source.paused) { source.pause(); return; }
  if (shownSource() >= state.plan.source.frames - 1) source.currentTime = 0;
  source.play();
  if (matching()) { film.currentTime = source.currentTime; film.play(); }
}
for (const name of ['play', 'pause', 'ended']) parts.source.addEventListener(name, () => {
  const playing = !parts.source.paused && !parts.source.ended;
  parts.play.classList.toggle('playing', playing);
  parts.play.setAttribute('aria-label', playing ? 'Pause' : 'Play');
  if (!playing) {
    parts.film.pause();
    if (state.picked.kind === 'film') drawSide();
    return;
  }
  const tick = () => {
    if (parts.source.paused || parts.source.ended) return;
    // Two films drift apart by less than a frame, or are brought together.
    if (matching() && Math.abs(parts.film.currentTime - parts.source.currentTime) > 1 / fps()) parts.film.currentTime = parts.source.currentTime;
    readBoth(shownSource());
    requestAnimationFrame(tick);
  };
  if (name === 'play') tick();
});
parts.source.addEventListener('error', () => { if (editing() && parts.source.getAttribute('src')) notice('The source cannot be shown; the plan below says why.', true); });
// A click on the time line goes to its frame.
parts.track.addEventListener('click', (event) => {
  if (!editing() || event.target.closest('button')) return;
  seek(Math.round((event.clientX - parts.lane.getBoundingClientRect().left) / pixelsPerFrame));
});

// ---- what is selected

// Of which frames the source is edited; pictures stay on theirs.
function stretch(name, label) {
  const { source } = state.plan, input = made('input', { type: 'number', step: 1, min: name === 'start' ? 0 : 1, max: source.total, value: state.settings[name] ?? '', placeholder: name === 'start' ? '0' : `all ${source.total - source.start}`, 'data-field': name });
  input.addEventListener('change', () => {
    const value = input.value === '' ? (name === 'start' ? 0 : null) : Number(input.value);
    if (name === 'start') {
      const by = value - (state.settings.start || 0);
      state.keyframes = state.keyframes.map(([id, frame]) => [id, frame - by]).filter(([, frame]) => frame >= 0);
    }
    state.settings = { ...state.settings, [name]: value };
    changed();
  });
  return field(label, input);
}

let looks = { stylist: 'palette', words: '', picture: null }, styling = false, openStyle = false, openSource = false;
async function restyle() {
  styling = true;
  const frame = state.frame;
  drawSide();
  try {
    await settled();
    const { stylist, words, picture } = looks, made = await ask('style', state.name, frame, { stylist, words, ...(picture ? { picture: picture.id } : {}) });
    const there = new Set([frame, ...state.keyframes.map(([, other]) => other)]);
    for (const [id, at] of made.keyframes) if (there.has(at)) putKeyframe(id, at);
    notice('');
    await changed();
    pick({ kind: 'keyframe', index: state.keyframes.findIndex(([, at]) => at === frame) });
  } catch (error) { /* told */ } finally { styling = false; drawSide(); }
}
function styleForm() {
  const words = made('input', { type: 'text', value: looks.words, placeholder: 'watercolour, noir, autumn …', 'data-field': 'words', oninput: (event) => { looks.words = event.target.value; }, onkeydown: (event) => { if (event.key === 'Enter') restyle(); } });
  const stylist = made('select', { onchange: (event) => { looks.stylist = event.target.value; } }, ...(state.edit.stylists || []).map((name) => made('option', { value: name, selected: name === looks.stylist }, { palette: 'palette, on this machine', gemini: 'Gemini: the frame is sent to Google, and billed' }[name] || name)));
  const choose = made('input', { type: 'file', accept: 'image/*', hidden: true, onchange: async (event) => {
    const [file] = event.target.files, picture = file && await send('add_picture', file);
    if (picture) { looks.picture = { id: picture.id, name: file.name }; drawSide(); }
  } });
  return made('details', { open: openStyle, ontoggle: (event) => { openStyle = event.target.open; } }, made('summary', {}, 'Restyle this frame'),
    field('Look, in words', words),
    made('div', { className: 'wb-row' }, choose, made('button', { type: 'button', className: 'wb-quiet', onclick: () => choose.click() }, looks.picture ? 'Another picture' : 'Or as a picture looks'), looks.picture ? made('button', { type: 'button', className: 'wb-take', title: 'Leave it out', 'aria-label': `Leave out ${looks.picture.name}`, onclick: () => { looks.picture = null; drawSide(); } }, made('img', { src: media('picture', looks.picture.id), alt: looks.picture.name })) : null),
    (state.edit.stylists || []).length > 1 ? field('Stylist', stylist) : null,
    made('div', { className: 'wb-row' }, made('button', { type: 'button', className: 'wb-quiet', disabled: styling, onclick: restyle }, styling ? 'Restyling …' : `Restyle frame ${state.frame}`)));
}

function editSide() {
  const { source } = state.plan, own = state.edit;
  if (!source) return [heading('Edit'), made('p', { className: 'wb-soft' }, 'The source of this edit cannot be read; below stands why.'), made('div', { className: 'wb-row' }, made('button', { type: 'button', className: 'wb-quiet', onclick: () => parts.videofile.click() }, 'Choose a video'))];
  const names = (list) => list.map((name) => [name, name.replaceAll('_', ' ')]);
  const usual = own.ways?.[0]?.settings || {};
  const chosen = (name, label, list) => choice(name, label, names([...new Set([usual[name], ...list, state.settings[name]].filter(Boolean))]));
  return [
    heading(`Frame ${state.frame}`),
    made('p', { className: 'wb-soft' }, state.keyframes.length ? 'Change more frames where the first ones do not reach.' : 'Take a frame out, change it in any program, and put it back; or restyle it here.'),
    made('div', { className: 'wb-row' },
      made('a', { className: 'wb-quiet', href: media('take', state.frame), download: `${String(state.frame).padStart(4, '0')}.png` }, 'Take out'),
      made('button', { type: 'button', className: 'wb-quiet', onclick: () => choose(null) }, 'Put a picture here')),
    styleForm(),
    made('h3', {}, 'The edit'),
    ...(matching() ? (state.film.reached || []).map((words) => made('p', { className: 'wb-soft' }, words)) : []),
    text('prompt', 'What the edited video shows', 2),
    text('source_prompt', 'What the source shows; empty for the same', 1),
    presetChoice('How the video follows', own.ways || [], usual),
    modelChoice(),
    made('details', { open: openSource, ontoggle: (event) => { openSource = event.target.open; } }, made('summary', {}, 'Source'),
      made('p', { className: 'wb-soft' }, `${source.size[0]}×${source.size[1]}, ${+source.fps.toFixed(3)} fps, ${count(source.total, 'frame')}`),
      made('div', { className: 'wb-pair' }, stretch('start', 'First frame'), stretch('num_frames', 'How many')),
      made('div', { className: 'wb-row' }, made('button', { type: 'button', className: 'wb-quiet', onclick: () => parts.videofile.click() }, 'Another video'))),
    made('details', { open: openDetails, ontoggle: (event) => { openDetails = event.target.open; } }, made('summary', {}, 'Advanced'),
      chosen('method', 'Method', own.methods || []), chosen('controller', 'Controller', own.controllers || []), chosen('restore', 'Restored from the source', own.restores || []), choice('resize_policy', 'Where the shapes differ', names(['auto', 'crop', 'pad', 'stretch'])),
      made('div', { className: 'wb-pair' },
        number('alpha', 'Pull of keyframes', { min: 0, step: 'any' }), number('num_inference_steps', 'Steps', { min: 1, step: 1 }),
        number('guidance_scale', 'Guidance', { min: 0, step: 'any' }), number('shift', 'Shift', { min: 0, step: 'any' }),
        sizeField(), number('base_seed', 'Seed', { min: 0, step: 1, placeholder: 'drawn' })),
      text('negative_prompt', 'What to steer away from', 2)),
  ];
}

function editedSide() {
  const k = state.picked.index, [id, frame] = state.keyframes[k];
  const place = made('input', { type: 'number', step: 1, min: 0, max: (state.plan.source?.frames ?? 1) - 1, value: frame, 'data-field': 'frame' });
  place.addEventListener('change', () => { if (moveKeyframe(k, Math.round(Number(place.value)))) { seek(state.keyframes[k][1]); changed(); } else draw(); });
  return [
    heading(`Picture at frame ${frame}`),
    made('img', { className: 'wb-big', src: media('picture', id), alt: `Picture at frame ${frame}` }),
    made('p', { className: 'wb-soft wb-over' }, 'What it changes; the rest is as in the source:'),
    made('img', { className: 'wb-big', src: `${media('changes', 'keyframe', frame)}?v=${id}-${state.plan.source?.id}`, alt: 'What is changed' }),
    field('Frame', place),
    made('div', { className: 'wb-row' },
      made('button', { type: 'button', className: 'wb-quiet', onclick: () => choose(k, true) }, 'Replace'),
      made('button', { type: 'button', className: 'wb-quiet', onclick: () => removeKeyframe(k) }, 'Remove')),
  ];
}
