"""Memories as MCP resources."""

import json
from datetime import timedelta

import httpx2
import pytest
from mcp import MCPError, types

from app.clock import FrozenClock
from tests.support.app import Store
from tests.support.mcp_client import connected

pytestmark = pytest.mark.slow


async def test_memories_are_listed_newest_first_page_by_page(
    client: httpx2.AsyncClient, store: Store
) -> None:
    put = {"op": "put", "namespace": ["memories"], "importance": 0.5}
    keys_and_lengths = [(f"{number:02}", 2 * number) for number in range(60)]
    await store.batch(
        *({**put, "key": key, "value": {"content": "x" * n}} for key, n in keys_and_lengths)
    )
    async with connected(client) as opened:
        page = await opened.list_resources()
        rest = await opened.list_resources(cursor=page.next_cursor)
    assert [one.name for one in page.resources] == [f"{59 - place:02}" for place in range(50)]
    assert [one.name for one in rest.resources] == [f"{9 - place:02}" for place in range(10)]
    assert rest.next_cursor is None
    newest, oldest = page.resources[0], rest.resources[-1]
    assert newest.uri == "memory:///memories/59"
    assert newest.title == "x" * 79 + "…"
    assert oldest.title == '{"content": ""}'
    assert oldest.size == len(oldest.title)
    assert oldest.mime_type == "application/json"
    assert oldest.annotations is not None
    assert oldest.annotations.priority == 0.5
    assert oldest.annotations.last_modified == "2026-01-01T12:00:00+00:00"


async def test_the_title_of_a_memory_is_its_text(client: httpx2.AsyncClient, store: Store) -> None:
    await store.put(["memories"], "0", {"kind": "profile", "content": {"name": "Ann"}})
    await store.put(["memories"], "1", {"kind": "memory", "content": {"content": "ramen"}})
    await store.put(["memories"], "2", {"content": "udon", "stars": 5})
    async with connected(client) as opened:
        listed = (await opened.list_resources()).resources
    titles = [one.title for one in sorted(listed, key=lambda one: one.name)]
    assert titles == ['{"kind": "profile", "content": {"name": "Ann"}}', "ramen", "udon"]


async def test_a_memory_is_read_by_its_uri(
    client: httpx2.AsyncClient, store: Store, mode: str
) -> None:
    await store.put(["users", "a/b"], "日 1", {"content": "ramen", "none": None})
    async with connected(client, mode=mode) as opened:
        (listed,) = (await opened.list_resources()).resources
        assert listed.uri == "memory:///users/a%2Fb/%E6%97%A5%201"
        (read,) = (await opened.read_resource(listed.uri)).contents
    assert isinstance(read, types.TextResourceContents)
    assert read.text == '{"none": null, "content": "ramen"}'
    assert (read.uri, read.mime_type) == (listed.uri, "application/json")


async def test_a_long_memory_is_shortened_and_can_be_read_in_parts(
    client: httpx2.AsyncClient, store: Store
) -> None:
    value = {"content": "x" * 100_000, "tags": ["cat", 7]}
    await store.put(["memories"], "k?", value, index=False)

    async def read(uri: str) -> list[str]:
        contents = (await opened.read_resource(uri)).contents
        assert all(isinstance(one, types.TextResourceContents) for one in contents)
        assert all(len(one.text) < 41_000 for one in contents)  # type: ignore[union-attr]
        return [one.text for one in contents]  # type: ignore[union-attr]

    async with connected(client) as opened:
        shortened, note = await read("memory:///memories/k%3F")
        assert json.loads(shortened)["tags"] == ["cat", 7]
        parts, uri = [], note.partition("Read ")[2].partition(" ")[0]
        while uri:
            part, *more = await read(uri)
            parts.append(part)
            uri = more[0].partition(": read ")[2].removesuffix(".") if more else ""
    assert json.loads("".join(parts)) == value


async def test_long_names_shorten_a_page(client: httpx2.AsyncClient, store: Store) -> None:
    put = {"op": "put", "namespace": ["memories"], "value": {"content": ""}}
    await store.batch(*({**put, "key": f"{n:02}" + "ü" * 500} for n in range(60)))
    found: list[str] = []
    async with connected(client) as opened:
        page = await opened.list_resources()
        while True:
            assert len(page.model_dump_json()) < 60_000
            found += [one.name[:2] for one in page.resources]
            if page.next_cursor is None:
                break
            page = await opened.list_resources(cursor=page.next_cursor)
    assert found == [f"{59 - n:02}" for n in range(60)]


async def test_a_list_restarts_no_lifetime_but_reading_does(
    client: httpx2.AsyncClient, store: Store, clock: FrozenClock
) -> None:
    await store.put(["memories"], "k", {"content": "ramen"}, ttl=60)
    clock.advance(timedelta(minutes=50))
    async with connected(client) as opened:
        (listed,) = (await opened.list_resources()).resources
        assert await expiry(store) == "2026-01-01T13:00:00+00:00"
        await opened.read_resource(listed.uri)
        assert await expiry(store) == "2026-01-01T13:50:00+00:00"


async def expiry(store: Store) -> str:
    item = await store.get(["memories"], "k", refresh_ttl=False)
    return str(item["expires_at"])


async def test_the_template_makes_uris(client: httpx2.AsyncClient) -> None:
    async with connected(client) as opened:
        (template,) = (await opened.list_resource_templates()).resource_templates
    assert template.uri_template == "memory:///{+id}{?offset}"


async def test_missing_memories_and_unreadable_cursors_are_mistakes(
    client: httpx2.AsyncClient,
) -> None:
    async with connected(client) as opened:
        for uri in ("memory:///memories/no", "memory:///", "file:///etc/passwd", ""):
            with pytest.raises(MCPError, match="There is no memory") as raised:
                await opened.read_resource(uri)
            assert raised.value.code == types.INVALID_PARAMS
        for cursor in ("", "x", "0.x", "9", "٣.", "-1.", "0.\ud7ff"):
            with pytest.raises(MCPError, match="cursor cannot be read"):
                await opened.list_resources(cursor=cursor)
