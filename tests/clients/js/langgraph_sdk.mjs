// Puts the unmodified JavaScript SDK of LangGraph through its store's calls and prints what
// came back as JSON, for test_langgraph_sdk_js.py to judge.
// Arguments: URL of an open server, URL of a locked one, a key that may only read, a label.

import { Client } from "@langchain/langgraph-sdk";

const [url, lockedUrl, readingKey, root] = process.argv.slice(2);

const store = new Client({ apiUrl: url, apiKey: null }).store;
const found = {};

async function errorOf(call) {
  try {
    return { answer: await call() };
  } catch (error) {
    return { name: error.constructor.name, status: error.status, message: error.message };
  }
}

const keysOf = ({ items }) => items.map((item) => item.key);
// JSON has no undefined, so a call that returned nothing is told apart from null by name.
const named = (value) => (value === undefined ? "undefined" : value);

async function roundTrip() {
  const at = [root, "round-trip"];
  found.put = named(await store.putItem(at, "k/1", { text: "Grüße 🌱", list: [1, null] }));
  found.item = await store.getItem(at, "k/1");
  found.deleted = named(await store.deleteItem(at, "k/1"));
  found.deletedAgain = named(await store.deleteItem(at, "k/1"));
  found.miss = named(await store.getItem(at, "k/1"));
}

async function nullOptions() {
  const at = [root, "nulls"];
  await store.putItem(at, "k", { text: "green tea" }, { index: null, ttl: null });
  const { items } = await store.searchItems(at, { query: "green tea", refreshTtl: null });
  found.nullIndex = items[0];
}

async function indexing() {
  const at = [root, "index"];
  const value = { title: "green tea", body: "black coffee" };
  await store.putItem(at, "none", value, { index: false });
  await store.putItem(at, "title", value, { index: ["title"] });
  await store.putItem(at, "body", value, { index: ["body"] });
  found.byTitle = await store.searchItems(at, { query: "green tea" });
}

async function lifetimes() {
  const at = [root, "ttl"];
  await store.putItem(at, "brief", { a: 1 }, { ttl: 0.005 });
  await store.putItem(at, "lasting", { a: 1 }, { ttl: 1.5 });
  const first = await store.getItem(at, "lasting", { refreshTtl: false });
  const untouched = await store.getItem(at, "lasting", { refreshTtl: false });
  await store.getItem(at, "lasting", { refreshTtl: true });
  const refreshed = await store.getItem(at, "lasting", { refreshTtl: null });
  await new Promise((resolve) => setTimeout(resolve, 400));
  found.expiries = [first, untouched, refreshed].map((item) => item.expires_at);
  found.expired = named(await store.getItem(at, "brief"));
  found.unexpired = keysOf(await store.searchItems(at));
}

async function searching() {
  const at = [root, "search"];
  for (const price of [2, 9, 10, 100]) {
    await store.putItem(at, String(price), { price, text: `tea ${price}` });
  }
  found.newestFirst = keysOf(await store.searchItems(at));
  found.filtered = keysOf(await store.searchItems(at, { filter: { price: { $gte: 10 } } }));
  found.pages = [];
  for (const offset of [0, 3]) {
    found.pages.push(keysOf(await store.searchItems(at, { query: "tea", limit: 3, offset })));
  }
}

async function namespaces() {
  for (const labels of [["a", "x"], ["a", "y"], ["b", "x"]]) {
    await store.putItem([root, "list", ...labels], "k", {});
  }
  const listed = async (options) => (await store.listNamespaces(options)).namespaces;
  const prefix = [root, "list"];
  found.namespaces = await listed({ prefix });
  found.suffixed = await listed({ prefix, suffix: ["x"] });
  found.wildcard = await listed({ prefix: [root, "list", "*", "x"] });
  found.shallow = await listed({ prefix, maxDepth: 3 });
}

async function errors() {
  found.invalid = await errorOf(() => store.putItem([], "k", {}));
  const stranger = new Client({ apiUrl: lockedUrl, apiKey: null }).store;
  found.unauthenticated = await errorOf(() => stranger.getItem(["a"], "k"));
  const reader = new Client({ apiUrl: lockedUrl, apiKey: readingKey }).store;
  found.allowed = named(await reader.getItem(["a"], "k"));
  found.forbidden = await errorOf(() => reader.putItem(["a"], "k", {}));
}

for (const part of [roundTrip, nullOptions, indexing, lifetimes, searching, namespaces, errors]) {
  await part();
}
console.log(JSON.stringify(found));
