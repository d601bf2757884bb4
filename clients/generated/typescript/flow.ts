// What a TypeScript program makes of the client that openapi-generator writes (typescript-fetch).
// Argument: the server's URL.

import {
  BatchApi, Configuration, JobsApi, ManagersApi, ResponseError, SearchApi, StoreApi,
} from "./client";

declare const process: { argv: string[] };

const configuration = new Configuration({ basePath: process.argv[2] });
const store = new StoreApi(configuration);
const jobs = new JobsApi(configuration);
const namespace = ["ts"];

async function main(): Promise<void> {
  const item = { namespace, key: "food", value: { text: "ramen" } };
  await store.putItem({ putItem: { ...item, index: false } });
  await store.putItem({ putItem: { ...item, index: ["text"] } });
  const read = await store.getItem({ namespace: "ts", key: "food" });
  console.log("get:", read?.value.text);
  const none = await store.getItem({ namespace: "ts", key: "none" });
  console.log("miss:", none);

  const found = await new SearchApi(configuration).searchItems({
    searchItems: { namespacePrefix: namespace, filter: { text: "ramen" } },
  });
  console.log("search:", found.items[0].key);

  await new ManagersApi(configuration).putManager({
    name: "ts",
    managerConfig: { strategy: "verbatim", namespace: ["ts", "{user}"] },
  });
  const messages = [{ role: "user", content: "I love ramen." }];
  const byName = await jobs.extractMemories({
    prefer: "wait=20",
    extractRequest: { manager: "ts", variables: { user: "ann" }, messages },
  });
  if (byName.result?.kind === "extract") {
    console.log("extract by name:", byName.state, byName.result.counts.unchanged + byName.result.counts.inserted);
  }
  const inline = await jobs.extractMemories({
    prefer: "wait=20",
    extractRequest: { managerConfig: { strategy: "verbatim" }, namespace: ["ts", "bob"], messages },
  });
  console.log("extract inline:", inline.state, inline.result?.kind);

  const batch = await new BatchApi(configuration).runBatch({
    batch: {
      operations: [
        { op: "get", namespace, key: "food" },
        { op: "put", namespace, key: "pet", value: { n: 1 } },
      ],
    },
  });
  console.log("batch:", batch.results[0].item?.key, batch.results[1].op);

  try {
    await store.putItem({ putItem: { ...item, namespace: [] } });
  } catch (error) {
    if (!(error instanceof ResponseError)) throw error;
    const problem = await error.response.json();
    console.log("problem:", error.response.status, problem.errors[0].field);
  }
}

main();
