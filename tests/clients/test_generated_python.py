"""A client that openapi-python-client generates from openapi.yaml, against a real server."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server

pytestmark = pytest.mark.slow

PACKAGE = "memoryd_generated_client"

GENERATOR = Path(sys.executable).parent / "openapi-python-client"

OPENAPI = Path(__file__).parents[2] / "openapi.yaml"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The generated package; a warning of the generator is a failure."""
    directory = tmp_path_factory.mktemp("generated")
    config = directory / "config.yaml"
    config.write_text("post_hooks: []\n")
    command = f"generate --path {OPENAPI} --config {config} --output-path {directory / PACKAGE}"
    options = ["--meta", "none", "--fail-on-warning"]
    subprocess.run([GENERATOR, *command.split(), *options], check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        yield import_module(PACKAGE)


@pytest.fixture(scope="module")
def server(working_server: Server) -> Server:
    """A server that does jobs."""
    return working_server


@pytest.fixture
def client(package: Any, server: Server) -> Iterator[Any]:
    with package.Client(base_url=server.url) as started:
        yield started


@pytest.fixture
def models(package: Any) -> Any:
    return import_module(f"{PACKAGE}.models")


def operation(tag: str, name: str) -> Any:
    return import_module(f"{PACKAGE}.api.{tag}.{name}")


@pytest.fixture
def put(client: Any, models: Any, root: str) -> Any:
    def put(key: str, value: dict[str, Any], **details: Any) -> Any:
        members = models.PutItemValue.from_dict(value)
        body = models.PutItem(namespace=[root], key=key, value=members, **details)
        return operation("store", "put_item").sync_detailed(client=client, body=body)

    return put


def test_put_and_get(client: Any, models: Any, root: str, put: Any) -> None:
    source = models.Source(thread_id="t1", position=3)
    written = put("k", {"text": "green tea"}, importance=0.5, source=source, index=False, ttl=1.5)
    assert written.status_code == 204
    assert written.parsed is None
    item = operation("store", "get_item").sync(client=client, namespace=root, key="k")
    assert isinstance(item, models.Item)
    assert item.value.additional_properties == {"text": "green tea"}
    assert (item.importance, item.source) == (0.5, source)
    assert written.headers["etag"] == f'"{item.version}"'
    assert item.expires_at > item.created_at == item.updated_at
    missed = operation("store", "get_item").sync_detailed(client=client, namespace=root, key="no")
    assert (missed.status_code, missed.parsed) == (200, None)


async def test_search(package: Any, server: Server, models: Any, root: str, put: Any) -> None:
    put("tea", {"text": "green tea", "price": 3}, index=["text"])
    put("coffee", {"text": "black coffee", "price": 9}, index=["text"])
    condition = models.SearchItemsFilter.from_dict({"price": {"$lt": 5}})
    by_query = models.SearchItems(namespace_prefix=[root], query="green tea")
    by_filter = models.SearchItems(namespace_prefix=[root], filter_=condition)
    search = operation("search", "search_items").asyncio
    async with package.Client(base_url=server.url) as client:
        found = await search(client=client, body=by_query)
        filtered = await search(client=client, body=by_filter)
    assert [item.key for item in found.items] == ["tea", "coffee"]
    assert 0.7 < found.items[0].score < 0.8
    assert [(item.key, item.score) for item in filtered.items] == [("tea", None)]


def test_a_batch_returns_a_result_of_each_kind(
    client: Any, models: Any, root: str, put: Any
) -> None:
    put("k", {"n": 1}, index=False)
    body = models.Batch(
        operations=[
            models.GetOperation(op="get", namespace=[root], key="k"),
            models.SearchOperation(op="search", namespace_prefix=[root]),
            models.ListNamespacesOperation(op="list_namespaces", prefix=[root], counts=True),
            models.DeleteOperation(op="delete", namespace=[root], key="k"),
            models.SearchOperation(op="search", namespace_prefix=[root], limit=-1),
        ],
        atomic=False,
    )
    results = operation("batch", "run_batch").sync(client=client, body=body).results
    names = ["get", "search", "list_namespaces", "delete", "search"]
    assert [result.op for result in results] == names
    assert results[0].item.key == results[1].found.items[0].key == "k"
    assert (results[2].listed.namespaces, results[2].listed.counts) == ([[root]], [1])
    assert results[4].problem.errors[0].field == "limit"


def test_history_and_its_end(client: Any, models: Any, root: str, put: Any) -> None:
    put("k", {"n": 1}, index=False)
    body = models.DeleteItem(namespace=[root], key="k")
    deleted = operation("store", "delete_item").sync_detailed(client=client, body=body)
    assert deleted.status_code == 204
    history = operation("store", "list_item_versions").sync(client=client, namespace=root, key="k")
    end, start = history.versions
    assert (end.action, end.value) == (models.ItemVersionAction.DELETE, None)
    assert (start.action, start.value.to_dict()) == (models.ItemVersionAction.PUT, {"n": 1})


def test_errors_are_problems(client: Any, models: Any, root: str, put: Any) -> None:
    invalid = put("k", {}, ttl=-1)
    assert isinstance(invalid.parsed, models.Problem)
    assert (invalid.status_code, invalid.parsed.code) == (422, "invalid_request")
    assert invalid.parsed.errors[0].field == "ttl"
    put("k", {}, index=False)
    body = models.DeleteItem(namespace=[root], key="k")
    delete = operation("store", "delete_item").sync_detailed
    failed = delete(client=client, body=body, if_match='"999"')
    assert (failed.status_code, failed.parsed.code) == (412, "precondition_failed")
    assert failed.parsed["version"] == 1


@pytest.fixture
def manager(client: Any, models: Any, root: str) -> str:
    """The name of a stored manager that keeps what users say."""
    config = models.ManagerConfig(namespace=[root, "{user_id}"], strategy="verbatim")
    put = operation("managers", "put_manager").sync_detailed(client=client, name=root, body=config)
    assert (put.status_code, put.parsed.version) == (201, 1)
    return root


def said(models: Any, text: str, role: str = "user") -> Any:
    return models.ConversationMessage(role=role, content=text)


def extract(client: Any, models: Any, manager: str, text: str, **more: Any) -> Any:
    body = models.ExtractRequest(
        manager=manager,
        variables=models.ExtractRequestVariables.from_dict({"user_id": "ann"}),
        messages=[said(models, text), said(models, "Noted.", "assistant")],
    )
    submit = operation("jobs", "extract_memories").sync_detailed
    return submit(client=client, body=body, **more)


def test_managers(client: Any, models: Any, manager: str) -> None:
    found = operation("managers", "get_manager").sync(client=client, name=manager)
    assert found.config.namespace == [manager, "{user_id}"]
    page = operation("managers", "list_managers").sync(client=client, limit=1000)
    assert manager in [one.name for one in page.managers]
    put = operation("managers", "put_manager").sync
    schema = models.MemoryKindObjectSchema.from_dict({"type": "object"})
    kinds = [models.MemoryKind(name="memory"), models.MemoryKind(name="dish", schema=schema)]
    config = models.ManagerConfig(kinds=kinds, max_steps=2)
    assert put(client=client, name=manager, body=config).config.kinds == kinds


def test_a_job_is_submitted_with_waiting(client: Any, models: Any, manager: str) -> None:
    done = extract(client, models, manager, "I love ramen.", prefer="wait=20", idempotency_key="k")
    assert done.status_code == 200
    job = done.parsed
    assert (job.state, job.manager, job.namespace) == (
        models.State.SUCCEEDED,
        manager,
        [manager, "ann"],
    )
    assert job.result.counts.inserted == 2
    assert (job.error, job.usage.model_calls, job.usage.cost_usd) == (None, 0, 0.0)
    assert job.created_at <= job.started_at <= job.finished_at
    again = extract(client, models, manager, "I love ramen.", idempotency_key="k").parsed
    assert again.id == job.id
    other = extract(client, models, manager, "I love soba.", idempotency_key="k")
    assert (other.status_code, other.parsed.code) == (409, "idempotency_key_reused")


def test_jobs_are_listed_and_their_changes_read(client: Any, models: Any, manager: str) -> None:
    job = extract(client, models, manager, "I love ramen.", prefer="wait=20").parsed
    query = {"namespace": manager, "state": models.ListJobsState.SUCCEEDED, "limit": 5}
    listed = operation("jobs", "list_jobs").sync(client=client, **query)
    assert ([one.id for one in listed.jobs], listed.next_cursor) == ([job.id], None)
    page = operation("jobs", "list_job_changes").sync(client=client, job_id=job.id, limit=1)
    (change,) = page.changes
    assert (change.state, change.value_before, change.number) == ("applied", None, 1)
    assert change.value["content"] == {"role": "user", "text": "I love ramen."}
    undone = operation("jobs", "undo_job").sync(client=client, job_id=job.id)
    assert undone.result.undo.counts == models.UndoCounts(undone=2, skipped=0)
    refused = operation("jobs", "cancel_job").sync_detailed(client=client, job_id=job.id)
    assert (refused.status_code, refused.parsed.code) == (409, "job_state")


def test_a_thread_is_appended_to_flushed_and_read(client: Any, models: Any, manager: str) -> None:
    thread = {"client": client, "thread_id": f"{manager}/chat 1"}
    body = models.AppendMessages(
        manager=manager,
        variables=models.AppendMessagesVariables.from_dict({"user_id": "ann"}),
        messages=[said(models, "I moved to Kyoto.")],
        after_seconds=60.0,
    )
    appended = operation("threads", "append_messages").sync(**thread, body=body)
    assert (appended.appended, appended.pending, appended.conflicting) == (1, 1, [])
    job = operation("threads", "flush_thread").sync(**thread, prefer="wait=20").job
    assert (job.id, job.state) == (appended.job_id, models.State.SUCCEEDED)
    assert operation("threads", "flush_thread").sync(**thread) == models.FlushedThread(job=None)
    found = operation("threads", "get_thread").sync(**thread)
    assert (found.messages, found.extracted_until, found.summary) == (1, 1, None)
    page = operation("threads", "list_messages").sync(**thread, limit=1)
    assert page.messages[0].message["content"] == "I moved to Kyoto."
    assert operation("threads", "delete_thread").sync_detailed(**thread).status_code == 204
    missed = operation("threads", "get_thread").sync_detailed(**thread)
    assert (missed.status_code, missed.parsed.code) == (404, "thread_not_found")


def test_without_a_model_a_summary_is_refused(client: Any, models: Any) -> None:
    body = models.SummarizeRequest(mode="extract", messages=[said(models, "Hi")])
    refused = operation("jobs", "summarize_conversation").sync_detailed(client=client, body=body)
    assert (refused.status_code, refused.parsed.code) == (422, "llm_not_configured")
