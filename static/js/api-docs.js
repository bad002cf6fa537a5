// The page of the API: calls made from it, with a key that is kept nowhere.

const key = document.querySelector("#api-key");
document.querySelector("[data-key-field]").hidden = false;

for (const operation of document.querySelectorAll("[data-operation]")) {
  const form = operation.querySelector("[data-try]");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(operation, form);
  });
}

openNamed();
window.addEventListener("hashchange", openNamed);

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) named.open = true;
}

async function send(operation, form) {
  const told = form.querySelector("[data-told]");
  const shown = form.querySelector("[data-answer]");
  const button = form.querySelector("button");
  if (!key.value.trim()) {
    told.textContent = "Type an API key first.";
    key.focus();
    return;
  }
  button.disabled = true;
  told.textContent = "Sent …";
  const began = performance.now();
  try {
    const response = await fetch(address(operation, form), options(operation, form));
    const text = await response.text();
    told.textContent = `${response.status} in ${Math.round(performance.now() - began)} ms`;
    shown.textContent = pretty(text);
    shown.hidden = !text;
  } catch {
    told.textContent = "The server did not answer.";
  } finally {
    button.disabled = false;
  }
}

function address(operation, form) {
  let path = operation.dataset.path;
  const query = new URLSearchParams();
  for (const input of form.querySelectorAll("[data-in]")) {
    const value = input.value.trim();
    if (input.dataset.in === "path") {
      path = path.replace(`{${input.name}}`, encodeURIComponent(value));
    } else if (value) {
      query.set(input.name, value.toLowerCase() === "false" ? "false" : value);
    }
  }
  const rest = query.toString();
  return rest ? `${path}?${rest}` : path;
}

function options(operation, form) {
  const headers = { Authorization: `Bearer ${key.value.trim()}` };
  const body = form.elements.body?.value ?? form.elements.file?.files[0];
  if (form.elements.body) headers["Content-Type"] = "application/json";
  if (form.elements.file) headers["Content-Type"] = "application/octet-stream";
  // A session never authenticates a call, so its cookie stays at home.
  return { method: operation.dataset.method, headers, body, credentials: "omit" };
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
