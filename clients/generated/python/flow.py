"""What a Python program makes of the client that openapi-generator writes.

Argument: the server's URL.
"""

import sys

import openapi_client as memoryd


def main(url: str) -> None:
    """Use each kind of route."""
    with memoryd.ApiClient(memoryd.Configuration(host=url)) as client:
        store, jobs = memoryd.StoreApi(client), memoryd.JobsApi(client)
        item = {"namespace": ["py"], "key": "food", "value": {"text": "ramen"}}
        store.put_item(memoryd.PutItem(**item, index=False))
        store.put_item(memoryd.PutItem(**item, index=["text"]))
        print("get:", store.get_item(namespace="py", key="food").value["text"])
        print("miss:", store.get_item(namespace="py", key="none"))
        asked = memoryd.SearchItems(namespace_prefix=["py"], filter={"text": "ramen"})
        print("search:", memoryd.SearchApi(client).search_items(asked).items[0].key)
        config = memoryd.ManagerConfig(strategy="verbatim", namespace=["py", "{user}"])
        memoryd.ManagersApi(client).put_manager("py", config)
        messages = [memoryd.ConversationMessage(role="user", content="I love ramen.")]
        by_name = memoryd.ExtractRequest(manager="py", variables={"user": "ann"}, messages=messages)
        job = jobs.extract_memories(by_name, prefer="wait=20")
        print("extract by name:", job.state.value, job.result.actual_instance.kind.value)
        inline = memoryd.ExtractRequest(
            manager_config=memoryd.ManagerConfig(strategy="verbatim"),
            namespace=["py", "bob"],
            messages=messages,
        )
        job = jobs.extract_memories(inline, prefer="wait=20")
        print("extract inline:", job.state.value, job.result.actual_instance.kind.value)
        get = memoryd.GetOperation(op="get", namespace=["py"], key="food")
        put = memoryd.PutOperation(op="put", namespace=["py"], key="pet", value={"n": 1})
        operations = [memoryd.BatchOperation(get), memoryd.BatchOperation(put)]
        results = memoryd.BatchApi(client).run_batch(memoryd.Batch(operations=operations)).results
        print("batch:", results[0].item.key, results[1].op)
        try:
            store.put_item(memoryd.PutItem.model_construct(**{**item, "namespace": []}))
        except memoryd.ApiException as error:
            print("problem:", error.status, error.data.errors[0].var_field)


if __name__ == "__main__":
    main(sys.argv[1])
