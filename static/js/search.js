// The search page: fetches the reranked order and lets rows slide to their places, switches order,
// view and page without a reload, and listens to the keys. Without it everything is plain links.

const SLIDE_MS = 250;
const container = document.querySelector("[data-results]");
const live = document.querySelector("[data-live]");
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

// --- the form: what was not changed does not belong into the address ---

const form = document.querySelector("[data-search-form]");
const instruction = document.querySelector("[data-instruction]");

form?.addEventListener("formdata", ({ formData }) => {
  if (instruction && instruction.value.trim() === instruction.dataset.active.trim()) {
    formData.delete("instruction");
  }
  const pairs = formData.getAll("meta").filter((pair) => pair.trim());
  formData.delete("meta");
  for (const pair of pairs) formData.append("meta", pair);
});

// Enter searches, Shift+Enter is a new line of the instruction.
instruction?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

// --- results that change in place ---

function rowTops() {
  const tops = new Map();
  for (const row of container.querySelectorAll("[data-hit]")) {
    tops.set(row.dataset.passage, row.getBoundingClientRect().top);
  }
  return tops;
}

function slide(before) {
  if (still.matches || !before.size) return;
  for (const row of container.querySelectorAll("[data-hit]")) {
    const was = before.get(row.dataset.passage);
    const now = row.getBoundingClientRect().top;
    const timing = { duration: SLIDE_MS, easing: "cubic-bezier(0.2, 0, 0, 1)" };
    if (was === undefined) {
      row.animate([{ opacity: 0, transform: "translateY(24px)" }, { opacity: 1, transform: "none" }], timing);
    } else if (was !== now) {
      row.animate([{ transform: `translateY(${was - now}px)` }, { transform: "none" }], timing);
    }
  }
}

function restoreFocus(passage) {
  if (!passage) return;
  container.querySelector(`[data-passage="${CSS.escape(passage)}"] [data-open]`)?.focus({ preventScroll: true });
}

// Answers may overtake each other: only the one asked for last is shown.
let asked = 0;

async function show(url) {
  const mine = ++asked;
  const response = await fetch(url, { credentials: "same-origin" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.querySelector(".results");
  if (!fresh) throw new Error("no results in the answer");
  if (mine !== asked) return null;
  const focused = document.activeElement?.closest?.("[data-hit]")?.dataset.passage;
  const open = container.querySelector(".trace-panel")?.open ?? false;
  const before = rowTops();
  container.replaceChildren(document.adoptNode(fresh));
  const panel = container.querySelector(".trace-panel");
  if (panel) panel.open = open;
  restoreFocus(focused);
  slide(before);
  return container.querySelector(".results");
}

function fragmentAddress(search) {
  const results = container.querySelector(".results");
  const parameters = new URLSearchParams(search);
  if (results.hasAttribute("data-stored")) parameters.set("stored", "1");
  return `${results.dataset.fragment}?${parameters}`;
}

async function fetchReranked() {
  try {
    const results = await show(container.dataset.rerankUrl);
    if (live && results) live.textContent = results.dataset.announcement;
  } catch {
    const line = container.querySelector(".reranking");
    const notice = document.createElement("div");
    notice.className = "notice";
    notice.setAttribute("role", "status");
    notice.append(Object.assign(document.createElement("p"), {
      textContent: "Shown in first-stage order: the reranked order could not be fetched. Reload the page to try again.",
    }));
    line?.replaceWith(notice);
  } finally {
    container.removeAttribute("aria-busy");
  }
}

container?.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-swap]");
  const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0;
  if (!link || !plain) return;
  event.preventDefault();
  try {
    if (!(await show(fragmentAddress(new URL(link.href).search)))) return;
    history.pushState({}, "", link.href);
    if (container.getBoundingClientRect().top < 0 && link.closest(".pagination")) {
      container.scrollIntoView({ block: "start" });
    }
  } catch {
    window.location.assign(link.href);
  }
});

window.addEventListener("popstate", () => {
  if (container?.querySelector(".results")) {
    show(fragmentAddress(window.location.search)).catch(() => window.location.reload());
  }
});

// A rerank that nobody will see need not be finished.
let left = false;

function cancelRerank() {
  const token = document.querySelector('input[name="csrfmiddlewaretoken"]');
  if (!token || container.getAttribute("aria-busy") !== "true") return;
  left = true;
  const body = new FormData();
  body.set("csrfmiddlewaretoken", token.value);
  navigator.sendBeacon(container.dataset.cancelUrl, body);
}

if (container?.dataset.rerankUrl) {
  fetchReranked();
  window.addEventListener("pagehide", cancelRerank);
  // Back from the browser's memory, where the fetch died with the rerank: the search runs anew.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && left) window.location.reload();
  });
}

// --- keys ---

const keys = document.querySelector("[data-keys]");
const keysButton = document.querySelector("[data-show-keys]");
if (keysButton && keys) {
  keysButton.hidden = false;
  keysButton.addEventListener("click", () => keys.showModal());
}

function step(by) {
  const all = [...document.querySelectorAll("[data-hit] [data-open], .compare-item")];
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1);
  all[next].focus({ preventScroll: true });
  (all[next].closest("[data-hit]") ?? all[next]).scrollIntoView({ block: "nearest" });
}

const actions = {
  "/": () => { const query = document.getElementById("query"); query?.focus(); query?.select(); },
  i: () => instruction?.focus(),
  j: () => step(1),
  k: () => step(-1),
  b: () => container?.querySelector("a[data-view]:not([aria-current])")?.click(),
  "?": () => keys?.showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  // A dialog that has just closed keeps the focus until the next frame: only an open one takes keys.
  const field = event.target.closest?.("input:not([type=checkbox]), textarea, select, dialog[open], [contenteditable]");
  if (field) {
    if (event.key === "Escape" && !field.matches("dialog")) field.blur();
    return;
  }
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
