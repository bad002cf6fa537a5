// The drop zone: files and folders, dropped or chosen, go in several small requests into one batch,
// two at a time. Without this module the form still uploads.

const AT_ONCE = 2;
const REQUEST_BYTES = 8 * 1024 * 1024;
const TRIES = 4;
const SHOWN = 6;

const form = document.querySelector("[data-upload]");

function megabytes(bytes) {
  if (bytes < 1024 * 1024) return `${Math.max(1, Math.round(bytes / 1024))} KB`;
  if (bytes < 1024 ** 3) return `${(bytes / 1024 ** 2).toFixed(bytes < 1024 ** 2 * 10 ? 1 : 0)} MB`;
  return `${(bytes / 1024 ** 3).toFixed(1)} GB`;
}

function number(count) {
  return count.toLocaleString("en");
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// --- what was dropped ---

function entriesOf(reader) {
  return new Promise((resolve, reject) => reader.readEntries(resolve, reject));
}

async function filesOfEntry(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, path: entry.fullPath.replace(/^\//, "") });
  } else if (entry.isDirectory) {
    const reader = entry.createReader();
    // A reader hands out its entries a hundred at a time and an empty list at the end.
    for (let some = await entriesOf(reader); some.length; some = await entriesOf(reader)) {
      for (const each of some) await filesOfEntry(each, found);
    }
  }
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, path: file.name }));
  const found = [];
  for (const entry of entries) await filesOfEntry(entry, found);
  return found;
}

function chosen(input) {
  return [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
}

// --- sending ---

class Sender {
  constructor() {
    this.box = document.querySelector("[data-sending]");
    this.list = this.box.querySelector("[data-sending-list]");
    this.queue = [];
    this.current = new Map();
    this.unsent = [];
    this.totals = { files: 0, bytes: 0, sentFiles: 0, sentBytes: 0 };
    this.running = 0;
    this.stopped = false;
    this.url = form.getAttribute("action");
    this.batch = form.elements.batch?.value ?? "";
    this.box.querySelector("[data-sending-stop]").addEventListener("click", () => this.stop());
  }

  get busy() {
    return this.queue.length > 0 || this.running > 0;
  }

  async add(files) {
    if (!this.busy) this.totals = { files: 0, bytes: 0, sentFiles: 0, sentBytes: 0 };
    this.stopped = false;
    this.queue.push(...files);
    this.totals.files += files.length;
    this.totals.bytes += files.reduce((sum, { file }) => sum + file.size, 0);
    this.draw();
    if (!(await this.open())) return;
    while (this.running < AT_ONCE && this.queue.length) this.work();
  }

  // One batch for everything dropped on this page; its address becomes the page's.
  async open() {
    if (this.batch) return true;
    this.opening ??= (async () => {
      const body = new FormData();
      body.set("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
      body.set("action", "open");
      const answer = await send(this.url, body, () => {}, this);
      if (answer.message) {
        refuse([...this.queue.map(({ path }) => ({ path, why: "" }))], `Nothing was sent. ${answer.message}`);
        this.unsent.push(...this.queue.splice(0));
        offerAgain(this);
        this.draw();
        this.opening = null;
        return false;
      }
      this.batch = answer.batch;
      const status = document.querySelector("[data-status-url]");
      if (status) {
        status.dataset.statusUrl = answer.status;
        history.replaceState(null, "", answer.url);
        document.querySelector(".drop-invitation").textContent = "Drop more files here";
      }
      this.page = answer.url;
      return true;
    })();
    return this.opening;
  }

  next() {
    const limit = Number(form.dataset.requestFiles);
    const group = [this.queue.shift()];
    let bytes = group[0].file.size;
    while (this.queue.length && group.length < limit && bytes + this.queue[0].file.size <= REQUEST_BYTES) {
      bytes += this.queue[0].file.size;
      group.push(this.queue.shift());
    }
    return { group, bytes };
  }

  async work() {
    this.running += 1;
    while (this.queue.length && !this.stopped) {
      const { group, bytes } = this.next();
      const body = new FormData();
      body.set("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
      body.set("batch", this.batch);
      for (const { file, path } of group) {
        body.append("path", path);
        body.append("files", file, file.name);
      }
      const key = Symbol("request");
      this.current.set(key, { group, loaded: 0 });
      const answer = await send(this.url, body, (loaded) => {
        this.current.get(key).loaded = Math.min(loaded, bytes);
        this.draw();
      }, this);
      this.current.delete(key);
      if (answer.message) {
        this.unsent.push(...group);
        refuse(group.map(({ path }) => ({ path, why: "" })), answer.message);
      } else {
        this.totals.sentFiles += group.length;
        this.totals.sentBytes += bytes;
        document.dispatchEvent(new CustomEvent("podium:sent"));
      }
      this.draw();
    }
    this.running -= 1;
    this.draw();
    if (this.busy) return;
    if (this.unsent.length) offerAgain(this);
    else if (!document.querySelector("[data-status-url]") && this.page) location.assign(this.page);
  }

  stop() {
    this.stopped = true;
    this.totals.files -= this.queue.length;
    this.totals.bytes -= this.queue.reduce((sum, { file }) => sum + file.size, 0);
    this.unsent.push(...this.queue.splice(0));
    if (this.unsent.length) {
      refuse(this.unsent.map(({ path }) => ({ path, why: "" })), "You stopped before these files were sent.");
      offerAgain(this);
    }
    this.draw();
  }

  draw() {
    const { totals } = this;
    const loaded = [...this.current.values()].reduce((sum, each) => sum + each.loaded, 0);
    this.box.hidden = !this.busy;
    const done = totals.sentBytes + loaded;
    this.box.querySelector("[data-sending-total]").value = totals.bytes ? (100 * done) / totals.bytes : 0;
    this.box.querySelector("[data-sending-summary]").textContent =
      `Sending: ${number(totals.sentFiles)} of ${number(totals.files)} files, ${megabytes(done)} of ${megabytes(totals.bytes)}. Stay on this page until they are sent.`;
    const rows = [];
    for (const { group, loaded: part } of this.current.values()) {
      let before = 0;
      for (const { file, path } of group) {
        const share = file.size ? Math.min(1, Math.max(0, (part - before) / file.size)) : 1;
        before += file.size;
        if (share < 1 && rows.length < SHOWN) rows.push({ path, share });
      }
    }
    this.list.replaceChildren(
      ...rows.map(({ path, share }) => {
        const row = document.createElement("li");
        const name = document.createElement("span");
        name.className = "truncate";
        name.textContent = path;
        const bar = document.createElement("progress");
        bar.max = 100;
        bar.value = 100 * share;
        bar.setAttribute("aria-label", path);
        row.append(name, bar);
        return row;
      }),
    );
  }
}

// One request, tried again while the connection fails. Answers the server's JSON; `message` says why not.
async function send(url, body, progressed, sender) {
  for (let attempt = 1; ; attempt += 1) {
    const { status, text } = await post(url, body, progressed);
    if (status === 200) {
      try {
        return JSON.parse(text);
      } catch {
        return { message: "Your sign-in has ended. Sign in again in another tab, then send them again." };
      }
    }
    if (status === 400) {
      try {
        return JSON.parse(text);
      } catch {
        return { message: "The server could not read the request." };
      }
    }
    if (status === 403 || status === 404) return { message: "You may no longer upload here. Reload the page to see why." };
    if (status === 507) return { message: "The disk of the server is full: these files were not stored. Tell the administrator, then send them again." };
    if (status === 413) return { message: "The server in front of Podium does not take requests of this size." };
    if (attempt >= TRIES || sender.stopped) {
      return { message: status ? `The server failed (status ${status}). Try again in a while.` : "The connection was lost before these files were sent." };
    }
    await pause(500 * 2 ** attempt);
  }
}

function post(url, body, progressed) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => progressed(event.loaded));
    request.addEventListener("loadend", () => resolve({ status: request.status, text: request.responseText }));
    request.send(body);
  });
}

// --- what is not sent ---

function refuse(files, sentence) {
  const box = document.querySelector("[data-refused]");
  box.hidden = false;
  box.querySelector("[data-refused-summary]").textContent = sentence;
  const list = box.querySelector("[data-refused-list]");
  const rows = files.slice(0, 100).map(({ path, why }) => {
    const row = document.createElement("li");
    row.textContent = why ? `${path}: ${why}` : path;
    return row;
  });
  if (files.length > 100) {
    const rest = document.createElement("li");
    rest.textContent = `and ${number(files.length - 100)} more`;
    rows.push(rest);
  }
  list.replaceChildren(...rows);
}

function offerAgain(sender) {
  const button = document.querySelector("[data-send-again]");
  button.hidden = false;
  button.onclick = () => {
    button.hidden = true;
    document.querySelector("[data-refused]").hidden = true;
    sender.add(sender.unsent.splice(0));
  };
}

function checked(files) {
  const limit = Number(form.dataset.fileBytes);
  const most = Number(form.dataset.fileCount);
  if (files.length > most) {
    refuse([], `These are ${number(files.length)} files; up to ${number(most)} can be dropped at once. Drop them in parts, or pack them into a zip.`);
    return [];
  }
  const tooLarge = files.filter(({ file }) => file.size > limit);
  if (tooLarge.length) {
    refuse(
      tooLarge.map(({ file, path }) => ({ path, why: megabytes(file.size) })),
      `${tooLarge.length === 1 ? "One file is" : `${number(tooLarge.length)} files are`} larger than the ${megabytes(limit)} allowed and not sent:`,
    );
  }
  return files.filter(({ file }) => file.size <= limit);
}

function begin(sender, files) {
  document.querySelector("[data-refused]").hidden = true;
  document.querySelector("[data-send-again]").hidden = true;
  if (!files.length) {
    refuse([], "There was no file in what you dropped.");
    return;
  }
  const fitting = checked(files);
  if (fitting.length) sender.add(fitting);
}

if (form) {
  const sender = new Sender();
  const input = form.querySelector("#files");
  const folder = form.querySelector("#folder");
  form.classList.add("has-script");
  form.querySelector("[data-folder]").hidden = false;
  form.querySelector("[data-choose-files]").addEventListener("click", () => input.click());
  form.querySelector("[data-choose-folder]").addEventListener("click", () => folder.click());
  for (const each of [input, folder]) {
    each.addEventListener("change", () => {
      if (each.files.length) begin(sender, chosen(each));
      each.value = "";
    });
  }
  let depth = 0;
  form.addEventListener("dragenter", () => form.classList.toggle("is-over", ++depth > 0));
  form.addEventListener("dragleave", () => form.classList.toggle("is-over", --depth > 0));
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    form.classList.remove("is-over");
    try {
      begin(sender, await dropped(event.dataTransfer));
    } catch {
      refuse([], "The browser could not read what you dropped. Choose the files instead.");
    }
  });
  // A file dropped beside the zone must not replace the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  window.addEventListener("beforeunload", (event) => {
    if (sender.busy) event.preventDefault();
  });
}
