from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.langmem.both import Both
from tests.langmem.decisions import (
    JSON,
    Decision,
    Done,
    Insert,
    Memory,
    Nothing,
    Patch,
    Remove,
    add,
    remove,
    replace,
    said,
)
from tests.langmem.original import LangMemMemory

pytestmark = pytest.mark.slow

Draw = Any


class Address(BaseModel):
    city: str
    street: str | None = None


class Person(BaseModel):
    name: str
    address: Address
    likes: list[str]


SCHEMAS: list[type[BaseModel]] = [LangMemMemory, Person]
MOST = 8
"""Memories at a time: LangMem looks at ten."""


@dataclass(frozen=True)
class Case:
    existing: dict[str, Memory]
    replies: list[list[Decision]]
    enable_deletes: bool


class Deciding:
    """Decisions that are valid one after the other; everything that is said is said once."""

    def __init__(self, draw: Draw, *, enable_deletes: bool, persons: bool) -> None:
        self.held: dict[str, Memory] = {}
        self._draw = draw
        self._deletes = enable_deletes
        self._persons = persons
        self._numbers: Iterator[int] = count(1)

    def memory(self) -> Memory:
        if not self._persons or self._draw(st.booleans()):
            return said(self._word())
        likes = [self._word() for _ in range(self._draw(st.integers(0, 2)))]
        person = {"name": self._word(), "address": {"city": self._word()}, "likes": likes}
        return Memory("Person", person)

    def existing(self, most: int) -> dict[str, Memory]:
        for _ in range(self._draw(st.integers(0, most))):
            self.held[self._word()] = self.memory()
        return dict(self.held)

    def reply(self) -> list[Decision]:
        """Decide about some of the memories, each at most once, and about new ones."""
        decisions: list[Decision] = []
        touched = self._draw(st.sets(st.sampled_from(sorted(self.held)))) if self.held else set()
        for name in sorted(touched):
            if self._deletes and self._draw(st.booleans()):
                decisions.append(Remove(name))
                del self.held[name]
            else:
                decisions.append(self._patch(name))
        for _ in range(self._draw(st.integers(0, min(2, MOST - len(self.held))))):
            insert = Insert(self._word(), self.memory())
            decisions.append(insert)
            self.held[insert.name] = insert.memory
        order: list[Decision] = self._draw(st.permutations(decisions))
        return order or [Nothing()]

    def _patch(self, name: str) -> Patch:
        edits = []
        memory = self.held[name]
        for _ in range(self._draw(st.integers(1, 3))):
            edit = self._draw(st.sampled_from(list(self._edits(memory))))
            memory = Memory(memory.kind, jsonpatch.apply_patch(memory.content, [edit]))
            edits.append(edit)
        self.held[name] = memory
        # So that no edits undo one another.
        last = replace("/name" if memory.kind == "Person" else "/content", self._word())
        self.held[name] = Memory(memory.kind, jsonpatch.apply_patch(memory.content, [last]))
        return Patch(name, (*edits, last))

    def _edits(self, memory: Memory) -> Iterator[JSON]:
        word = self._word()
        if memory.kind == "Memory":
            yield replace("/content", word)
            return
        yield replace("/name", word)
        yield replace("/address", {"city": word})
        yield replace("/address/city", word)
        yield add("/address/street", word)
        yield add("/likes/-", word)
        yield add("/likes/0", word)
        yield replace("/likes", [word])
        if "street" in memory.content["address"]:
            yield remove("/address/street")
        if memory.content["likes"]:
            yield remove("/likes/0")

    def _word(self) -> str:
        return f"word{next(self._numbers)}"


@st.composite
def cases(draw: Draw, *, most_replies: int = 3, persons: bool = True) -> Case:
    deletes = draw(st.booleans())
    deciding = Deciding(draw, enable_deletes=deletes, persons=persons)
    existing = deciding.existing(MOST // 2)
    replies = [deciding.reply() for _ in range(draw(st.integers(1, most_replies)))]
    return Case(existing, replies, deletes)


def until_nothing_is_done(replies: Sequence[list[Decision]]) -> list[list[Decision]]:
    """Return the replies up to the first that does nothing: no further one is asked for."""
    wanted: list[list[Decision]] = []
    for reply in replies:
        wanted.append(reply)
        if reply == [Nothing()]:
            break
    return wanted


EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@EXAMPLES
@given(cases(), st.booleans())
async def test_both_end_with_the_same_memories(both: Both, case: Case, says_done: bool) -> None:
    replies = until_nothing_is_done(case.replies)
    if says_done and replies[-1] != [Nothing()]:
        replies.append([Done()])
    await both.agree(
        *replies,
        existing=case.existing,
        form="pairs",  # with others LangMem crashes at the second step
        schemas=SCHEMAS,
        max_steps=len(replies),
        enable_deletes=case.enable_deletes,
    )


@EXAMPLES
@given(cases())
async def test_both_end_with_the_same_items(both: Both, case: Case) -> None:
    stores = both.store(SCHEMAS)
    await stores.put(**case.existing)
    for reply in case.replies:
        await stores.learn(reply, enable_deletes=case.enable_deletes)


@EXAMPLES
@given(cases(most_replies=2, persons=False))  # LangMem's phases forget what kind they are of
async def test_both_end_with_the_same_items_after_phases(both: Both, case: Case) -> None:
    stores = both.store()
    await stores.put(**case.existing)
    learned, *tidied = case.replies
    phase = {"instructions": "Tidy up.", "enable_deletes": case.enable_deletes}
    removed = sum(isinstance(decision, Remove) for decision in learned)
    inserted = sum(isinstance(decision, Insert) for decision in learned)
    if len(case.existing) + inserted == removed:
        tidied = []  # memoryd asks nobody to tidy up nothing
    await stores.learn(
        learned, *tidied, phases=[phase] * len(tidied), enable_deletes=case.enable_deletes
    )
