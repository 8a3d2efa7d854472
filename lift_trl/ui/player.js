// One player for one or two clips: they start, stop, loop and step together. Works on whatever HTML the page shows next.
(() => {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const visible = (element) => element.offsetParent !== null;
  const players = () => document.querySelectorAll(".lift-player");
  const videos = (player) => [...player.querySelectorAll("video")];
  const fps = (player) => Number(player.dataset.fps) || 8;
  // Clips may differ in length: the longest one leads, the others wait at their last frame.
  const lead = (player) => videos(player).reduce((one, other) => (other.duration > one.duration ? other : one));
  const frames = (player) => Math.max(1, Math.round(lead(player).duration * fps(player)) || 1);
  const frame = (player) => Math.min(frames(player) - 1, Math.floor(lead(player).currentTime * fps(player) + 1e-4));

  // The middle of a frame: rounding never shows its neighbour.
  const show = (player, index) => {
    const count = frames(player);
    const wrapped = ((index % count) + count) % count;
    const half = 0.5 / fps(player);
    for (const video of videos(player)) video.currentTime = Math.min(wrapped / fps(player) + half, video.duration - half);
  };
  const pause = (player) => {
    player.dataset.playing = "";
    for (const video of videos(player)) video.pause();
    refresh(player);
  };
  const play = (player) => {
    if (player.dataset.playing !== "1") player.dataset.playing = "1";
    const speed = Number(player.querySelector(".lift-speed").value);
    for (const video of videos(player)) {
      video.playbackRate = speed;
      if (!video.ended || videos(player).every((other) => other.ended)) video.play().catch(() => {});
    }
    refresh(player);
  };
  const refresh = (player) => {
    const playing = player.dataset.playing === "1";
    const button = player.querySelector(".lift-play");
    const name = playing ? "Pause" : "Play";
    if (button.getAttribute("aria-label") !== name) {
      button.textContent = playing ? "\u275a\u275a" : "\u25b6";
      button.setAttribute("aria-label", name);
    }
    // A phone that gives only a clip the whole screen, and no player, has its own button for that.
    const full = player.querySelector("[data-action=full]");
    if (full.hidden === document.fullscreenEnabled) full.hidden = !document.fullscreenEnabled;
    const whole = document.fullscreenElement === player ? "Leave full screen" : "Full screen";
    if (full.getAttribute("aria-label") !== whole) full.setAttribute("aria-label", whole);
    const count = frames(player);
    const index = frame(player);
    const place = player.querySelector(".lift-frame");
    const text = `${index + 1} / ${count}`;
    if (place.textContent === text) return;
    place.textContent = text;
    const slider = player.querySelector(".lift-seek");
    if (slider.max !== String(count - 1)) slider.max = count - 1;
    slider.value = index;
    slider.setAttribute("aria-valuetext", `${index + 1} of ${count}`);
  };
  // Whether a clip was played through, wherever the visitor began.
  const played = (video) => {
    let seconds = 0;
    for (let i = 0; i < video.played.length; i += 1) seconds += video.played.end(i) - video.played.start(i);
    return video.readyState >= 2 && (video.ended || seconds > 0.9 * video.duration);
  };

  // At each frame of the screen, and what is written is drawn again: so all of this writes only what has changed.
  const tick = () => {
    for (const player of players()) {
      const all = videos(player);
      watch(player, all);
      if (!all.length || !all.every((video) => video.readyState >= 2)) continue;
      if (player.dataset.playing === undefined) still.matches ? pause(player) : play(player);
      for (const video of all) if (!video.dataset.seen && played(video)) video.dataset.seen = "1";
      if (!player.dataset.seen && all.every((video) => video.dataset.seen)) player.dataset.seen = "1";
      if (player.dataset.playing !== "1") continue;
      if (all.every((video) => video.ended)) {
        for (const video of all) video.currentTime = 0;
        play(player);
      }
      const first = lead(player);
      for (const video of all) {
        const late = first.currentTime - video.currentTime;
        const runs = !video.ended && !video.seeking && first.currentTime < video.duration;
        if (video !== first && runs && Math.abs(late) > 0.5 / fps(player)) video.currentTime = first.currentTime;
      }
      refresh(player);
    }
    requestAnimationFrame(tick);
  };

  // What a visitor waits for, and what to do if it does not come.
  const RETRIES_MS = [500, 3000];
  const watch = (player, all) => {
    all.forEach(mend);
    const place = player.querySelector(".lift-wait");
    const failed = all.some((video) => video.dataset.failed);
    const loaded = all.filter((video) => video.readyState >= 2).length;
    const form = [...document.querySelectorAll(".lift-answers")].some(visible);
    let text = "";
    if (failed) text = "A clip could not be loaded.";
    else if (loaded < all.length) text = all.length > 1 ? `Loading the clips: ${loaded} of ${all.length} are here.` : "Loading the clip.";
    else if (form && !player.dataset.seen) {
      const what = all.length > 1 ? "both clips have" : "the clip has";
      text = `${player.dataset.playing === "1" ? "The" : "Press play: the"} form opens once ${what} played.`;
    }
    if (place.firstChild.textContent !== text) place.firstChild.textContent = text;
    const button = place.querySelector("button");
    if (button.hidden === failed) button.hidden = !failed;
    if (player.classList.contains("lift-failed") !== failed) player.classList.toggle("lift-failed");
  };
  // Asked, not listened to: an error may come before the clip is on the page.
  const mend = (video) => {
    if (video.error === null || video.dataset.failed || video.dataset.waits) return;
    const tries = Number(video.dataset.tries || 0);
    if (tries === RETRIES_MS.length) {
      video.dataset.failed = "1";
      return;
    }
    video.dataset.tries = tries + 1;
    video.dataset.waits = "1";
    setTimeout(() => {
      delete video.dataset.waits;
      video.load();
    }, RETRIES_MS[tries]);
  };
  const retry = (player) => {
    for (const video of videos(player)) {
      if (!video.dataset.failed) continue;
      delete video.dataset.failed;
      delete video.dataset.tries;
      video.load();
    }
  };

  requestAnimationFrame(tick);

  const act = (player, action) => {
    if (action === "retry") retry(player);
    if (action === "full") document.fullscreenElement ? document.exitFullscreen() : player.requestFullscreen();
    if (action === "play") player.dataset.playing === "1" ? pause(player) : play(player);
    if (action === "back" || action === "forward") {
      const index = frame(player);
      pause(player);
      show(player, index + (action === "back" ? -1 : 1));
    }
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".lift-player [data-action]");
    if (button) act(button.closest(".lift-player"), button.dataset.action);
  });
  document.addEventListener("change", (event) => {
    const player = event.target.closest && event.target.closest(".lift-player");
    if (player && event.target.matches(".lift-speed")) play(player);
  });
  document.addEventListener("input", (event) => {
    const player = event.target.closest && event.target.closest(".lift-player");
    if (!player || !event.target.matches(".lift-seek")) return;
    const wanted = Number(event.target.value); // pausing moves the slider to the frame that is shown
    pause(player);
    show(player, wanted);
  });
  document.addEventListener("fullscreenchange", () => players().forEach((player) => videos(player).length && refresh(player)));
  document.addEventListener("seeked", (event) => {
    const player = event.target.closest && event.target.closest(".lift-player");
    if (player && player.querySelector(".lift-play")) refresh(player);
  }, true);

  // Keys: 1 2 3 answer the marked question, Enter goes to the next one and sends after the last, space plays, comma and
  // full stop step.
  // A group of gradio carries its class twice, one inside the other.
  const questions = () => [...document.querySelectorAll(".lift-question:not(.lift-question .lift-question)")].filter(visible);
  const mark = (question) => {
    for (const other of questions()) other.classList.toggle("lift-active", other === question);
  };
  const leave = (question) => {
    if (document.activeElement) document.activeElement.blur();
    mark(question);
    question.scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
  };
  // What the box of a reason expects: a sentence for a label below the best, which then is required.
  const expect = (question) => {
    const words = document.querySelector("#lift-words");
    const box = question.querySelector(".lift-reason textarea, .lift-reason input");
    if (!box || !words) return;
    const chosen = question.querySelector("input[type=radio]:checked");
    const needed = chosen !== null && chosen.value !== words.dataset.best;
    const text = words.dataset[chosen === null ? "ask" : needed ? "needed" : "ready"];
    if (box.placeholder !== text) box.placeholder = text;
    if (box.required !== needed) box.required = needed;
  };
  // Not on events alone: the page clears the form without one.
  setInterval(() => questions().forEach(expect), 150);
  document.addEventListener("focusin", (event) => {
    const question = questions().find((element) => element.contains(event.target));
    if (question) mark(question);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input[type=text], input:not([type]), input[type=number], select");
    const all = questions();
    const active = all.find((question) => question.classList.contains("lift-active")) || all[0];
    const next = active && all[all.indexOf(active) + 1];
    const send = [...document.querySelectorAll("#lift-submit")].find(visible);
    const locked = active && active.closest(".lift-locked");
    if (event.key === "Enter" && send && !event.shiftKey && !event.target.matches("button, select")) {
      if (typing && !event.target.closest(".lift-question")) return;
      event.preventDefault();
      if (locked) return;
      if (!next || event.ctrlKey || event.metaKey) send.click();
      else leave(next);
      return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const player = [...players()].find(visible);
    const action = { " ": "play", ",": "back", ".": "forward" }[event.key];
    if (action && player && !event.target.matches("button")) {
      event.preventDefault();
      act(player, action);
    }
    const choice = active && active.querySelectorAll("input[type=radio]")[Number(event.key) - 1];
    if (choice && !locked) {
      event.preventDefault();
      choice.click();
      // A label below the best needs a reason: the cursor goes there. Enter goes on.
      const reason = active.querySelector(".lift-reason textarea, .lift-reason input");
      if (reason && event.key !== "1") reason.focus();
      else leave(next || active);
    }
  });
})();
