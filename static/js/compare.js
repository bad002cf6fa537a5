// The before/after picture: one line of text follows the pointer or the focus, and the arrow keys
// walk through the places. Highlighting itself is CSS.

const items = (picture) => [...picture.querySelectorAll(".compare-item")];

function read(item) {
  const readout = item.closest("[data-compare]")?.querySelector("[data-readout]");
  if (!readout) return;
  readout.textContent = item.dataset.sentence;
  readout.hidden = false;
}

for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const item = event.target.closest?.(".compare-item");
    if (item) read(item);
  });
}

document.addEventListener("pointerout", (event) => {
  const figure = event.target.closest?.("[data-compare]");
  const to = event.relatedTarget?.closest?.(".compare-picture");
  if (figure && !to && !figure.contains(document.activeElement)) {
    figure.querySelector("[data-readout]").hidden = true;
  }
});

document.addEventListener("keydown", (event) => {
  const item = event.target.closest?.(".compare-item");
  if (!item || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
  event.preventDefault();
  const all = items(item.closest(".compare-picture"));
  all[all.indexOf(item) + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
});
