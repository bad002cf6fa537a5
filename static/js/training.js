// Beside job-status.js: keeps opened tables open over a refresh, and loads the page anew when the
// training has ended, because a checkpoint and its decision then stand below.

const holder = document.querySelector("[data-status-url]");
const opened = new Set();

function settle() {
  for (const each of holder.querySelectorAll("details[id]")) {
    if (opened.has(each.id) && !each.open) each.open = true;
  }
  const status = holder.querySelector("[data-active]");
  if (status?.dataset.active !== "0") return;
  watch.disconnect();
  // Whoever is typing a reason keeps the page as it is.
  const typing = document.activeElement?.matches("input, textarea, select");
  if (!typing) location.reload();
}

const watch = new MutationObserver(settle);

if (holder) {
  holder.addEventListener("toggle", (event) => {
    if (!event.target.id) return;
    if (event.target.open) opened.add(event.target.id);
    else if (event.target.isConnected) opened.delete(event.target.id);
  }, true);
  watch.observe(holder, { childList: true });
}
