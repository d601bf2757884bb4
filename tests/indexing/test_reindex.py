import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from app.config import Settings
from app.indexing.formats import prepare
from app.main import create_app
from app.providers.embedder import FakeEmbedder
from app.providers.errors import MisconfiguredError
from app.resources import open_resources
from app.store import reindex as reindexing
from app.store.reindex import ReindexError, catch_up, reindex
from tests.support.app import Store, running
from tests.support.reindex import (
    NAMESPACE,
    NEW,
    OLD,
    OUTDATED,
    Refusing,
    ask,
    assert_found,
    connected,
    fill,
    reindexed,
    serving_in_process,
    until,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, database_pool_size=5, index_fields=["text"])


async def test_questions_are_indexed_again(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await store.put(NAMESPACE, "home", {"text": "Ana in Porto"}, questions=["Which city?"])
    await reindexed(settings, FakeEmbedder(NEW))
    async with serving_in_process(settings, FakeEmbedder(NEW)) as store:
        found = await store.search(NAMESPACE, query="Which city?", mode="text")
    assert [item["key"] for item in found] == ["home"]


async def test_items_put_before_during_and_after_are_found_with_the_new_model(
    settings: Settings,
) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as old:
        await fill(old, range(250))
        numbers = itertools.count(250)
        done = asyncio.Event()

        async def write() -> None:
            while not done.is_set():
                n = next(numbers)
                await fill(old, range(n, n + 1))
                for m in (n % 250, n * 7 % 250, n * 37 % 250):
                    await old.put(NAMESPACE, f"k{m}", {"text": f"fact word{m} again{n}"})
                await old.delete(NAMESPACE, f"k{n - 100}")
                await fill(old, range(n - 100, n - 99))

        async def search() -> None:
            while not done.is_set():
                found = await old.search(NAMESPACE, query="fact word7", limit=1)
                assert [item["key"] for item in found] == ["k7"]
                await asyncio.sleep(0.01)

        others = [asyncio.create_task(write()), asyncio.create_task(search())]
        told = await reindexed(settings, FakeEmbedder(NEW, delay=0.05))
        done.set()
        await asyncio.gather(*others)
        last = next(numbers)
        await fill(old, range(last, last + 10))
        switched = "Servers started from now on use fake:hashed (32 dimensions), "
        assert any(line.startswith(switched) for line in told)
        await reindexed(settings, FakeEmbedder(NEW))
        found = await old.search(NAMESPACE, query=f"fact word{last}", limit=1)
        assert [item["key"] for item in found] == [f"k{last}"]
    assert last > 260
    async with serving_in_process(settings, FakeEmbedder(NEW)) as new:
        await assert_found(new, settings, range(0, last, 20))
        await fill(new, range(last + 10, last + 12))
        await assert_found(new, settings, range(last, last + 12))


async def test_an_empty_database_takes_any_model(settings: Settings) -> None:
    for _ in range(2):
        await reindexed(settings, FakeEmbedder(NEW))
        async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
            assert await store.search(NAMESPACE, query="anything") == []
    assert await ask(settings, "SELECT dimensions FROM passage_indexes WHERE active") == OLD


async def test_another_vocabulary_embeds_nothing(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(3))
        await store.put(NAMESPACE, "german", {"text": "die Häuser"})
    german = settings.model_copy(update={"language": "german"})
    embedder = FakeEmbedder(OLD)
    told = await reindexed(german, embedder)
    assert told[-1] == "Indexed 4 items."
    assert embedder.calls == []
    async with serving_in_process(german, FakeEmbedder(OLD)) as store:
        await assert_found(store, settings, range(3))
        found = await store.search(NAMESPACE, query="Haus", mode="text")
        assert [item["key"] for item in found] == ["german"]


async def test_words_alone_are_reindexed_too(settings: Settings) -> None:
    words = settings.model_copy(update={"embedding": "none"})
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(3))
    async with open_resources(words, choose_index=prepare) as resources:
        await reindex(resources, lambda _: None)
    async with running(create_app(words)) as client:
        found = await Store(client).search(NAMESPACE, query="word2", mode="text")
        assert [item["key"] for item in found] == ["k2"]
    assert await ask(settings, OUTDATED) is None


async def test_items_without_passages_are_left_alone(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await store.put(NAMESPACE, "unindexed", {"text": "a"}, index=False)
        await store.put(NAMESPACE, "blank", {"text": "  "})
        await fill(store, range(1))
    embedder = FakeEmbedder(NEW)
    assert "Indexed 1 item." in await reindexed(settings, embedder)
    assert embedder.calls == [["fact word0"]]
    assert (await reindexed(settings, embedder := FakeEmbedder(NEW)))[0].startswith("Nothing to do")
    assert embedder.calls == []


async def test_the_old_configuration_is_switched_back_to(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(5))
    await reindexed(settings, FakeEmbedder(NEW))
    async with serving_in_process(settings, FakeEmbedder(NEW)) as store:
        await fill(store, range(4, 8))
    embedder = FakeEmbedder(OLD)
    told = await reindexed(settings, embedder)
    assert told[-1] == "Indexed 4 items."
    assert sorted(itertools.chain(*embedder.calls)) == [f"fact word{n}" for n in range(4, 8)]
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await assert_found(store, settings, range(8))


async def test_dropping_the_others_leaves_nothing_of_them(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as old:
        await fill(old, range(5))
        before = await ask(settings, "SELECT count(*) FROM terms")
        told = await reindexed(settings, FakeEmbedder(NEW), drop_others=True)
        assert told[-1] == "Dropped 5 passages made in other ways."
        assert await ask(settings, "SELECT count(*) FROM passages") == 5
        assert await ask(settings, "SELECT count(*) FROM terms") == before
        vector_indexes = "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'passages_embed%'"
        assert await ask(settings, vector_indexes) == 1
        await old.put(NAMESPACE, "late", {"text": "from a server that should have ended"})
    told = await reindexed(settings, FakeEmbedder(NEW), drop_others=True)
    assert told == ["Indexed 1 item.", "Dropped 1 passage made in other ways."]
    async with serving_in_process(settings, FakeEmbedder(NEW)) as new:
        await assert_found(new, settings, range(5))
    await reindexed(settings, FakeEmbedder(OLD))
    assert await ask(settings, vector_indexes) == 2


async def test_a_second_run_at_once_is_refused(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(3))
    first = asyncio.create_task(reindexed(settings, FakeEmbedder(NEW, delay=0.3)))
    await asyncio.sleep(0.15)
    with pytest.raises(ReindexError, match="under way"):
        await reindexed(settings, FakeEmbedder(NEW))
    assert "Indexed 3 items." in await first


async def test_an_item_whose_text_fails_is_indexed_by_its_words_and_waits(
    settings: Settings,
) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(4))
    lines = await reindexed(settings, Refusing(NEW))
    assert "Indexed 4 items." in lines
    assert any(line.startswith("The model fails on texts of 1 item:") for line in lines)
    assert await ask(settings, "SELECT dimensions FROM passage_indexes WHERE active") == NEW
    async with serving_in_process(settings, FakeEmbedder(NEW)) as store:
        assert [n for n in range(4) if "embedded" in await store.get(NAMESPACE, f"k{n}")] == [2]
        assert [item["key"] for item in await store.search(NAMESPACE, query="word2", limit=1)]
    await reindexed(settings, FakeEmbedder(OLD))
    assert await ask(settings, "SELECT count(*) FROM items WHERE embed_after IS NOT NULL") == 0


async def test_a_model_that_cannot_go_on_stops_it(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(4))
    embedder = Refusing(NEW)
    embedder.error = MisconfiguredError("no such key")
    with pytest.raises(ReindexError, match=r"Stopped: no such key\. .* run the command again"):
        await reindexed(settings, embedder)
    assert "Indexed 1 item." in await reindexed(settings, FakeEmbedder(NEW))


async def interrupt(settings: Settings, at: Callable[[], Awaitable[bool]]) -> None:
    """Cancel a run as soon as a condition holds."""
    task = asyncio.create_task(reindexed(settings, FakeEmbedder(NEW)))
    await until(at)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("stage", ["_build_vector_index", "_is_active", "_switch"])
async def test_a_run_interrupted_between_stages_is_completed_by_the_next(
    settings: Settings, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(60))
    original = getattr(reindexing, stage)
    for before in (True, False):

        async def stop(*arguments: Any, before: bool = before) -> None:
            if not before:
                await original(*arguments)
            raise asyncio.CancelledError

        monkeypatch.setattr(reindexing, stage, stop)
        with suppress(asyncio.CancelledError):
            await reindexed(settings, FakeEmbedder(NEW))
    monkeypatch.undo()
    await assert_completed(settings)


async def test_a_run_interrupted_in_the_vector_index_is_completed(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
        await fill(store, range(60))
    await reindexed(settings, FakeEmbedder(NEW))
    await reindexed(settings, FakeEmbedder(OLD))
    async with connected(settings) as blocker:
        # The build waits for transactions that were there before it; then it is cut off.
        name = await ask(
            settings,
            f"SELECT 'passages_embedding_' || id FROM passage_indexes WHERE dimensions = {NEW}",
        )
        await blocker.execute(f"DROP INDEX {name}")
        await blocker.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM items")

        async def at() -> bool:
            return bool(await ask(settings, f"SELECT to_regclass('{name}') IS NOT NULL"))

        await interrupt(settings, at)
        assert await ask(
            settings,
            f"SELECT NOT indisvalid FROM pg_index WHERE indexrelid = '{name}'::regclass",
        )
        assert await half_filled_indexes(settings) == [f"fake:hashed ({NEW} dimensions)"]
    await assert_completed(settings)
    assert await half_filled_indexes(settings) == []


async def assert_completed(settings: Settings) -> None:
    await reindexed(settings, FakeEmbedder(NEW))
    assert await ask(settings, "SELECT bool_and(indisvalid) FROM pg_index")
    async with serving_in_process(settings, FakeEmbedder(NEW)) as store:
        await assert_found(store, settings, range(0, 60, 10))


async def half_filled_indexes(settings: Settings) -> list[str]:
    async with open_resources(settings, embedder=FakeEmbedder(NEW), choose_index=prepare) as made:
        return await reindexing.half_filled(made.database)


async def test_a_new_server_indexes_what_older_servers_wrote(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as old:
        await fill(old, range(3))
        await reindexed(settings, FakeEmbedder(NEW))
        await fill(old, range(2, 5))
    async with open_resources(settings, embedder=FakeEmbedder(NEW)) as resources:
        assert await catch_up(resources) == 3
        assert await catch_up(resources) == 0
    async with serving_in_process(settings, FakeEmbedder(NEW)) as new:
        await assert_found(new, settings, range(5))


async def test_a_server_with_the_old_configuration_does_not_catch_up(settings: Settings) -> None:
    embedder = FakeEmbedder(OLD)
    async with open_resources(settings, embedder=embedder) as old:
        async with serving_in_process(settings, FakeEmbedder(OLD)) as store:
            await fill(store, range(3))
        await reindexed(settings, FakeEmbedder(NEW), drop_others=True)
        assert await catch_up(old) == 0
    assert embedder.calls == []


async def test_two_servers_catch_up_at_once(settings: Settings) -> None:
    async with serving_in_process(settings, FakeEmbedder(OLD)) as old:
        await fill(old, range(3))
        await reindexed(settings, FakeEmbedder(NEW))
        await fill(old, range(150))
    async with (
        open_resources(settings, embedder=FakeEmbedder(NEW)) as one,
        open_resources(settings, embedder=FakeEmbedder(NEW)) as other,
    ):
        await asyncio.gather(catch_up(one), catch_up(other))
    async with serving_in_process(settings, FakeEmbedder(NEW)) as new:
        await assert_found(new, settings, range(0, 150, 30))
