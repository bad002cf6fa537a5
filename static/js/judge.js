// Grades of hits without leaving the page. Without this module the same buttons reload it.

const live = document.querySelector("[data-live]");

function show(form, grade) {
  for (const button of form.querySelectorAll("[data-grade]")) {
    const pressed = button.dataset.grade === String(grade);
    button.setAttribute("aria-pressed", String(pressed));
    // Pressing the pressed one takes the judgment back.
    button.value = pressed ? "" : button.dataset.grade;
  }
}

// A grade is the document's, so every hit that is a passage of it shows the same one.
function ofSameDocument(form) {
  const all = [...document.querySelectorAll("[data-judge]")];
  return all.filter((each) => each.dataset.document === form.dataset.document);
}

async function send(form, button) {
  try {
    const response = await fetch(form.getAttribute("action"), {
      method: "POST",
      body: new FormData(form, button),
      headers: { Accept: "application/json" },
      credentials: "same-origin",
      redirect: "error",
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const answer = await response.json();
    for (const each of ofSameDocument(form)) show(each, answer.grade);
    if (live) live.textContent = answer.message;
  } catch {
    if (live) live.textContent = "The judgment could not be stored. Reload the page and try again.";
    form.dataset.failed = "";
    return;
  }
  delete form.dataset.failed;
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-judge]") || !event.submitter) return;
  event.preventDefault();
  send(event.target, event.submitter);
});
