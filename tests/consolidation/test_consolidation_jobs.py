import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from asyncpg import Record
from pydantic import SecretStr

from app.auth.access import ANONYMOUS
from app.changes.apply import ChangeApplier
from app.clock import FrozenClock
from app.config import Settings
from app.consolidation.plan import ConsolidatePlanner, ConsolidateRequest
from app.job_kinds import handlers
from app.jobs.record import State
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.providers.errors import RequestTooLongError, UnavailableError
from app.providers.llm import Completion, Request
from app.resources import open_resources
from tests.support.app import Store, running
from tests.support.extraction import ANA, Memories, counts
from tests.support.jobs import enqueue, job_row, quick, settled, worker_of, working
from tests.support.llm_server import LLMServer, Received, Reply
from tests.support.llm_server import calls as script_calls
from tests.support.scripted_model import calls, delete, insert, says, update

pytestmark = pytest.mark.slow  # each waits for workers or models

BEN = ["users", "ben"]


class Consolidations(Memories):
    """A database of memories, and workers that consolidate them."""

    async def submit(self, **request: Any) -> str:
        body = ConsolidateRequest.model_validate({"namespace": ["users"], **request})
        new = await ConsolidatePlanner.build(self.resources).plan_job(ANONYMOUS, body.to_command())
        return await enqueue(self.resources, new)

    async def consolidate_job(self, **request: Any) -> Record:
        """Run a job and those that follow it; return its row."""
        self.advance_clock()
        job_id = await self.submit(**request)
        async with working(worker_of(self.resources, handlers(self.resources))):
            done = last = await settled(self.resources.database, job_id)
            while last["result"] and (following := json.loads(last["result"])["follow_up_job_id"]):
                last = await settled(self.resources.database, following)
        return done

    async def consolidate(self, **request: Any) -> dict[str, Any]:
        """Run a job that succeeds; return its result."""
        row = await self.consolidate_job(**request)
        assert row["state"] == State.SUCCEEDED, row["error"]
        found: dict[str, Any] = json.loads(row["result"])
        return found

    async def text(self, key: str) -> str | None:
        """Return the text of a memory of Ana; None if it does not exist."""
        value = await self.value(key)
        return None if value is None else value["content"]["content"]


@pytest.fixture
async def memories(
    database_url: str, embedder: FakeEmbedder, clock: FrozenClock
) -> AsyncIterator[Consolidations]:
    settings = quick(Settings(database_url=database_url, database_pool_size=5, job_attempts=2))
    async with open_resources(settings, embedder=embedder, clock=clock) as resources:
        yield Consolidations(resources)


async def test_duplicates_become_one_without_a_model(memories: Consolidations) -> None:
    await memories.put("a", "Ana likes tea.", importance=0.2)
    await memories.put("b", "Ana lives in Porto")
    await memories.put("c", "ana likes tea", importance=0.9)
    await memories.put("d", "Ana likes the tea!", importance=0.4)
    await memories.put("e", {"content": "Ana sings"})  # as LangMem's tools write it
    await memories.put("f", {"content": "ana sings."})
    await memories.put("g", "ana runs!")
    await memories.put("h", "Ana runs", pinned=True)
    for key in "xy":
        said = {"kind": "message", "content": {"role": "user", "text": "Yes."}}
        await memories.put(key, said, source={"thread_id": "t", "position": ord(key)})
    await memories.rows("INSERT INTO item_usage SELECT namespace, id, 3, updated_at FROM items")
    result = await memories.consolidate(strategy="duplicates", manager_config=ANY_SHARE)
    assert result["counts"] == counts(updated=2, deleted=4, unchanged=2)
    assert result["compared"] == 8
    assert await memories.keys() == ["a", "b", "e", "h", "x", "y"]
    assert await memories.text("a") == "Ana likes the tea!"
    assert await memories.value("e") == {"content": "ana sings."}
    kept = await memories.get("a")
    assert kept["importance"] == 0.9
    assert (await memories.rows("SELECT max(uses) FROM item_usage"))[0][0] == 9  # of a, c, and d
    assert memories.model.requests == []
    assert [v["action"] for v in await memories.history("c")] == ["put", "delete"]
    assert len(await memories.history("h")) == 1


async def test_memories_of_two_namespaces_are_never_merged(memories: Consolidations) -> None:
    await memories.put("a", "Likes tea", ANA)
    await memories.put("b", "Likes tea", BEN)
    for strategy in ("duplicates", "llm"):
        result = await memories.consolidate(strategy=strategy)
        assert result["counts"] == counts(unchanged=2)
    assert memories.model.requests == []  # neither has a second memory to be compared with


async def test_a_model_merges_corrects_drops_and_adds(memories: Consolidations) -> None:
    await memories.put("a", "Ana lives in Porto", importance=0.7, source={"thread_id": "t"})
    await memories.put("b", "Ana likes tea", valid_from="2025-05-01T00:00:00Z")
    await memories.put("c", "Ana enjoys drinking green tea")
    await memories.put("d", "Ana moved to Lisbon")
    before = [await memories.get(key) for key in "abcd"]
    memories.model.script += [
        calls(
            update("m2", "Ana likes tea, above all green tea"),
            *(delete("m3", "is in m2"), update("m1", "Ana lives in Lisbon"), delete("m4")),
            insert("Ana is well"),
        )
    ]
    row = await memories.consolidate_job(
        manager_config={**ANY_SHARE, "instructions": "Mind places."}
    )
    result = json.loads(row["result"])
    assert result == {
        "counts": counts(inserted=1, updated=2, deleted=2),
        "rejected": [],
        "strategy": "llm",
        "compared": 4,
        "batches": 1,
        "failed_batches": 0,
        "has_more": False,
        "follow_up_job_id": None,
    }
    texts = ["Ana is well", "Ana likes tea, above all green tea", "Ana lives in Lisbon"]
    assert await memories.texts() == texts
    assert [json.loads(v["value"])["content"] for v in await memories.history("a")] == [
        {"content": "Ana lives in Porto"},
        {"content": "Ana lives in Lisbon"},
    ]
    assert row["model_calls"] == 1
    assert "Mind places." in memories.model.requests[0].system
    source = json.loads((await memories.get("a"))["source"])
    assert (source["job_id"], source["model"]) == (row["id"], "scripted:model")
    again = await memories.consolidate()
    assert (again["counts"], again["compared"], again["batches"]) == (counts(), 0, 0)
    assert len(memories.model.requests) == 1
    undone = await memories.undos.undo(ANONYMOUS, row["id"])
    assert undone.result_object["counts"] == result["counts"]
    assert await memories.keys() == ["a", "b", "c", "d"]
    after = [await memories.get(key) for key in "abcd"]
    for name in ("value", "importance", "valid_from", "source", "pinned"):
        assert [item[name] for item in after] == [item[name] for item in before]


async def test_a_changed_memory_is_compared_with_those_near_it(memories: Consolidations) -> None:
    for number in range(42):  # more than one batch
        text = f"The shelf number {number} of Ana has {number} figs".ljust(1_000, ".")
        await memories.put(str(number), text)
    await memories.put("new home", "Ben sings loudly")
    assert (await memories.consolidate())["batches"] == 2
    await memories.put("again", "Ben sings very loudly at home")
    result = await memories.consolidate()
    assert "very loudly at home" in memories.model.prompt
    assert "Ben sings loudly" in memories.model.prompt
    assert result["batches"] == 1
    assert 2 <= result["compared"] < 10


async def test_a_full_run_compares_even_what_it_wrote(memories: Consolidations) -> None:
    for number in range(4):
        await memories.put(str(number), f"Ana has the number {number}")
    memories.model.script += [calls(update("m1", "Ana has no number"), update("m4", "Ana has a 3"))]
    await memories.consolidate()
    assert (await memories.consolidate())["compared"] == 0
    memories.model.requests.clear()
    await memories.consolidate(full=True, limit=2)
    assert len(memories.model.requests) == 2  # the second by the job that follows
    assert "Ana has no number" in memories.model.prompt
    assert "Ana has a 3" in memories.model.prompt
    assert (await memories.consolidate())["compared"] == 0


async def test_each_strategy_has_a_mark_of_its_own(memories: Consolidations) -> None:
    await memories.put("a", "Ana likes tea")
    await memories.put("b", "Ana hates tea")
    await memories.consolidate(strategy="duplicates")
    assert (await memories.consolidate())["compared"] == 2
    await memories.put("c", "Ana likes tea", importance=0.9)
    result = await memories.consolidate(strategy="duplicates")
    assert result["counts"]["updated"] == 1
    assert (await memories.consolidate())["compared"] == 2  # that is new to the model


async def test_memories_beyond_the_limit_go_to_follow_up_jobs(memories: Consolidations) -> None:
    for number in range(5):
        await memories.put(f"a{number}", f"Ana has the number {number}")
        await memories.put(f"b{number}", f"ana has the number {number}.")
    row = await memories.consolidate_job(strategy="duplicates", limit=3, full=True)
    result = json.loads(row["result"])
    assert result["has_more"] is True
    following, jobs = result["follow_up_job_id"], 1
    while following:
        row = await job_row(memories.resources.database, following)
        assert row["state"] == State.SUCCEEDED
        following, jobs = json.loads(row["result"])["follow_up_job_id"], jobs + 1
    assert 2 <= jobs <= 4
    assert await memories.keys() == [f"a{number}" for number in range(5)]


INVALID = {"id": "m1", "edits": [{"op": "replace", "path": "/content", "value": 5}]}
ANY_SHARE = {"max_change_share": 1}


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([says("No.", stop="refusal")], "the model refused"),
        (
            [calls(("update_memory", INVALID), delete("m2")), calls(("update_memory", INVALID))],
            "content",
        ),
    ],
)
async def test_a_failed_consolidation_changes_nothing(
    memories: Consolidations, replies: list[Completion], reason: str
) -> None:
    await memories.put("a", "Ana lives in Porto")
    await memories.put("b", "Ana lives in Porto, in Rua X")
    memories.model.script += replies
    row = await memories.consolidate_job(manager_config={"max_change_share": 1})
    assert row["state"] == State.FAILED
    error = json.loads(row["error"])
    assert error["code"] == "consolidation_failed"
    assert reason in error["detail"]
    assert await memories.texts() == ["Ana lives in Porto", "Ana lives in Porto, in Rua X"]
    result = await memories.consolidate()
    assert result["compared"] == 2  # the mark did not move


async def test_a_batch_without_an_answer_is_asked_about_again_and_no_other(
    memories: Consolidations,
) -> None:
    for labels in (ANA, BEN):
        await memories.put("a", "She lives in Porto", labels)
        await memories.put("b", "She lives in Lisbon", labels)
    memories.model.script += [calls(delete("m1")), says("Done!"), says("")]
    memories.model.script += [calls(delete("m2"))]
    row = await memories.consolidate_job()
    assert (row["state"], row["attempt"]) == (State.SUCCEEDED, 2)
    assert [len(await memories.keys(labels)) for labels in (ANA, BEN)] == [1, 1]
    assert len(memories.model.requests) == 4


async def test_a_failed_batch_is_reported_and_the_others_stand(memories: Consolidations) -> None:
    await memories.put("a", "Ana lives in Porto", ANA)
    await memories.put("b", "Ana lives in Lisbon", ANA)
    await memories.put("a", "Ben lives in Porto", BEN)
    await memories.put("b", "Ben lives in Lisbon", BEN)
    memories.model.script += [says("No.", stop="refusal"), calls(delete("m1"))]
    result = await memories.consolidate()
    assert result["counts"] == counts(deleted=1, unchanged=3, rejected=1)
    assert (result["batches"], result["failed_batches"]) == (2, 1)
    assert "refused" in result["rejected"][0]["reason"]
    kept = [await memories.keys(labels) for labels in (ANA, BEN)]
    assert sorted(kept) == [["a", "b"], ["b"]]  # the batches are asked about at the same time


async def test_pinned_and_other_values_are_shown_and_never_touched(
    memories: Consolidations,
) -> None:
    await memories.put("a", "Ana is allergic to nuts", pinned=True)
    await memories.put("b", "Ana likes nuts")
    await memories.put("x", {"theme": "dark", "size": 3})
    await memories.put("y", {"theme": "dark", "size": 3})
    assert (await memories.consolidate(strategy="duplicates"))["counts"] == counts(unchanged=4)
    memories.model.script += [
        calls(delete("m1"), delete("m3"), update("m2", "Ana used to like nuts"))
    ]
    result = await memories.consolidate()
    assert "allergic" in memories.model.prompt
    assert '"theme": "dark"' in memories.model.prompt
    assert "only for reading, leave them as they are: m1" in memories.model.requests[0].system
    assert result["counts"] == counts(updated=1, unchanged=3, rejected=2)
    assert {rejected["tool"] for rejected in result["rejected"]} == {"delete_memory"}
    assert await memories.keys() == ["a", "b", "x", "y"]
    assert await memories.text("b") == "Ana used to like nuts"


async def test_deleting_nearly_everything_waits_for_a_review(memories: Consolidations) -> None:
    for number in range(5):
        await memories.put(str(number), f"Ana has the number {number}")
    memories.model.script += [calls(*(delete(f"m{number}") for number in range(1, 6)))]
    row = await memories.consolidate_job()
    assert row["state"] == State.AWAITING_REVIEW
    result = json.loads(row["result"])
    assert result["counts"] == counts(unchanged=0)
    assert result["proposed"] == {"inserted": 0, "updated": 0, "deleted": 5}
    assert len(await memories.keys()) == 5
    for number in range(5):  # exact duplicates need no review
        await memories.put(str(number), "Ana likes tea")
    result = await memories.consolidate(strategy="duplicates")
    assert result["counts"] == counts(deleted=4, unchanged=1)


async def test_nothing_is_deleted_if_its_merge_is_rejected(memories: Consolidations) -> None:
    await memories.put("a", "Ana likes tea")
    await memories.put("b", "Ana likes coffee")
    memories.model.script += [calls(update("m1", "Ana likes tea and coffee"), delete("m2"))]
    row = await memories.consolidate_job(apply="review")
    await memories.put("a", "Ana likes green tea")
    applied = await memories.reviews.apply(ANONYMOUS, row["id"])
    assert applied.result_object["counts"] == counts(rejected=2)
    assert [await memories.text(key) for key in "ab"] == ["Ana likes green tea", "Ana likes coffee"]
    for key in "cd":
        await memories.put(key, "Ana likes green tea")
    row = await memories.consolidate_job(strategy="duplicates", apply="review")
    await memories.delete("a")
    applied = await memories.reviews.apply(ANONYMOUS, row["id"])
    assert applied.result_object["counts"] == counts(unchanged=2, rejected=2)
    assert await memories.keys() == ["b", "c", "d"]
    row = await memories.consolidate_job(strategy="duplicates", apply="review", full=True)
    assert row["state"] == State.AWAITING_REVIEW
    await memories.reviews.apply(ANONYMOUS, row["id"])
    assert await memories.keys() == ["b", "c"]
    assert (await memories.consolidate(strategy="duplicates"))["compared"] == 0


async def test_memories_changed_meanwhile_wait_for_the_next_run(memories: Consolidations) -> None:
    await memories.put("a", "Ana lives in Porto", ANA)
    await memories.put("b", "Ana lives in Lisbon", ANA)
    await memories.put("a", "Ben lives in Porto", BEN)
    await memories.put("b", "Ben lives in Lisbon", BEN)

    async def ana_writes() -> None:
        await memories.put("b", "Ana lives in Faro", ANA)

    # The memory that made the model delete the other one is not what it was.
    memories.model.script += [ana_writes, calls(delete("m1")), calls(delete("m1"))]
    result = await memories.consolidate()
    assert result["counts"] == counts(deleted=1, unchanged=3, rejected=1)
    assert result["rejected"] == [
        {"tool": "delete", "reason": "a memory on which it relies has changed"}
    ]
    assert [await memories.text(key) for key in "ab"] == ["Ana lives in Porto", "Ana lives in Faro"]
    assert await memories.keys(BEN) == ["b"]
    memories.model.script += [calls(delete("m1"))]
    assert (await memories.consolidate())["counts"] == counts(deleted=1, unchanged=2)


async def test_a_duplicate_stays_if_the_other_is_deleted_meanwhile(
    memories: Consolidations, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memories.put("a", "Ana likes tea")
    await memories.put("b", "Ana likes tea")
    apply = ChangeApplier.apply

    async def apply_late(*arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        await memories.delete("a")
        await apply(*arguments, **options)

    monkeypatch.setattr(ChangeApplier, "apply", apply_late)
    result = await memories.consolidate(strategy="duplicates")
    assert result["counts"] == counts(unchanged=2, rejected=1)
    assert await memories.keys() == ["b"]


async def test_a_failing_provider_is_tried_again(memories: Consolidations) -> None:
    await memories.put("a", "Ana lives in Porto")
    await memories.put("b", "Ana lives in Lisbon")

    async def fail() -> None:
        raise UnavailableError("scripted")

    memories.model.script += [fail, calls(delete("m1"))]
    row = await memories.consolidate_job()
    assert (row["state"], row["attempt"]) == (State.SUCCEEDED, 2)
    assert await memories.keys() == ["b"]


@pytest.fixture
async def concurrent(database_url: str, embedder: FakeEmbedder) -> AsyncIterator[Consolidations]:
    """The same under the clock of the machine, and with connections for many at once."""
    settings = quick(Settings(database_url=database_url, database_pool_size=8))
    async with open_resources(settings, embedder=embedder) as resources:
        yield Consolidations(resources)


async def test_an_open_transaction_holds_the_mark_back(concurrent: Consolidations) -> None:
    async def compared() -> int:
        result = await concurrent.consolidate(strategy="duplicates")
        return int(result["compared"])

    async with concurrent.resources.database.transaction("") as transaction:
        await transaction.execute("SELECT 1")
        await concurrent.put("a", "Ana likes tea")
        assert [await compared(), await compared()] == [1, 1]
        await concurrent.put("a", "Ben sings", BEN)
        held = await concurrent.consolidate(strategy="duplicates", limit=1)
        assert (held["has_more"], held["follow_up_job_id"]) == (True, None)
    await concurrent.delete("a", BEN)
    assert [await compared(), await compared()] == [1, 0]


async def test_writers_at_the_same_time_lose_nothing(concurrent: Consolidations) -> None:
    texts = [f"Ana has the number {number}" for number in range(6)]
    for number, text in enumerate(texts):
        await concurrent.put(f"a{number}", text)
        await concurrent.put(f"b{number}", text)
    written = [concurrent.put(f"c{number}", text) for number, text in enumerate(texts)]
    await asyncio.gather(concurrent.consolidate(strategy="duplicates"), *written)
    await concurrent.consolidate(strategy="duplicates")
    assert await concurrent.keys() == [f"a{number}" for number in range(6)]


@pytest.fixture
async def client(
    database_url: str, llm: LLMServer, embedder: FakeEmbedder
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that does its jobs with a scripted model."""
    settings = Settings(
        database_url=database_url,
        database_pool_size=8,
        llm="openai:scripted",
        openai_api_key=SecretStr("key"),
        openai_base_url=llm.base_url_openai,
    )
    async with running(create_app(settings, embedder=embedder), worker=True) as client:
        yield client


async def done(client: httpx2.AsyncClient, kind: str, **body: Any) -> Any:
    """Submit a job; return it when it has succeeded."""
    response = await client.post(f"/v1/jobs/{kind}", json=body, headers={"Prefer": "wait=30"})
    assert response.status_code == 200, response.text
    assert response.json()["state"] == "succeeded", response.text
    return response.json()


async def test_memories_are_consolidated_and_restored_over_http(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    store = Store(client)
    for key, text in (("a", "Ana lives in Porto"), ("b", "Ana moved to Lisbon")):
        await store.put(ANA, key, {"kind": "memory", "content": {"content": text}})
    llm.script += [script_calls(update("m1", "Ana lives in Lisbon"), delete("m2", "is in m1"))]
    job = await done(client, "consolidate", namespace=["users"])
    assert job["result"]["counts"] == counts(updated=1, deleted=1)
    assert job["usage"]["model_calls"] == 1
    assert (await store.get(ANA, "a"))["value"]["content"]["content"] == "Ana lives in Lisbon"
    assert await store.get(ANA, "b") is None
    assert (await done(client, "consolidate", namespace=["users"]))["result"]["compared"] == 0
    assert len(llm.requests) == 1
    undone = await client.post(f"/v1/jobs/{job['id']}/undo")
    assert undone.status_code == 200
    assert (await store.get(ANA, "a"))["value"]["content"]["content"] == "Ana lives in Porto"
    assert (await store.get(ANA, "b"))["value"]["content"]["content"] == "Ana moved to Lisbon"


async def test_extractions_and_consolidations_at_once_lose_nothing(
    client: httpx2.AsyncClient, llm: LLMServer
) -> None:
    def respond(received: Received) -> Reply:
        said = re.search("<conversation>.*?(Ana has .*?)\n", received.last_user_text, re.DOTALL)
        return script_calls(insert(said[1]) if said else ("no_change", {"reason": "fine"}))

    llm.respond = respond
    texts = [f"Ana has the number {number}" for number in range(8)]
    extracts = [
        done(client, "extract", namespace=ANA, messages=[{"role": "user", "content": text}])
        for text in [*texts, *texts]
    ]
    strategies = ["duplicates", "llm"] * 3
    tidying = [done(client, "consolidate", namespace=["users"], strategy=s) for s in strategies]
    await asyncio.gather(*extracts, *tidying)
    await done(client, "consolidate", namespace=["users"], strategy="duplicates")
    found = await Store(client).search(["users"], limit=100)
    assert sorted(item["value"]["content"]["content"] for item in found) == texts


async def test_batches_that_are_too_long_are_halved(memories: Consolidations) -> None:
    for number in range(12):
        await memories.put(f"k{number}", f"Ana said {number}: " + "and so on " * 30)
    read: list[list[str]] = []

    async def respond(request: Request) -> Completion:
        shown = re.findall(r'<memory id="(\w+)".*?Ana said (\d+)', request.messages[0].text)
        if len(shown) > 3:
            raise RequestTooLongError("The prompt is too long.")
        read.append([number for _, number in shown])
        return calls(update(shown[0][0], f"Ana said all that {shown[0][1]}."))

    memories.model.respond = respond
    result = await memories.consolidate()
    assert (result["counts"]["updated"], result["batches"], result["failed_batches"]) == (4, 4, 0)
    assert sorted(int(number) for part in read for number in part) == list(range(12))


async def test_a_consolidated_memory_has_the_times_classes_and_keys_of_its_sources(
    memories: Consolidations,
) -> None:
    for key, month, source_class in (("a", 1, "user"), ("b", 5, "document"), ("c", 9, "tool")):
        said = f"2023-0{month}-01"
        of_source: dict[str, Any] = {
            "said_first": said,
            "said_last": said,
            "source_class": source_class,
        }
        await memories.put(key, f"Ana went hiking in month {month}", **of_source)
    memories.model.script.append(
        calls(
            update("m1", "Ana hikes", memory_ids=["m2"]),
            delete("m2"),
            insert("Ana went hiking again in September", memory_ids=["m3", "m1", "m9"]),
        )
    )
    await memories.consolidate()
    rows = {json.loads(row["value"])["content"]["content"]: row for row in await memories.stored()}
    for text, months, source_class, keys in (
        ("Ana hikes", (1, 5), "document", ["b"]),
        ("Ana went hiking again in September", (1, 9), "tool", ["c", "a"]),
    ):
        row = rows[text]
        assert (row["said_first"].month, row["said_last"].month) == months
        assert row["source_class"] == source_class
        assert json.loads(row["source"])["memory_keys"] == keys


async def test_stale_memories_are_taken_up_once_more(memories: Consolidations) -> None:
    await memories.put("a", "Ana hikes every month")
    await memories.put("b", "Ana hikes a lot", source={"memory_keys": ["a"]})
    await memories.put("c", "Ana hikes with Ben", source={"memory_keys": ["b"]})
    await memories.consolidate()
    memories.advance_clock()
    await memories.patch("a", value={"content": {"content": "Ana no longer hikes"}})
    assert [(await memories.get(key))["stale"] for key in "abc"] == [False, True, False]
    memories.advance_clock()
    await memories.consolidate(strategy="duplicates")
    assert (await memories.get("b"))["stale"]
    assert (await memories.consolidate())["counts"] == counts(unchanged=3)
    assert 'stale="true"' in memories.model.prompt
    assert not (await memories.get("b"))["stale"]
    calls_before = len(memories.model.requests)
    assert (await memories.consolidate())["compared"] == 0
    assert len(memories.model.requests) == calls_before


async def test_a_memory_takes_over_the_times_of_those_that_it_covers(
    memories: Consolidations,
) -> None:
    for key, month in (("a", 1), ("b", 5)):
        said = f"2023-0{month}-01"
        await memories.put(key, f"Ana hikes, as of {month}", said_first=said, said_last=said)
    covered = ("delete_memory", {"id": "m1", "reason": "the same", "covered_by": "m2"})
    memories.model.script.append(calls(covered))
    assert (await memories.consolidate())["counts"]["deleted"] == 1
    (row,) = await memories.stored()
    assert (row["version"], row["said_first"].month, row["said_last"].month) == (1, 1, 5)
