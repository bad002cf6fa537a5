// Keeps the status of an upload batch current: re-fetches the fragment of [data-status-url], quickly
// while something happens, rarely when idle, never while the page is hidden.

const FAST = 1000;
const SLOW = 15000;
const ANNOUNCE_EVERY = 10000;

const holder = document.querySelector("[data-status-url]");
const live = document.querySelector("[data-status-live]");
let delay = FAST;
let timer = 0;
let query = location.search;
let announcedAt = 0;
let announced = "";
let asked = 0;

function announce(status) {
  const summary = status?.dataset.summary ?? "";
  const isEnd = status?.dataset.active === "0";
  if (!live || summary === announced) return;
  if (!isEnd && Date.now() - announcedAt < ANNOUNCE_EVERY) return;
  announced = summary;
  announcedAt = Date.now();
  live.textContent = summary;
}

function replace(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  // Tokens differ on every answer; without them equal pages compare equal.
  const bare = (root) => {
    const copy = root.cloneNode(true);
    for (const input of copy.querySelectorAll('input[name="csrfmiddlewaretoken"]')) input.remove();
    return copy.textContent + [...copy.querySelectorAll("progress")].map((each) => each.value);
  };
  if (holder.firstElementChild && bare(holder) === bare(fresh.content)) return false;
  const focused = holder.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = holder.querySelector("#file-table")?.scrollLeft ?? 0;
  holder.replaceChildren(fresh.content);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  const table = holder.querySelector("#file-table");
  if (table) table.scrollLeft = scrolled;
  return true;
}

async function refresh() {
  clearTimeout(timer);
  if (!holder.dataset.statusUrl || document.hidden) return;
  const mine = ++asked;
  try {
    const response = await fetch(holder.dataset.statusUrl + query, { redirect: "error" });
    if ([403, 404].includes(response.status)) {
      // Deleted, signed out, or no right any more: the page itself says so.
      location.reload();
      return;
    }
    if (!response.ok) throw new Error(String(response.status));
    const html = await response.text();
    if (mine !== asked) return; // a later question has been asked in the meantime
    const changed = replace(html);
    const status = holder.querySelector("[data-active]");
    announce(status);
    const active = status?.dataset.active === "1";
    delay = changed || active ? FAST : Math.min(delay * 1.6, SLOW);
    if (active && !changed) delay = Math.min(delay * 1.3, 3000);
  } catch {
    if (mine !== asked) return;
    delay = Math.min(delay * 2, SLOW);
  }
  timer = setTimeout(refresh, delay);
}

async function act(form, button) {
  const body = new FormData(form, button);
  // Buttons named "action" hide the property of that name.
  const url = form.getAttribute("action");
  button.disabled = true;
  try {
    const response = await fetch(url, {
      method: "POST",
      body,
      headers: { Accept: "application/json" },
      redirect: "error",
    });
    const answer = response.ok ? await response.json() : { message: "That did not work. Reload the page and try again." };
    if (live) live.textContent = answer.message;
  } catch {
    if (live) live.textContent = "The server cannot be reached. Try again in a moment.";
    button.disabled = false;
  }
  delay = FAST;
  refresh();
}

if (holder) {
  holder.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-act]") || !event.submitter) return;
    event.preventDefault();
    act(event.target, event.submitter);
  });
  holder.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-swap]");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    query = new URL(link.getAttribute("href") || "?", location.href.split("?")[0]).search;
    history.replaceState(null, "", location.pathname + query);
    delay = FAST;
    refresh();
  });
  document.addEventListener("visibilitychange", () => {
    delay = FAST;
    if (!document.hidden) refresh();
  });
  // upload.js says so when it has sent something.
  document.addEventListener("podium:sent", () => {
    delay = FAST;
    refresh();
  });
  timer = setTimeout(refresh, delay);
}
