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
const gotKey: string | undefined = got && "key" in got ? got.key : undefined;

const versions = await client.GET("/v1/store/items/versions", { params: { query: address } });
const actions = versions.data?.versions.map((version) => version.action) ?? [];
const firstAction: "put" | "patch" | "restore" | "delete" | "expire" | undefined = actions[0];

const invalid = await client.PUT("/v1/store/items", { body: { ...body, namespace: [] } });
const problem: Problem | undefined = invalid.error;

// @ts-expect-error: an item needs a key
const incomplete: components["schemas"]["PutItem"] = { namespace, value: {} };

const deleted = await client.DELETE("/v1/store/items", { body: { namespace, key: "k" } });

console.log(
  JSON.stringify({
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
