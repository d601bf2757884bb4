"""Responses that the server cuts short are read completely."""

import pytest
from langgraph.store.base import GetOp, Item, Result, SearchOp
from langgraph_memoryd import MemorydStore

pytestmark = pytest.mark.slow

TEXT = "x" * 900_000


def numbers_of(result: Result) -> list[int]:
    items = result if isinstance(result, list) else [result]
    return [item.value["n"] for item in items if isinstance(item, Item)]


async def test_large_items_are_all_read(store: MemorydStore, root: str) -> None:
    for number in range(9):
        await store.aput((root,), f"k{number}", {"text": TEXT, "n": number}, index=False)
    found = store.search((root,), limit=8)
    assert [item.value["n"] for item in found] == [8, 7, 6, 5, 4, 3, 2, 1]
    gets = [GetOp((root,), f"k{number}") for number in range(9)]
    [*items, listed] = await store.abatch([*gets, SearchOp((root,), limit=9, offset=2)])
    assert [numbers_of(item) for item in items] == [[number] for number in range(9)]
    assert numbers_of(listed) == [6, 5, 4, 3, 2, 1, 0]
