// What a TypeScript program makes of the generated types: type-checked, then run.
// Arguments: URL of a server, a label.

import createClient from "openapi-fetch";
import type { components, paths } from "./api";

declare const process: { argv: string[] };

const [baseUrl, root] = process.argv.slice(2) as [string, string];
const client = createClient<paths>({ baseUrl });

type Item = components["schemas"]["Item"];
type Problem = components["schemas"]["Problem"];

const namespace = [root];
const body: components["schemas"]["PutItem"] = { namespace, key: "k", value: { n: 1 }, index: false };
const put = await client.PUT("/v1/store/items", { body });

const address = { namespace: root, key: "k" };
const hit = await client.GET("/v1/store/items", { params: { query: address } });
const item: Item | null | undefined = hit.data;

const miss = await client.GET("/v1/store/items", { params: { query: { ...address, key: "no" } } });

const search = await client.POST("/v1/store/items/search", {
  body: { namespace_prefix: namespace, filter: { n: { $gte: 1 } } },
});
const keys: string[] = search.data?.items.map((found) => found.key) ?? [];

const batch = await client.POST("/v1/store/batch", {
  body: {
    operations: [
      { op: "get", namespace, key: "k" },
      { op: "put", namespace, key: "other", value: {} },
    ],
  },
});
const [got, written] = batch.data?.results ?? [];
const gotKey: string | undefined = got?.item?.key;

const versions = await client.GET("/v1/store/items/versions", { params: { query: address } });
const actions = versions.data?.versions.map((version) => version.action) ?? [];
const firstAction: "put" | "patch" | "restore" | "delete" | "expire" | undefined = actions[0];

const invalid = await client.PUT("/v1/store/items", { body: { ...body, namespace: [] } });
const problem: Problem | undefined = invalid.error;

// @ts-expect-error: an item needs a key
const incomplete: components["schemas"]["PutItem"] = { namespace, value: {} };

const deleted = await client.DELETE("/v1/store/items", { body: { namespace, key: "k" } });

const managers = { params: { path: { name: root } } };
const config: components["schemas"]["ManagerConfig"] = {
  namespace: [root, "{user_id}"],
  strategy: "verbatim",
  kinds: [{ name: "memory" }, { name: "dish", schema: { type: "object" } }],
};
const stored = await client.PUT("/v1/managers/{name}", { ...managers, body: config });
const version: number | undefined = stored.data?.version;

// @ts-expect-error: there is no such strategy
const misspelt: components["schemas"]["ManagerConfig"] = { strategy: "verbatm" };

const variables = { user_id: "ann" };
const messages: components["schemas"]["ConversationMessage"][] = [
  { role: "user", content: "I love ramen." },
  { role: "assistant", content: [{ type: "text", text: "Noted." }] },
];
const extracted = await client.POST("/v1/jobs/extract", {
  params: { header: { Prefer: "wait=20" } },
  body: { manager: root, variables, messages },
});
const job: components["schemas"]["Job"] | undefined = extracted.data;
const listed = await client.GET("/v1/jobs", {
  params: { query: { namespace: root, state: "succeeded" } },
});
const changes = await client.GET("/v1/jobs/{job_id}/changes", {
  params: { path: { job_id: job?.id ?? "" } },
});
const actionsOfJob = changes.data?.changes.map((change) => [change.action, change.state]);

const thread = { path: { thread_id: `${root}/chat` } };
const appended = await client.POST("/v1/threads/{thread_id}/messages", {
  params: thread,
  body: { manager: root, variables, messages, after_seconds: 0.5 },
});
const formation = appended.data?.job_id;

// Server-sent events need no library: a response's body is a stream of text.
const followed = await fetch(`${baseUrl}/v1/jobs/${formation}/events`, {
  headers: { "Last-Event-ID": "1" },
});
const events: { event: string; at: string }[] = (await followed.text())
  .split("\n")
  .filter((line) => line.startsWith("data: "))
  .map((line) => JSON.parse(line.slice("data: ".length)));

const read = await client.GET("/v1/threads/{thread_id}", { params: thread });
const flushed = await client.POST("/v1/threads/{thread_id}/flush", { params: thread });
const nothing = flushed.data?.job;
const missed = await client.POST("/v1/jobs/{job_id}/retry", { params: { path: { job_id: "no" } } });

console.log(
  JSON.stringify({
    version,
    job,
    jobs: listed.data?.jobs.map((one) => one.id),
    actionsOfJob,
    appended: appended.data?.appended,
    stream: followed.headers.get("content-type"),
    events: events.map((one) => one.event),
    extractedUntil: read.data?.extracted_until,
    nothing,
    missed: missed.error?.code,
    put: put.response.status,
    etag: put.response.headers.get("etag"),
    item,
    miss: miss.data,
    keys,
    gotKey,
    written,
    firstAction,
    problem,
    deleted: deleted.response.status,
  }),
);
