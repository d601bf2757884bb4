import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from asyncpg import Record
from pydantic import SecretStr

from app.auth.access import ANONYMOUS
from app.changes.apply import ChangeApplier
from app.changes.review import ReviewService
from app.changes.undo import UndoService
from app.clock import FrozenClock, SystemClock
from app.config import Settings
from app.consolidation.plan import ConsolidatePlanner
from app.consolidation.schemas import ConsolidateRequest
from app.job_kinds import handlers
from app.jobs.record import State
from app.main import create_app
from app.namespaces import ALL_ROOTS, to_stored
from app.providers.embeddings.fake import FakeEmbedder
from app.providers.errors import UnavailableError
from app.providers.llm.base import Completion, Request
from app.providers.llm.pool import LLMPool
from app.resources import Resources, open_resources
from app.store.schemas import PutItem
from app.store.types import Address, Delete
from app.store.writer import ItemWriter
from tests.support.app import Store, running
from tests.support.jobs import enqueue, job_row, quick, settled, worker_of
from tests.support.jobs import working as working_on
from tests.support.llm_server import LLMServer, Received, Reply
from tests.support.llm_server import calls as script_calls
from tests.support.scripted_model import NOTHING, calls, delete, insert, says, update

pytestmark = pytest.mark.slow  # each waits for workers or models

ANA = ["users", "ana"]
BEN = ["users", "ben"]
MINUTE = timedelta(minutes=1)


class ScriptedLLM:
    """A model that gives its replies in order, and `no_change` after them."""

    name = "scripted:model"

    def __init__(self) -> None:
        self.script: deque[Completion | Callable[[], Any]] = deque()
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.requests.append(request)
        reply = self.script.popleft() if self.script else NOTHING
        if not isinstance(reply, Completion):
            await reply()
            reply = NOTHING if not self.script else await self.complete(request)
        return reply

    async def aclose(self) -> None: ...

    @property
    def shown(self) -> str:
        return self.requests[-1].messages[0].text


class RunningClock(SystemClock):
    """The machine's clock, which goes on by itself."""

    def advance(self, by: timedelta) -> None: ...


class Tidied:
    """A store of memories, and the jobs that consolidate them."""

    def __init__(
        self, resources: Resources, clock: FrozenClock | RunningClock, model: ScriptedLLM
    ) -> None:
        self.resources = resources
        self.clock = clock
        self.model = model
        self.writer = ItemWriter.build(resources)

    async def put(
        self, key: str, text: str, labels: list[str] = ANA, kind: str = "memory", **more: Any
    ) -> None:
        value = {"kind": kind, "content": {"content": text}}
        await self.put_value(key, value, labels, **more)

    async def put_value(
        self, key: str, value: dict[str, Any], labels: list[str] = ANA, **more: Any
    ) -> None:
        self.clock.advance(MINUTE)
        body = PutItem.model_validate({"namespace": labels, "key": key, "value": value, **more})
        await self.writer.put(ANONYMOUS, body.command(ANONYMOUS))

    async def delete(self, key: str, labels: list[str] = ANA) -> None:
        self.clock.advance(MINUTE)
        await self.writer.delete(ANONYMOUS, Delete(Address(to_stored(labels), key)))

    async def item(self, key: str, labels: list[str] = ANA) -> Any:
        sql = "SELECT * FROM items WHERE namespace = $1 AND key = $2"
        return next(iter(await self.rows(sql, to_stored(labels), key)), None)

    async def said(self, *keys: str, labels: list[str] = ANA) -> list[str | None]:
        """What memories say; None for those that are not there."""
        rows = [await self.item(key, labels) for key in keys]
        return [row and json.loads(row["value"])["content"]["content"] for row in rows]

    async def versions(self, key: str, labels: list[str] = ANA) -> list[Record]:
        sql = "SELECT * FROM item_versions WHERE namespace = $1 AND key = $2 ORDER BY version DESC"
        return await self.rows(sql, to_stored(labels), key)

    async def count(self, labels: list[str] = ANA) -> int:
        return len(await self.keys(labels))

    async def keys(self, labels: list[str] = ANA) -> list[str]:
        sql = "SELECT key FROM items WHERE namespace = $1 ORDER BY key"
        return [row["key"] for row in await self.rows(sql, to_stored(labels))]

    async def rows(self, sql: str, *arguments: Any) -> list[Record]:
        async with self.resources.database.connection(ALL_ROOTS) as connection:
            return list(await connection.fetch(sql, *arguments))

    async def submit(self, **request: Any) -> str:
        body = ConsolidateRequest.model_validate({"namespace": ["users"], **request})
        new = await ConsolidatePlanner.build(self.resources).plan_job(ANONYMOUS, body.to_command())
        return await enqueue(self.resources, new)

    async def consolidate(self, **request: Any) -> Record:
        """Do a job and those that follow it; return its row."""
        self.clock.advance(MINUTE)
        job_id = await self.submit(**request)
        async with working_on(worker_of(self.resources, handlers(self.resources))):
            done = last = await settled(self.resources.database, job_id)
            while last["result"] and (following := json.loads(last["result"])["follow_up_job_id"]):
                last = await settled(self.resources.database, following)
        return done

    async def result(self, **request: Any) -> dict[str, Any]:
        """Do a job that succeeds; return its result."""
        row = await self.consolidate(**request)
        assert row["state"] == State.SUCCEEDED, row["error"]
        found: dict[str, Any] = json.loads(row["result"])
        return found


def counts(**others: int) -> dict[str, int]:
    return {
        "inserted": 0, "updated": 0, "deleted": 0, "unchanged": 0, "rejected": 0, **others
    }  # fmt: skip


@pytest.fixture
async def tidied(
    database_url: str, embedder: FakeEmbedder, clock: FrozenClock
) -> AsyncIterator[Tidied]:
    settings = quick(Settings(database_url=database_url, database_pool_size=5, job_attempts=2))
    async with open_resources(settings, embedder=embedder, clock=clock) as resources:
        model = ScriptedLLM()
        llms = LLMPool(model.name, lambda _: model)
        yield Tidied(replace(resources, llms=llms), clock, model)


async def test_duplicates_become_one_without_a_model(tidied: Tidied) -> None:
    await tidied.put("a", "Ana likes tea.", importance=0.2)
    await tidied.put("b", "Ana lives in Porto")
    await tidied.put("c", "ana likes tea", importance=0.9)
    await tidied.put("d", "Ana likes the tea!", importance=0.4)
    result = await tidied.result(strategy="duplicates")
    assert result["counts"] == counts(updated=1, deleted=2, unchanged=1)
    assert result["compared"] == 4
    assert await tidied.keys() == ["a", "b"]
    assert await tidied.said("a") == ["Ana likes the tea!"]
    assert (await tidied.item("a"))["importance"] == 0.9
    assert tidied.model.requests == []
    assert [v["action"] for v in await tidied.versions("c")] == ["delete", "put"]


async def test_uses_of_a_duplicate_are_those_of_the_memory_it_became_one_with(
    tidied: Tidied,
) -> None:
    await tidied.put("a", "Ana likes tea")
    await tidied.put("b", "Ana likes tea")
    async with tidied.resources.database.connection("") as connection:
        await connection.execute(
            "INSERT INTO item_usage SELECT namespace, id, 3, updated_at FROM items"
        )
        await tidied.consolidate(strategy="duplicates")
        assert await connection.fetchval("SELECT array_agg(uses) FROM item_usage") == [6]


async def test_memories_of_two_namespaces_are_never_merged(tidied: Tidied) -> None:
    await tidied.put("a", "Likes tea", ANA)
    await tidied.put("b", "Likes tea", BEN)
    assert (await tidied.result(strategy="duplicates"))["counts"] == counts(unchanged=2)
    result = await tidied.result()
    assert result["counts"] == counts(unchanged=2)
    assert tidied.model.requests == []  # neither has a second memory to be compared with


async def test_a_model_merges_corrects_and_drops(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto")
    await tidied.put("b", "Ana likes tea")
    await tidied.put("c", "Ana enjoys drinking green tea")
    await tidied.put("d", "Ana moved to Lisbon")
    tidied.model.script += [
        calls(
            update("m2", "Ana likes tea, above all green tea"),
            delete("m3", "is in m2"),
            update("m1", "Ana lives in Lisbon"),
            delete("m4"),
        )
    ]
    row = await tidied.consolidate(
        manager_config={"max_change_share": 1, "instructions": "Mind places."}
    )
    result = json.loads(row["result"])
    assert result["counts"] == counts(updated=2, deleted=2)
    assert result | {"counts": None} == {
        "counts": None, "rejected": [], "strategy": "llm", "compared": 4, "batches": 1,
        "failed_batches": 0, "has_more": False, "follow_up_job_id": None,
    }  # fmt: skip
    assert await tidied.said("a", "b", "c", "d") == [
        "Ana lives in Lisbon", "Ana likes tea, above all green tea", None, None,
    ]  # fmt: skip
    assert [json.loads(v["value"])["content"] for v in await tidied.versions("a")] == [
        {"content": "Ana lives in Lisbon"},
        {"content": "Ana lives in Porto"},
    ]
    assert row["model_calls"] == 1
    assert "Mind places." in tidied.model.requests[0].system
    source = json.loads((await tidied.item("a"))["source"])
    assert (source["job_id"], source["model"]) == (row["id"], "scripted:model")


async def test_a_pattern_is_added_beside_its_episodes(tidied: Tidied) -> None:
    for number in range(3):
        await tidied.put(str(number), f"Ana ran {number + 5} km on a Sunday")
    tidied.model.script += [calls(insert("Ana runs on Sundays"))]
    assert (await tidied.result())["counts"] == counts(inserted=1, unchanged=3)
    assert await tidied.count() == 4


async def test_a_second_run_looks_at_nothing_and_says_so(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto")
    await tidied.put("b", "Ana lives in Lisbon")
    tidied.model.script += [calls(update("m1", "Ana lives in Lisbon"), delete("m2"))]
    await tidied.result()
    result = await tidied.result()
    assert (result["counts"], result["compared"], result["batches"]) == (counts(), 0, 0)
    assert len(tidied.model.requests) == 1


async def test_what_changed_is_looked_at_with_what_is_near_it(tidied: Tidied) -> None:
    for number in range(20):
        await tidied.put(str(number), f"The shelf number {number} of Ana has {number} figs")
    await tidied.put("new home", "Ben sings loudly")
    await tidied.result()
    await tidied.put("again", "Ben sings very loudly at home")
    result = await tidied.result()
    assert "very loudly at home" in tidied.model.shown
    assert "Ben sings loudly" in tidied.model.shown
    assert 2 <= result["compared"] < 10


async def test_everything_is_looked_at_again_when_asked_for(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto")
    await tidied.put("b", "Ana likes tea")
    await tidied.result()
    assert (await tidied.result(full=True))["compared"] == 2
    assert len(tidied.model.requests) == 2


async def test_everything_is_also_what_a_consolidation_wrote(tidied: Tidied) -> None:
    for number in range(4):
        await tidied.put(str(number), f"Ana has the number {number}")
    tidied.model.script += [calls(update("m1", "Ana has no number"), update("m4", "Ana has a 3"))]
    await tidied.result()
    assert (await tidied.result())["compared"] == 0
    tidied.model.requests.clear()
    await tidied.result(full=True, limit=2)
    assert len(tidied.model.requests) == 2  # the second by the job that follows
    assert "Ana has no number" in tidied.model.shown
    assert "Ana has a 3" in tidied.model.shown
    assert (await tidied.result())["compared"] == 0


async def test_what_one_strategy_wrote_is_new_to_the_other(tidied: Tidied) -> None:
    await tidied.put("a", "Ana likes tea")
    await tidied.put("b", "Ana hates tea")
    await tidied.result()
    await tidied.put("c", "Ana likes tea", importance=0.9)
    assert (await tidied.result(strategy="duplicates"))["counts"]["updated"] == 1
    assert (await tidied.result())["compared"] == 2


async def test_each_strategy_has_a_mark_of_its_own(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto")
    await tidied.put("b", "Ana likes tea")
    await tidied.result(strategy="duplicates")
    assert (await tidied.result(strategy="llm"))["compared"] == 2


async def test_what_is_beyond_the_limit_is_left_to_jobs_that_follow(tidied: Tidied) -> None:
    for number in range(5):
        await tidied.put(f"a{number}", f"Ana has the number {number}")
        await tidied.put(f"b{number}", f"ana has the number {number}.")
    row = await tidied.consolidate(strategy="duplicates", limit=3, full=True)
    result = json.loads(row["result"])
    assert result["has_more"] is True
    following, jobs = result["follow_up_job_id"], 1
    while following:
        row = await job_row(tidied.resources.database, following)
        assert row["state"] == State.SUCCEEDED
        following, jobs = json.loads(row["result"])["follow_up_job_id"], jobs + 1
    assert 2 <= jobs <= 4
    assert await tidied.keys() == [f"a{number}" for number in range(5)]


async def test_refused_text_and_cut_answers_fail_the_job_and_change_nothing(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto")
    await tidied.put("b", "Ana likes tea")
    for replies, reason in (
        ([says("No.", stop="refusal")], "the model refused"),
        ([says("Done!"), says("All fine.")], "text instead of calls"),
        ([says("", stop="length"), says("", stop="length")], "cut off"),
        ([says(""), says("")], "empty"),
    ):
        tidied.model.script += replies
        row = await tidied.consolidate()
        assert row["state"] == State.FAILED
        error = json.loads(row["error"])
        assert error["code"] == "consolidation_failed"
        assert reason in error["detail"]
    assert await tidied.said("a", "b") == ["Ana lives in Porto", "Ana likes tea"]
    assert (await tidied.result())["compared"] == 2  # the mark is where it was


async def test_a_merge_that_breaks_the_schema_deletes_nothing(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto")
    await tidied.put("b", "Ana lives in Porto, in Rua X")
    invalid = ("update_memory", {
        "id": "m1", "edits": [{"op": "replace", "path": "/content", "value": 5}]
    })  # fmt: skip
    tidied.model.script += [calls(invalid, delete("m2")), calls(invalid)]
    row = await tidied.consolidate(manager_config={"max_change_share": 1})
    assert row["state"] == State.FAILED
    assert await tidied.keys() == ["a", "b"]
    assert len(await tidied.versions("a")) == 1


async def test_a_batch_that_failed_is_told_and_the_others_stand(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto", ANA)
    await tidied.put("b", "Ana lives in Lisbon", ANA)
    await tidied.put("a", "Ben lives in Porto", BEN)
    await tidied.put("b", "Ben lives in Lisbon", BEN)
    tidied.model.script += [says("No.", stop="refusal"), calls(delete("m1"))]
    result = await tidied.result()
    assert result["counts"] == counts(deleted=1, unchanged=3, rejected=1)
    assert (result["batches"], result["failed_batches"]) == (2, 1)
    assert "refused" in result["rejected"][0]["reason"]
    assert await tidied.keys(ANA) == ["a", "b"]
    assert await tidied.keys(BEN) == ["b"]


async def test_pinned_memories_are_shown_and_never_touched(tidied: Tidied) -> None:
    await tidied.put("a", "Ana is allergic to nuts", pinned=True)
    await tidied.put("b", "Ana likes nuts")
    tidied.model.script += [calls(delete("m1"), update("m2", "Ana used to like nuts"))]
    result = await tidied.result()
    assert "allergic" in tidied.model.shown
    assert "only for reading, leave them as they are: m1." in tidied.model.requests[0].system
    assert result["counts"] == counts(updated=1, unchanged=1, rejected=1)
    assert result["rejected"] == [{"tool": "delete_memory", "reason": "the memory is pinned"}]
    assert await tidied.said("a", "b") == ["Ana is allergic to nuts", "Ana used to like nuts"]


async def test_a_pinned_memory_keeps_its_words_and_its_duplicate_ends(tidied: Tidied) -> None:
    await tidied.put("a", "ana likes tea!")
    await tidied.put("b", "Ana likes tea", pinned=True)
    await tidied.result(strategy="duplicates")
    assert await tidied.said("a", "b") == [None, "Ana likes tea"]
    assert len(await tidied.versions("b")) == 1


async def test_values_that_no_manager_wrote_are_shown_and_never_touched(tidied: Tidied) -> None:
    await tidied.put_value("x", {"theme": "dark", "size": 3})
    await tidied.put_value("y", {"theme": "dark", "size": 3})
    await tidied.put("a", "Ana likes tea")
    assert (await tidied.result(strategy="duplicates"))["counts"] == counts(unchanged=3)
    tidied.model.script += [calls(delete("m1"), delete("m2"))]
    result = await tidied.result()
    assert '"theme": "dark"' in tidied.model.shown
    assert result["counts"] == counts(unchanged=3, rejected=2)
    assert await tidied.keys() == ["a", "x", "y"]


async def test_memories_written_with_langmems_tools_are_tidied_in_their_own_shape(
    tidied: Tidied,
) -> None:
    await tidied.put_value("a", {"content": "Ana likes tea"})
    await tidied.put_value("b", {"content": "ana likes tea."})
    await tidied.put_value("c", {"content": "Ana lives in Porto"})
    await tidied.result(strategy="duplicates")
    assert await tidied.keys() == ["a", "c"]
    tidied.model.script += [calls(update("m2", "Ana lives in Lisbon"))]
    await tidied.result()
    assert json.loads((await tidied.item("c"))["value"]) == {"content": "Ana lives in Lisbon"}


async def test_messages_keep_their_places_in_a_conversation(tidied: Tidied) -> None:
    for position in range(3):
        await tidied.put_value(
            str(position),
            {"kind": "message", "content": {"role": "user", "text": "Yes."}},
            source={"thread_id": "t", "position": position},
        )
    assert (await tidied.result(strategy="duplicates"))["compared"] == 0
    assert await tidied.count() == 3


async def test_the_same_at_another_time_is_another_episode(tidied: Tidied) -> None:
    await tidied.put("a", "Ana ran a marathon", valid_from="2024-05-01T00:00:00Z")
    await tidied.put("b", "Ana ran a marathon", valid_from="2025-05-01T00:00:00Z")
    assert (await tidied.result(strategy="duplicates"))["counts"] == counts(unchanged=2)


async def test_a_reply_that_deletes_nearly_everything_waits_for_a_review(tidied: Tidied) -> None:
    for number in range(5):
        await tidied.put(str(number), f"Ana has the number {number}")
    tidied.model.script += [calls(*(delete(f"m{number}") for number in range(1, 6)))]
    row = await tidied.consolidate()
    assert row["state"] == State.AWAITING_REVIEW
    result = json.loads(row["result"])
    assert result["counts"] == counts(unchanged=0)
    assert result["proposed"] == {"inserted": 0, "updated": 0, "deleted": 5}
    assert await tidied.count() == 5


async def test_exact_duplicates_never_wait_for_a_review(tidied: Tidied) -> None:
    for number in range(8):
        await tidied.put(str(number), "Ana likes tea")
    assert (await tidied.result(strategy="duplicates"))["counts"] == counts(deleted=7, unchanged=1)


async def test_undo_brings_everything_back(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto", importance=0.7, source={"thread_id": "t"})
    await tidied.put("b", "Ana lives in Lisbon", valid_from="2025-05-01T00:00:00Z")
    await tidied.put("c", "Ana likes tea")
    before = [await tidied.item(key) for key in "abc"]
    tidied.model.script += [
        calls(update("m1", "Ana lives in Lisbon"), delete("m2"), insert("Ana is well"))
    ]
    row = await tidied.consolidate(manager_config={"max_change_share": 1})
    assert await tidied.count() == 3
    undone = await UndoService.build(tidied.resources).undo(ANONYMOUS, row["id"])
    assert undone.result_object["counts"] == json.loads(row["result"])["counts"]
    after = [await tidied.item(key) for key in "abc"]
    for name in ("value", "importance", "valid_from", "source", "pinned"):
        assert [item[name] for item in after] == [item[name] for item in before]
    assert await tidied.keys() == ["a", "b", "c"]


async def test_what_was_reviewed_and_applied_is_not_looked_at_again(tidied: Tidied) -> None:
    await tidied.put("a", "Ana likes tea", importance=0.1)
    await tidied.put("b", "Ana likes tea", importance=0.2)
    row = await tidied.consolidate(strategy="duplicates", apply="review")
    await ReviewService.build(tidied.resources).apply(ANONYMOUS, row["id"])
    assert await tidied.keys() == ["a"]
    assert (await tidied.result(strategy="duplicates"))["compared"] == 0


async def test_what_is_to_go_on_in_another_memory_is_not_deleted_without_it(tidied: Tidied) -> None:
    await tidied.put("a", "Ana likes tea")
    await tidied.put("b", "Ana likes coffee")
    tidied.model.script += [calls(update("m1", "Ana likes tea and coffee"), delete("m2"))]
    row = await tidied.consolidate(apply="review")
    await tidied.put("a", "Ana likes green tea")
    applied = await ReviewService.build(tidied.resources).apply(ANONYMOUS, row["id"])
    assert applied.result_object["counts"] == counts(rejected=2)
    assert await tidied.said("a", "b") == ["Ana likes green tea", "Ana likes coffee"]


async def test_duplicates_of_what_has_ended_meanwhile_are_not_deleted(tidied: Tidied) -> None:
    for key in "abc":
        await tidied.put(key, "Ana likes tea")
    row = await tidied.consolidate(strategy="duplicates", apply="review")
    await tidied.delete("a")
    applied = await ReviewService.build(tidied.resources).apply(ANONYMOUS, row["id"])
    assert applied.result_object["counts"] == counts(unchanged=1, rejected=2)
    assert await tidied.keys() == ["b", "c"]


async def test_every_change_waits_where_the_manager_says_so(tidied: Tidied) -> None:
    await tidied.put("a", "Ana likes tea")
    await tidied.put("b", "Ana likes tea")
    row = await tidied.consolidate(strategy="duplicates", apply="review")
    assert row["state"] == State.AWAITING_REVIEW
    assert await tidied.count() == 2


async def test_what_changes_while_the_model_thinks_is_left_for_the_next_run(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto", ANA)
    await tidied.put("b", "Ana lives in Lisbon", ANA)
    await tidied.put("a", "Ben lives in Porto", BEN)
    await tidied.put("b", "Ben lives in Lisbon", BEN)

    async def ana_writes() -> None:
        await tidied.put("b", "Ana lives in Faro", ANA)

    # The memory that made the model delete the other one is not what it was.
    tidied.model.script += [ana_writes, calls(delete("m1")), calls(delete("m1"))]
    result = await tidied.result()
    assert result["counts"] == counts(deleted=1, unchanged=3, rejected=1)
    assert result["rejected"] == [
        {"tool": "delete", "reason": "a memory on which it relies has changed"}
    ]
    assert await tidied.said("a", "b") == ["Ana lives in Porto", "Ana lives in Faro"]
    assert await tidied.keys(BEN) == ["b"]
    tidied.model.script += [calls(delete("m1"))]
    assert (await tidied.result())["counts"] == counts(deleted=1, unchanged=2)


async def test_a_duplicate_stays_where_the_other_one_ends_meanwhile(
    tidied: Tidied, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tidied.put("a", "Ana likes tea")
    await tidied.put("b", "Ana likes tea")
    apply = ChangeApplier.apply

    async def apply_late(*arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        await tidied.delete("a")
        await apply(*arguments, **options)

    monkeypatch.setattr(ChangeApplier, "apply", apply_late)
    result = await tidied.result(strategy="duplicates")
    assert result["counts"] == counts(unchanged=2, rejected=1)
    assert await tidied.keys() == ["b"]


async def test_batches_without_a_change_are_not_sent_again(tidied: Tidied) -> None:
    for number in range(50):
        await tidied.put(f"k{number}", f"The shelf {number} of Ana has {number} figs")
    assert (await tidied.result())["batches"] == 2
    await tidied.put("new", "The shelf 50 of Ana has 50 figs")
    assert (await tidied.result())["batches"] == 1


async def test_a_failing_provider_is_tried_again_and_changes_nothing(tidied: Tidied) -> None:
    await tidied.put("a", "Ana lives in Porto")
    await tidied.put("b", "Ana lives in Lisbon")

    async def fail() -> None:
        raise UnavailableError("scripted")

    tidied.model.script += [fail, calls(delete("m1"))]
    row = await tidied.consolidate()
    assert (row["state"], row["attempt"]) == (State.SUCCEEDED, 2)
    assert await tidied.keys() == ["b"]


async def test_a_transaction_under_way_holds_the_mark_back(
    database_url: str, embedder: FakeEmbedder
) -> None:
    settings = quick(Settings(database_url=database_url, database_pool_size=8))
    async with open_resources(settings, embedder=embedder) as resources:
        tidied = Tidied(resources, RunningClock(), ScriptedLLM())
        async with resources.database.transaction("") as writing:
            await writing.execute("SELECT 1")
            await tidied.put("a", "Ana likes tea")
            assert (await tidied.result(strategy="duplicates"))["compared"] == 1
            assert (await tidied.result(strategy="duplicates"))["compared"] == 1
            await tidied.put("a", "Ben sings", BEN)
            held = await tidied.result(strategy="duplicates", limit=1)
            assert (held["has_more"], held["follow_up_job_id"]) == (True, None)
        await tidied.delete("a", BEN)
        assert (await tidied.result(strategy="duplicates"))["compared"] == 1
        assert (await tidied.result(strategy="duplicates"))["compared"] == 0


async def test_writers_at_the_same_time_lose_nothing(
    database_url: str, embedder: FakeEmbedder
) -> None:
    settings = quick(Settings(database_url=database_url, database_pool_size=8))
    async with open_resources(settings, embedder=embedder) as resources:
        await consolidate_while_writing(Tidied(resources, RunningClock(), ScriptedLLM()))


async def consolidate_while_writing(tidied: Tidied) -> None:
    for number in range(6):
        await tidied.put(f"a{number}", f"Ana has the number {number}")
        await tidied.put(f"b{number}", f"Ana has the number {number}")
    written = [tidied.put(f"c{number}", f"Ana has the number {number}") for number in range(6)]
    await asyncio.gather(tidied.consolidate(strategy="duplicates"), *written)
    await tidied.consolidate(strategy="duplicates")
    assert await tidied.keys() == [f"a{number}" for number in range(6)]


@pytest.fixture
async def working(
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


async def test_memories_are_tidied_up_and_brought_back_over_http(
    working: httpx2.AsyncClient, llm: LLMServer
) -> None:
    store = Store(working)
    for key, text in (("a", "Ana lives in Porto"), ("b", "Ana moved to Lisbon")):
        await store.put(ANA, key, {"kind": "memory", "content": {"content": text}})
    llm.script += [script_calls(update("m1", "Ana lives in Lisbon"), delete("m2", "is in m1"))]
    job = await done(working, "consolidate", namespace=["users"])
    assert job["result"]["counts"] == counts(updated=1, deleted=1)
    assert job["usage"]["model_calls"] == 1
    assert (await store.get(ANA, "a"))["value"]["content"]["content"] == "Ana lives in Lisbon"
    assert await store.get(ANA, "b") is None
    assert (await done(working, "consolidate", namespace=["users"]))["result"]["compared"] == 0
    assert len(llm.requests) == 1
    undone = await working.post(f"/v1/jobs/{job['id']}/undo")
    assert undone.status_code == 200
    assert (await store.get(ANA, "a"))["value"]["content"]["content"] == "Ana lives in Porto"
    assert (await store.get(ANA, "b"))["value"]["content"]["content"] == "Ana moved to Lisbon"


async def test_extracting_and_consolidating_at_once_loses_and_doubles_nothing(
    working: httpx2.AsyncClient, llm: LLMServer
) -> None:
    def respond(received: Received) -> Reply:
        said = re.search("<conversation>.*?(Ana has .*?)\n", received.last_user_text, re.DOTALL)
        return script_calls(insert(said[1]) if said else ("no_change", {"reason": "fine"}))

    llm.respond = respond
    texts = [f"Ana has the number {number}" for number in range(8)]
    extracts = [
        done(working, "extract", namespace=ANA, messages=[{"role": "user", "content": text}])
        for text in [*texts, *texts]
    ]
    strategies = ["duplicates", "llm"] * 3
    tidying = [done(working, "consolidate", namespace=["users"], strategy=s) for s in strategies]
    await asyncio.gather(*extracts, *tidying)
    await done(working, "consolidate", namespace=["users"], strategy="duplicates")
    found = await Store(working).search(["users"], limit=100)
    assert sorted(item["value"]["content"]["content"] for item in found) == texts
