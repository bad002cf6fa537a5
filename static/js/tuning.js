// The draft: rows of the glossary come and go, and what is typed but not saved survives leaving.

const form = document.querySelector("[data-draft]");
const glossary = document.querySelector("[data-glossary]");
const dirty = form.querySelector("[data-dirty]");
const key = form.dataset.draftKey;
const KEPT = new Set(["csrfmiddlewaretoken", "seen", "active", "query", "text", "reason"]);

function values() {
  return [...new FormData(form)].filter(([name]) => !KEPT.has(name));
}

function saved() {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null");
  } catch {
    return null;
  }
}

function keep(data) {
  try {
    if (data) localStorage.setItem(key, JSON.stringify(data));
    else localStorage.removeItem(key);
  } catch {
    // No storage in this browser: leaving asks first instead.
  }
}

function rows() {
  return [...glossary.querySelectorAll("[data-glossary-row]")];
}

function addRow() {
  const row = rows().at(-1).cloneNode(true);
  for (const input of row.querySelectorAll("input")) input.value = "";
  glossary.append(row);
  number();
  return row;
}

function number() {
  rows().forEach((row, index) => {
    const [term, meaning] = row.querySelectorAll("input");
    term.setAttribute("aria-label", `Term ${index + 1}`);
    meaning.setAttribute("aria-label", `Meaning ${index + 1}`);
    row.querySelector("button").setAttribute("aria-label", `Remove term ${index + 1}`);
  });
}

function fill(pairs) {
  const terms = pairs.filter(([name]) => name === "term").map(([, value]) => value);
  const meanings = pairs.filter(([name]) => name === "meaning").map(([, value]) => value);
  while (rows().length < terms.length) addRow();
  rows().forEach((row, index) => {
    const [term, meaning] = row.querySelectorAll("input");
    term.value = terms[index] ?? "";
    meaning.value = meanings[index] ?? "";
  });
  for (const [name, value] of pairs) {
    if (name !== "term" && name !== "meaning" && form.elements[name]) form.elements[name].value = value;
  }
}

const initial = JSON.stringify(values());
const seen = form.elements.seen.value;

function changed() {
  const now = values();
  const isDirty = JSON.stringify(now) !== initial;
  dirty.textContent = isDirty ? "Not saved yet" : "";
  keep(isDirty ? { seen, values: now } : null);
}

glossary.classList.add("has-script");
const addButton = document.querySelector("[data-glossary-add]");
addButton.hidden = false;
addButton.addEventListener("click", () => addRow().querySelector("input").focus());
for (const button of glossary.querySelectorAll("[data-glossary-remove]")) button.hidden = false;
glossary.addEventListener("click", (event) => {
  const button = event.target.closest("[data-glossary-remove]");
  if (!button) return;
  const row = button.closest("[data-glossary-row]");
  const neighbour = row.nextElementSibling ?? row.previousElementSibling;
  if (rows().length > 1) row.remove();
  else for (const input of row.querySelectorAll("input")) input.value = "";
  number();
  (neighbour ?? glossary).querySelector("input")?.focus();
  changed();
});

// Kept values belong to the draft they were typed over; an answer with errors shows them itself.
const kept = saved();
const hasErrors = form.querySelector(".notice-error") !== null;
if (kept && kept.seen === seen && !hasErrors) {
  fill(kept.values);
  changed();
  const notice = form.querySelector("[data-restored]");
  notice.hidden = false;
  notice.querySelector("[data-forget]").addEventListener("click", () => {
    keep(null);
    location.reload();
  });
} else if (kept && kept.seen !== seen) {
  keep(null);
}

form.addEventListener("input", changed);
form.addEventListener("submit", () => keep(null));
