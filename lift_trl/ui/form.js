// The form beside the player: it opens once the clips have played, keeps what was typed, and says what became of it.
(() => {
  const visible = (element) => element.offsetParent !== null;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  // A form, its player and its item stand in one tab, or on the page.
  const scope = (form) => form.closest("[role=tabpanel]") || document;
  const itemOf = (form) => scope(form).querySelector(".lift-item textarea, .lift-item input");

  const lock = (form) => {
    const player = all(".lift-player", scope(form)).find(visible);
    const locked = Boolean(player && !player.dataset.seen);
    if (form.inert !== locked) form.inert = locked;
    form.classList.toggle("lift-locked", locked);
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest || !event.target.closest(".lift-locked button")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);

  // What is chosen and typed for an item survives a reload, a lost connection and a restart of the server.
  const key = (item) => `lift-draft ${location.pathname} ${item.closest(".lift-item").id}`;
  const stored = (item) => {
    try {
      return JSON.parse(localStorage.getItem(key(item)) || "null");
    } catch {
      return null; // the browser keeps nothing here, or something else's
    }
  };
  const store = (item, draft) => {
    try {
      draft ? localStorage.setItem(key(item), JSON.stringify(draft)) : localStorage.removeItem(key(item));
    } catch {
      // then a reload loses it
    }
  };
  const name = (field) => field.closest("[id^=lift-]").id;
  const keep = (event) => {
    const form = event.isTrusted && event.target.closest && event.target.closest(".lift-answers");
    const item = form && itemOf(form);
    if (!item || !item.value) return;
    const texts = all("textarea", form).map((field) => [name(field), field.value]);
    const labels = all("input[type=radio]:checked", form).map((field) => [name(field), field.value]);
    store(item, { item: item.value, texts, labels });
  };
  document.addEventListener("input", keep);
  document.addEventListener("change", keep);
  const type = (field, text) => {
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const restore = (form, item) => {
    const draft = stored(item);
    if (!draft) return;
    if (draft.item !== item.value) {
      if (item.value) store(item, null);
      return;
    }
    // Texts first: a label may fill in a reason, but not over one that a person typed.
    for (const [id, text] of draft.texts) {
      const field = form.querySelector(`#${id} textarea`);
      if (field && text) type(field, text);
    }
    for (const [id, value] of draft.labels) {
      const field = all(`#${id} input[type=radio]`, form).find((radio) => radio.value === value);
      if (field && !field.checked) field.click();
    }
  };

  const live = document.createElement("div");
  live.id = "lift-live";
  live.setAttribute("role", "status");
  const say = (text) => {
    if (live.parentNode === null) document.body.append(live);
    if (text && live.textContent !== text) live.textContent = text;
  };

  // The next clips are fetched when the present ones are there.
  let ahead = [];
  const fetchAhead = () => {
    const next = document.querySelector(".lift-next");
    const here = all(".lift-player video").filter(visible);
    if (!next || next.dataset.done || !here.length || !here.every((video) => video.readyState === 4)) return;
    next.dataset.done = "1";
    ahead = next.dataset.urls.split(" ").map((url) => Object.assign(document.createElement("video"), { muted: true, preload: "auto", src: url }));
  };

  // A new item: its clip comes into sight, and what was sent is announced.
  const seen = new WeakSet();
  const shown = new Map();
  const arrive = (form, item) => {
    const before = shown.get(item.closest(".lift-item").id);
    shown.set(item.closest(".lift-item").id, item.value);
    restore(form, item);
    if (before === undefined || before === "") return;
    for (const question of all(".lift-active", form)) question.classList.remove("lift-active");
    const top = all(".lift-prompt, .lift-player", scope(form)).filter(visible);
    const head = top.sort((one, other) => one.getBoundingClientRect().top - other.getBoundingClientRect().top)[0];
    if (head) {
      head.scrollIntoView({ block: "start" });
      // Whoever goes by the tab key goes on from here, not from the button at the end.
      head.tabIndex = -1;
      head.focus({ preventScroll: true });
    }
    const progress = document.querySelector("#lift-status .lift-hint");
    say(`Saved. ${progress ? progress.textContent : ""}`);
  };

  // Gradio gives a group of choices no name that assistive technology finds.
  const label = (group) => {
    const title = group.querySelector("[data-testid=block-info]");
    if (!title || group.hasAttribute("aria-labelledby")) return;
    title.id = title.id || `${name(group)}-name`;
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-labelledby", title.id);
  };

  setInterval(() => {
    for (const form of all(".lift-answers")) {
      const item = itemOf(form);
      // A group of gradio carries its class twice, one inside the other.
      if (!item || !visible(form) || form.parentElement.closest(".lift-answers")) continue;
      lock(form);
      const id = item.closest(".lift-item").id;
      if (item.value && shown.get(id) !== item.value) arrive(form, item);
    }
    all(".lift-answers fieldset").forEach(label);
    const said = document.querySelector("#lift-said");
    if (said && said.textContent.trim()) say(said.textContent.trim());
    fetchAhead();
  }, 100);
})();
