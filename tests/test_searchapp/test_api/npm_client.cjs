// The official client for Node against a running server, every method of it: node npm_client.cjs
// BASE_URL KEY PDF_IN_BASE64. Ends with status 0 and the names of the methods that were called.

const assert = require("node:assert/strict");
const fetch = require("node-fetch");
const ZeroEntropy = require("zeroentropy");

const [baseURL, apiKey, pdf] = process.argv.slice(2);
const RESOURCES = ["collections", "documents", "models", "queries", "status"];
const DOCUMENTS = ["The history of the violin.", "Water the tomato plants.", "Boats."];
const birds = { collection_name: "birds" };
const called = new Set();
const statuses = [];

async function counting(url, options) {
  const answer = await fetch(url, options);
  statuses.push(answer.status);
  return answer;
}

function recorded(client) {
  for (const name of RESOURCES) {
    const resource = client[name];
    for (const method of methodsOf(resource)) {
      const own = resource[method].bind(resource);
      resource[method] = (...given) => {
        called.add(`${name}.${method}`);
        return own(...given);
      };
    }
  }
  return client;
}

function methodsOf(resource) {
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(resource));
  return names.filter((name) => name !== "constructor");
}

async function until(condition, what) {
  for (let tries = 0; tries < 600; tries++) {
    const found = await condition();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`waited in vain: ${what}`);
}

async function indexed(client, path) {
  return until(async () => {
    const { document } = await client.documents.getInfo({ ...birds, path, include_content: true });
    assert.ok(!document.index_status.endsWith("failed"), document.index_status);
    return document.index_status === "indexed" && document;
  }, `${path} indexed`);
}

async function collections(client) {
  assert.equal((await client.collections.add({ ...birds })).message, "Success!");
  await client.collections.add({ collection_name: "Vögel & Co. / 鳥" });
  const { collection_names: names } = await client.collections.getList({});
  assert.deepEqual(names, ["Vögel & Co. / 鳥", "birds"].sort());
  await client.collections.delete({ collection_name: "Vögel & Co. / 鳥" });
  assert.deepEqual((await client.collections.getList()).collection_names, ["birds"]);
}

async function documents(client) {
  const text = { type: "text", text: "A grey heron fishes in the pond. 😀" };
  const metadata = { place: "pond", "list:tags": ["bird"] };
  await client.documents.add({ ...birds, path: "heron", content: text, metadata });
  await client.documents.add({
    ...birds,
    path: "pages",
    content: { type: "text-pages", pages: ["Of gulls.", "Of owls that hunt at night."] },
  });
  await client.documents.add({
    ...birds,
    path: "loose",
    content: { type: "text-pages-unordered", pages: ["Of terns.", "Of wrens."] },
  });
  const file = { type: "auto", base64_data: pdf };
  await client.documents.add({ ...birds, path: "a/birds.pdf", content: file });
  const heron = await indexed(client, "heron");
  assert.equal(heron.content, text.text);
  assert.deepEqual(heron.metadata, metadata);
  const read = await indexed(client, "a/birds.pdf");
  assert.equal(read.num_pages, 2);
  assert.equal((await fetch(read.file_url)).status, 200);
  const { page } = await client.documents.getPageInfo({
    ...birds,
    path: "a/birds.pdf",
    page_index: 1,
    include_content: true,
  });
  assert.match(page.content, /owl/);
  assert.equal((await fetch(page.image_url)).headers.get("content-type"), "image/jpeg");
  await indexed(client, "pages");
  await indexed(client, "loose");

  // The client's own iterator drops `path_gt` where parameters are in the body, as here, and would
  // ask for the first page for ever, of any server.
  const paths = [];
  for (;;) {
    const after = paths.length ? { path_gt: paths[paths.length - 1] } : {};
    const page = await client.documents.getInfoList({ ...birds, limit: 3, ...after });
    if (page.getPaginatedItems().length === 0) break;
    paths.push(...page.documents.map((each) => each.path));
  }
  assert.deepEqual(paths, ["a/birds.pdf", "heron", "loose", "pages"]);

  await client.documents.update({ ...birds, path: "heron", metadata: { place: "sea" } });
  assert.deepEqual((await indexed(client, "heron")).metadata, { place: "sea" });
  const status = await client.status.getStatus({ ...birds });
  assert.equal(status.num_documents, 4);
  assert.equal(status.num_indexed_documents, 4);
  assert.equal((await client.status.getStatus()).num_documents, 4);
}

async function queries(client) {
  const asked = { ...birds, query: "which bird fishes", k: 2 };
  const found = await client.queries.topDocuments({ ...asked, include_metadata: true });
  assert.equal(found.results[0].path, "heron");
  assert.deepEqual(found.results[0].metadata, { place: "sea" });
  const filtered = await client.queries.topDocuments({
    ...asked,
    filter: { $and: [{ place: { $eq: "sea" } }] },
    reranker: "default",
  });
  assert.deepEqual(filtered.results.map((each) => each.path), ["heron"]);
  const pages = await client.queries.topPages({
    ...birds,
    query: "owls at night",
    k: 1,
    include_content: true,
  });
  assert.equal(pages.results[0].page_index, 1);
  assert.match(pages.results[0].content, /owl/);
  const snippets = await client.queries.topSnippets({ ...asked, precise_responses: true });
  assert.match(snippets.results[0].content, /heron/);
  assert.equal(snippets.results[0].path, "heron");
}

async function models(client) {
  const query = "when to water tomatoes";
  const ranked = await client.models.rerank({ model: "zerank-2", query, documents: DOCUMENTS });
  assert.equal(ranked.results.length, 3);
  assert.equal(ranked.results[0].index, 1);
  const made = await client.models.embed({
    model: "default",
    input: DOCUMENTS,
    input_type: "document",
  });
  assert.equal(made.results.length, 3);
  const packed = await client.models.embed({
    model: "default",
    input: DOCUMENTS[0],
    input_type: "document",
    encoding_format: "base64",
  });
  const bytes = Buffer.from(packed.results[0].embedding, "base64");
  assert.ok(Math.abs(bytes.readFloatLE(0) - made.results[0].embedding[0]) < 1e-3);
}

async function errors(client) {
  const text = { type: "text", text: "Again." };
  const wrong = recorded(new ZeroEntropy({ apiKey: "podium_wrong", baseURL, maxRetries: 0 }));
  const { delete: remove, getInfo } = client.documents;
  for (const [call, kind, status] of [
    [() => wrong.status.getStatus({}), ZeroEntropy.AuthenticationError, 401],
    [() => getInfo({ ...birds, path: "none" }), ZeroEntropy.NotFoundError, 404],
    [() => client.documents.add({ ...birds, path: "x" }), ZeroEntropy.UnprocessableEntityError, 422],
    [
      () => client.queries.topSnippets({ ...birds, query: "q", k: 100000 }),
      ZeroEntropy.BadRequestError,
      400,
    ],
    [
      () => client.documents.add({ ...birds, path: "heron", content: text }),
      ZeroEntropy.ConflictError,
      409,
    ],
  ]) {
    statuses.length = 0;
    const error = await call().then(() => null, (failure) => failure);
    assert.ok(error instanceof kind, `${status}: ${error}`);
    assert.equal(error.status, status);
    assert.ok(error.error.detail);
    // None of them is worth another try, and the client is told so: also of the 409.
    assert.ok(statuses.length <= 1, `${status}: ${statuses}`);
  }
  assert.equal((await remove({ ...birds, path: ["heron", "pages"] })).deleted_paths.length, 2);
  await remove({ ...birds, path: "loose" });
}

// The server gives 60 slow pairs a minute here: the second call has to wait, and does.
async function patience(client) {
  const many = { model: "default", query: "q", documents: Array(59).fill("d"), latency: "slow" };
  await client.models.rerank(many);
  statuses.length = 0;
  await client.models.rerank({ ...many, documents: ["a", "b", "c"] });
  assert.deepEqual(statuses, [429, 200]);
}

async function main() {
  const client = recorded(new ZeroEntropy({ apiKey, baseURL, fetch: counting }));
  for (const part of [collections, documents, queries, models, errors, patience]) {
    await part(client);
  }
  await client.collections.delete({ ...birds });
  const all = RESOURCES.flatMap((name) =>
    methodsOf(client[name]).map((method) => `${name}.${method}`),
  );
  assert.deepEqual([...called].sort(), all.sort());
  process.stdout.write(JSON.stringify([...called].sort()));
}

// At once: the client keeps connections that node would wait for.
main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(1);
  },
);
