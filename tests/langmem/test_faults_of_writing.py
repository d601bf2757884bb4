"""What LangMem's managers lose on the way to a store, and what memoryd keeps."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel

from tests.langmem import ours, theirs
from tests.langmem.both import TALK
from tests.langmem.decisions import JSON, add
from tests.langmem.original import Asked, ChatModel, calling
from tests.langmem.ours import Memoryd
from tests.langmem.stores import CURSED, MEMORY, Store, manager_of, remembers, value
from tests.support.jobs import until
from tests.support.llm_server import Received, Reply, calls
from tests.support.load import at_once

pytestmark = pytest.mark.slow

TEA = "Ana likes tea."

REFUSE = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF strpos(NEW.value::text, '{CURSED}') > 0 THEN RAISE EXCEPTION 'refused'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse()
"""
ADMIT = "DROP TRIGGER refuse ON items; DROP FUNCTION refuse"


@asynccontextmanager
async def refusing(memoryd: Memoryd) -> AsyncIterator[None]:
    """Let the database refuse one memory, as LangMem's store does."""
    connection = await asyncpg.connect(memoryd.database_url)
    try:
        await connection.execute(REFUSE)
        yield
    finally:
        await connection.execute(ADMIT)
        await connection.close()


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice soon when a further attempt is due."""
    monkeypatch.setattr("app.jobs.worker.LOOK_SECONDS", 0.05)


async def test_a_failed_write_is_a_success_of_langmem_and_a_failed_job_of_memoryd(
    memoryd: Memoryd,
) -> None:
    store, namespace = Store(), ["failed", "ana"]
    (put,) = manager_of(store, ("Memory", {"content": CURSED})).invoke({"messages": TALK})
    assert put["value"] == value(CURSED)  # so it says
    assert await theirs.items(store, ["ana"]) == {}

    memoryd.llm.respond = lambda _: calls(remembers(CURSED))
    async with refusing(memoryd):
        job = await memoryd.job(
            "extract", messages=TALK, manager_config=MEMORY, namespace=namespace
        )
    assert (job["state"], job["result"]) == ("failed", None)
    assert job["attempt"] == job["max_attempts"]
    assert (await memoryd.retried(job["id"]))["state"] == "succeeded"
    assert list((await memoryd.items(namespace)).values()) == [value(CURSED)]


async def test_of_writes_that_fail_langmem_keeps_some_and_memoryd_none(memoryd: Memoryd) -> None:
    store, namespace = Store(), ["atomic", "ana"]
    manager = manager_of(store, ("Memory", {"content": TEA}), ("Memory", {"content": CURSED}))
    with pytest.raises(OSError, match="refused"):
        await manager.ainvoke({"messages": TALK})
    assert list((await theirs.items(store, ["ana"])).values()) == [value(TEA)]

    memoryd.llm.respond = lambda _: calls(remembers(TEA), remembers(CURSED))
    async with refusing(memoryd):
        job = await memoryd.job(
            "extract", messages=TALK, manager_config=MEMORY, namespace=namespace
        )
    assert job["state"] == "failed"
    assert await memoryd.items(namespace) == {}


class Likes(BaseModel):
    likes: list[str]


LIKES: JSON = {"kind": "Likes", "content": {"likes": ["fado"]}}
KINDS: JSON = {"kinds": [ours.kind(Likes)]}


def liking(word: str) -> list[JSON]:
    return [{"role": "user", "content": f"I like {word}."}]


def edits_for(text: str) -> list[JSON]:
    """Return what is to be done with a conversation: what it likes is added."""
    return [add("/likes/-", next(word for word in ("tea", "ska") if f"I like {word}." in text))]


def patch_of(asked: Asked) -> AIMessage:
    (id_,) = theirs.shown(asked)
    patch = {"json_doc_id": id_, "planned_edits": "-", "patches": edits_for(asked.text)}
    return calling(("PatchDoc", patch))


def update_of(received: Received) -> Reply:
    (id_,) = ours.shown(received)
    return calls(("update_memory", {"id": id_, "edits": edits_for(received.last_user_text)}))


async def test_of_two_updates_at_once_langmem_loses_one_and_memoryd_none(memoryd: Memoryd) -> None:
    store, namespace, words = theirs.store(), ["updates", "ana"], ("tea", "ska")
    await store.aput(("ana",), "likes", LIKES)
    both_have_read = threading.Barrier(2)

    def patch(asked: Asked) -> AIMessage:
        both_have_read.wait(10)
        return patch_of(asked)

    manager = manager_of(store, model=ChatModel(respond=patch), schemas=[Likes])
    await at_once(2, lambda number: manager.ainvoke({"messages": liking(words[number])}))
    kept = (await theirs.items(store, ["ana"]))["likes"]["content"]["likes"]
    assert kept in (["fado", "tea"], ["fado", "ska"])

    await memoryd.store.put(namespace, "likes", LIKES)
    memoryd.llm.respond = update_of
    await at_once(
        2,
        lambda number: memoryd.extract(
            liking(words[number]), manager_config=KINDS, namespace=namespace
        ),
    )
    kept = (await memoryd.items(namespace))["likes"]["content"]["likes"]
    assert sorted(kept) == ["fado", "ska", "tea"]


async def test_what_is_written_while_the_model_thinks_is_lost_by_langmem_and_kept_by_memoryd(
    memoryd: Memoryd,
) -> None:
    store, namespace = Store(), ["meanwhile", "ana"]
    corrected = {"kind": "Likes", "content": {"likes": ["morna"]}}
    await store.aput(("ana",), "likes", LIKES)

    def think(asked: Asked) -> AIMessage:
        store.put(("ana",), "likes", corrected)
        return patch_of(asked)

    manager = manager_of(store, model=ChatModel(respond=think), schemas=[Likes])
    await manager.ainvoke({"messages": liking("tea")})
    assert (await theirs.items(store, ["ana"]))["likes"]["content"]["likes"] == ["fado", "tea"]

    await memoryd.store.put(namespace, "likes", LIKES)
    memoryd.llm.respond = lambda received: replace(
        update_of(received), delay=0.5 if len(memoryd.llm.requests) == 1 else 0
    )
    job = await memoryd.job(
        "extract",
        messages=liking("tea"),
        manager_config=KINDS,
        namespace=namespace,
        wait=0,
        status=202,
    )
    await until(lambda: asyncio.sleep(0, bool(memoryd.llm.requests)))
    await memoryd.store.put(namespace, "likes", corrected)
    assert (await memoryd.ended(job["id"]))["result"]["rounds"] == 2
    kept = (await memoryd.items(namespace))["likes"]["content"]["likes"]
    assert kept == ["morna", "tea"]
