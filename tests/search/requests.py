"""Short forms of puts and searches over HTTP."""

from collections.abc import Mapping
from typing import Any

import asyncpg

from app.config import Settings
from tests.support.app import Store

NOTES = ["notes"]
SEARCH = "/v1/store/items/search"


async def put_texts(store: Store, texts: Mapping[str, str], **more: Any) -> None:
    """Put one item for each text, in one batch."""
    common = {"op": "put", "namespace": NOTES, "index": ["text"], **more}
    await store.batch(
        *({**common, "key": key, "value": {"text": text}} for key, text in texts.items())
    )


async def put_parts(store: Store, key: str, *parts: str, **more: Any) -> None:
    """Put an item of which each part is a passage."""
    await store.put(NOTES, key, {"parts": parts}, index=["parts[*]"], **more)


async def say(store: Store, *turns: str, thread: str = "t", namespace: list[str] = NOTES) -> None:
    """Put the turns of a conversation, each under its place in it."""
    for position, text in enumerate(turns):
        source = {"thread_id": thread, "position": position}
        key = f"{thread}{position}"
        await store.put(namespace, key, {"text": text}, index=["text"], source=source)


async def page(store: Store, **body: Any) -> dict[str, Any]:
    """Return the whole answer to a search of the notes."""
    response = await store.call(
        "POST", SEARCH, status=200, json={"namespace_prefix": NOTES, **body}
    )
    answer: dict[str, Any] = response.json()
    return answer


async def all_pages(store: Store, *, limit: int, **body: Any) -> list[list[str]]:
    """Return the keys on each page, following the cursors."""
    pages, cursor = [], None
    while True:
        answer = await page(store, limit=limit, cursor=cursor, **body)
        pages.append(keys_of(answer))
        cursor = answer["next_cursor"]
        if cursor is None:
            return pages


def keys_of(answer: dict[str, Any]) -> list[str]:
    return [item["key"] for item in answer["items"]]


async def keys(store: Store, query: str | None, **body: Any) -> list[str]:
    """Return the keys of what is found, best first."""
    return keys_of(await page(store, query=query, **body))


async def scores(store: Store, query: str, **body: Any) -> dict[str, float | None]:
    """Return the score of what is found by its key, best first."""
    found = await page(store, query=query, **body)
    return {item["key"]: item["score"] for item in found["items"]}


async def status(store: Store, **body: Any) -> int:
    """Return the status that a search of the notes is answered with."""
    response = await store.client.post(SEARCH, json={"namespace_prefix": NOTES, **body})
    return response.status_code


async def analyze(settings: Settings) -> None:
    """Let the database know how large its tables are, which estimates in large scopes rest on."""
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute("ANALYZE")
    await connection.close()
