"use strict";
// One clock for all clips: one clip's own time while they play, and the frame asked for while they stand.
(() => {
  const players = [...document.querySelectorAll(".player")].map(makePlayer);
  themeButton(document.querySelector(".theme"));
  // Where a strip does not fit, its join is what is seen of it.
  for (const box of document.querySelectorAll(".scroll:has(.strip)")) {
    const join = box.querySelector(".at");
    if (join) box.scrollLeft = join.offsetLeft - box.offsetLeft - (box.clientWidth - join.offsetWidth) / 2;
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-frame]");
    if (!target || !players.length) return;
    players[0].show(Number(target.dataset.frame));
    if (!target.closest(".player")) players[0].element.scrollIntoView({ block: "start" });
  });

  document.addEventListener("keydown", (event) => {
    if (!players.length || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = event.target;
    if (at.matches("select, textarea, input:not([type=range]):not([type=checkbox])")) return;
    // A box that scrolls keeps its arrows; a control keeps its space bar.
    const scrolls = at.matches(".scroll") && at.scrollWidth > at.clientWidth;
    const own = at.matches("button, summary, a, input[type=checkbox]");
    const ten = event.shiftKey ? 10 : 1;
    const one = players[0];
    const acts = {
      " ": own ? null : () => one.toggle(),
      ArrowLeft: scrolls ? null : () => one.move(-ten),
      ArrowRight: scrolls ? null : () => one.move(ten),
      Home: () => one.show(0),
      End: () => one.show(one.frames - 1),
      m: one.mute,
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  });

  function makePlayer(element) {
    const fps = Number(element.dataset.fps);
    const frames = Number(element.dataset.frames);
    const keys = new Set(element.dataset.keyframes.split(",").filter(Boolean).map(Number));
    const clips = [...element.querySelectorAll("video")].map((video) => ({
      video, fps: Number(video.dataset.fps), frames: Number(video.dataset.frames),
    }));
    const find = (name) => element.querySelector(name);
    const scrub = find(".scrub"), play = find("[data-do=play]"), speed = find(".speed"), loop = find(".loop"), sound = find(".sound");
    // The longest clip leads, so that none ends before the clock does; of these one with sound, whose pace nothing changes.
    const lasts = (clip) => clip.frames / clip.fps, longest = Math.max(...clips.map(lasts));
    const leaders = clips.filter((clip) => lasts(clip) === longest);
    const leader = leaders.find(({ video }) => video.dataset.sound) || leaders[0];
    let frame = 0, playing = false, ticket = 0;

    for (const { video } of clips) {
      video.removeAttribute("controls");
      video.disableRemotePlayback = true;
    }
    let rows = 0;
    for (const row of element.querySelectorAll(".panes")) {
      const count = Number(row.dataset.count);
      rows += Math.ceil(count / (count === 4 ? 2 : 3));
      const video = row.querySelector("video");
      row.style.setProperty("--aspect", (video.getAttribute("width") / video.getAttribute("height")).toFixed(4));
    }
    element.style.setProperty("--rows", rows);
    for (const marker of element.querySelectorAll(".marker")) {
      marker.style.left = `${frames > 1 ? (100 * marker.dataset.frame) / (frames - 1) : 0}%`;
    }
    for (const button of element.querySelectorAll(".enlarge")) button.addEventListener("click", enlarge);
    for (const { video } of clips) video.addEventListener("click", toggle);
    const steps = { first: () => show(0), back: () => move(-1), play: toggle, forward: () => move(1), last: () => show(frames - 1) };
    for (const [name, act] of Object.entries(steps)) find(`[data-do=${name}]`).addEventListener("click", act);
    scrub.addEventListener("input", () => show(Number(scrub.value)));
    speed.addEventListener("change", () => clips.forEach(({ video }) => { video.playbackRate = rate(); }));
    if (sound) sound.addEventListener("change", hear);
    const mute = sound && (() => { sound.selectedIndex = sound.value ? 0 : 1; hear(); });
    const ready = Promise.all(clips.map(({ video }) => loaded(video))).then(() => show(0));

    const api = { element, clips, frames, fps, show, move, toggle, mute, ready, now: () => frame, playing: () => playing };
    element.report = api;
    return api;

    function hear() {
      for (const { video } of clips) video.muted = !sound.value || video.dataset.sound !== sound.value;
    }

    function rate() { return Number(speed.value); }

    // The middle of a frame: rounding, to either side, stays within it.
    function place(clip, at) {
      const own = clip.fps === fps ? at : Math.floor(((at + 0.5) / fps) * clip.fps + 1e-6);
      return (Math.min(own, clip.frames - 1) + 0.5) / clip.fps;
    }

    function show(wanted) {
      pause();
      frame = Math.max(0, Math.min(frames - 1, wanted));
      for (const clip of clips) clip.video.currentTime = place(clip, frame);
      write();
    }

    function move(by) { show(frame + by); }

    function write() {
      scrub.value = frame;
      scrub.setAttribute("aria-valuetext", `frame ${frame}, ${(frame / fps).toFixed(2)} seconds`);
      find(".readout .frame").textContent = frame;
      find(".readout .time").textContent = `${(frame / fps).toFixed(3)} s`;
      element.classList.toggle("keyed", keys.has(frame));
    }

    function toggle() { if (playing) { pause(true); } else { start(); } }

    function state(on) {
      playing = on;
      element.classList.toggle("playing", on);
      play.setAttribute("aria-label", on ? "Pause" : "Play");
    }

    function pause(settle) {
      ticket += 1;
      clips.forEach(({ video }) => video.pause());
      if (playing && settle) {
        state(false);
        show(frame);
      }
      state(false);
    }

    async function start() {
      await ready;
      if (frame >= frames - 1) frame = 0;
      for (const clip of clips) clip.video.currentTime = place(clip, frame);
      const mine = ++ticket;
      state(true);
      await Promise.all(clips.map(({ video }) => settled(video)));
      if (mine !== ticket) return;
      for (const { video } of clips) { video.playbackRate = rate(); }
      await Promise.all(clips.map(({ video }) => video.play().catch(() => {})));
      if (mine !== ticket) return;
      align(true);
      follow(mine);
    }

    function follow(mine) {
      if (mine !== ticket) return;
      const at = leader.video.currentTime;
      if (leader.video.ended || at >= (frames - 0.02) / fps) {
        frame = frames - 1;
        write();
        again();
        return;
      }
      const now = Math.min(frames - 1, Math.floor(at * leader.fps + 1e-6));
      if (now !== frame) { frame = now; write(); }
      align(false);
      requestAnimationFrame(() => follow(mine));
    }

    function again() {
      if (!loop.checked) { show(frames - 1); return; }
      clips.forEach(({ video }) => video.pause());
      frame = 0;
      start();
    }

    // A clip that is off by little runs a little faster or slower; one that is off by more jumps.
    function align(hard) {
      const at = leader.video.currentTime;
      for (const clip of clips) {
        const { video } = clip;
        if (clip === leader || video.ended || at >= clip.frames / clip.fps) continue;
        const behind = at - video.currentTime;
        if (Math.abs(behind) > (hard ? 0.25 : 0.75) / clip.fps) {
          video.currentTime = at;
          video.playbackRate = rate();
        } else if (Math.abs(behind) > 0.08 / clip.fps) {
          video.playbackRate = rate() * (1 + Math.max(-0.3, Math.min(0.3, behind * 4)));
        } else if (video.playbackRate !== rate()) {
          video.playbackRate = rate();
        }
      }
    }

    function enlarge(event) {
      const button = event.currentTarget;
      const on = button.closest(".pane").classList.toggle("wide");
      button.setAttribute("aria-pressed", on);
    }
  }

  function loaded(video) {
    if (video.readyState >= 2) return Promise.resolve();
    return new Promise((done) => {
      video.addEventListener("loadeddata", done, { once: true });
      video.addEventListener("error", done, { once: true });
    });
  }

  function settled(video) {
    if (!video.seeking && video.readyState >= 2) return Promise.resolve();
    return new Promise((done) => {
      video.addEventListener("seeked", done, { once: true });
      setTimeout(done, 1500);
    });
  }

  function themeButton(button) {
    const words = { auto: ["Auto", "as the system"], light: ["Light", "light"], dark: ["Dark", "dark"] };
    const order = Object.keys(words);
    // A browser may refuse storage to a file.
    let chosen = "auto";
    try { chosen = localStorage.getItem("wanedit-theme") || "auto"; } catch { /* stays auto */ }
    apply(words[chosen] ? chosen : "auto");
    button.addEventListener("click", () => {
      apply(order[(order.indexOf(chosen) + 1) % order.length]);
      try { localStorage.setItem("wanedit-theme", chosen); } catch { /* for this page only */ }
    });
    function apply(name) {
      chosen = name;
      document.documentElement.dataset.theme = name;
      button.textContent = words[name][0];
      button.setAttribute("aria-label", `Colour theme: ${words[name][1]}`);
    }
  }
})();
