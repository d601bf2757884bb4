"""Executes batches: check everything, read, then write."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from app.auth.access import Access, Verb
from app.background import TimeSlice
from app.batch.schemas import (
    Batch,
    DeleteOperation,
    GetOperation,
    ListNamespacesOperation,
    Malformed,
    Operation,
    PutOperation,
    SearchOperation,
)
from app.db.pages import PAGE_BYTES
from app.errors import AppError, invalid_request
from app.http.problems import as_problem
from app.indexing.passages import EmbeddingFailedError
from app.json_values import JsonObject
from app.resources import Resources
from app.search.plan import ListingPlan, RankedPlan, SearchPlan
from app.search.schemas import encode_page
from app.search.service import SearchService
from app.store.namespace_repository import NamespaceQuery
from app.store.schemas import Item, NamespaceList
from app.store.service import ItemService
from app.store.types import Address, Delete, PreparedPut, Write
from app.store.writer import ItemWriter


class ResponseTooLargeError(AppError):
    """The results of earlier operations fill the response."""

    status = 422
    code = "response_too_large"
    title = "Response too large"

    def __init__(self) -> None:
        super().__init__(
            "was left out: the results before it fill the response "
            f"({PAGE_BYTES >> 20} MiB). Send it again in another batch."
        )


@dataclass(frozen=True, slots=True)
class PreparedGet:
    """A read that is allowed."""

    address: Address
    refresh_ttl: bool


Kind = TypeVar("Kind")

_FRAME_BYTES = 256
"""Estimated size of an item's other members in the response."""

Prepared = Write | PreparedGet | SearchPlan | NamespaceQuery


class BatchService:
    """Executes batches on behalf of one caller."""

    def __init__(self, items: ItemService, writer: ItemWriter, search: SearchService) -> None:
        self._items = items
        self._writer = writer
        self._search = search

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            ItemService.build(resources),
            ItemWriter.build(resources),
            SearchService.build(resources),
        )

    async def run(self, access: Access, batch: Batch) -> list[JsonObject]:
        """Return one result for each operation, in order; reads see the state before the writes.

        An atomic batch raises the first operation's error instead, with nothing changed.
        """
        empty = [_empty_result(operation) for operation in batch.operations]
        results = _Results(batch.atomic, empty, PAGE_BYTES)
        prepared: dict[int, Prepared] = {}
        time_slice = TimeSlice()
        for place, operation in enumerate(batch.operations):
            await time_slice.give_way()
            try:
                prepared[place] = await self._prepare(access, operation)
            except AppError as error:
                results.fail(place, error)
        await self._get(access, _of_type(prepared, PreparedGet), results)
        searches = {p: s for p, s in prepared.items() if isinstance(s, ListingPlan | RankedPlan)}
        await self._find(access, searches, results)
        for place, listing in _of_type(prepared, NamespaceQuery).items():
            if results.has_room(place):
                listed = await self._items.list_namespaces(access, listing, results.room)
                size = _labels_bytes(listed.labels)
                results.set(
                    place, size, listed=NamespaceList.of(listed).model_dump(exclude_unset=True)
                )
        writes = {p: one for p, one in prepared.items() if isinstance(one, PreparedPut | Delete)}
        await self._write(access, writes, results)
        return results.members

    async def _prepare(self, access: Access, operation: Operation | Malformed) -> Prepared:
        match operation:
            case Malformed():
                raise invalid_request(operation.errors)
            case PutOperation():
                return await self._writer.prepare(access, operation.command(access))
            case DeleteOperation():
                return Delete(operation.address(access, Verb.DELETE))
            case GetOperation():
                address = operation.address(access, Verb.READ)
                return PreparedGet(address, self._items.refreshes(operation.refresh_ttl))
            case SearchOperation():
                return self._search.plan(access, operation.to_query())
            case ListNamespacesOperation():
                query = operation.query()
                self._items.check_listing(access, query)
                return query

    async def _get(
        self, access: Access, gets: Mapping[int, PreparedGet], results: "_Results"
    ) -> None:
        if not gets:
            return
        wanted = [get.address for get in gets.values()]
        refreshed = [get.address for get in gets.values() if get.refresh_ttl]
        found = await self._items.get_many(access, wanted, refreshed, results.room)
        for place, get in gets.items():
            item = found.items.get(get.address)
            if item is not None and results.has_room(place):
                results.set(place, item.size, item=Item.members_of(item, access))
            elif get.address in found.left_out:
                results.leave_out(place)

    async def _find(
        self, access: Access, searches: Mapping[int, SearchPlan], results: "_Results"
    ) -> None:
        embedded = await self._search.embed_each(list(searches.values()))
        time_slice = TimeSlice()
        for (place, search), vector in zip(searches.items(), embedded, strict=True):
            await time_slice.give_way()
            if isinstance(vector, EmbeddingFailedError):
                results.fail(place, vector)
            elif results.has_room(place):
                page = await self._search.run(access, search, vector, max_bytes=results.room)
                size = sum(hit.item.size for hit in page.hits)
                results.set(place, size, found=encode_page(page, access))

    async def _write(
        self, access: Access, writes: Mapping[int, Write], results: "_Results"
    ) -> None:
        ready: dict[int, Write] = {}
        for place, write in zip(writes, await self._writer.embed([*writes.values()]), strict=True):
            if isinstance(write, AppError):
                results.fail(place, write)
            else:
                ready[place] = write
        try:
            if ready:
                await self._writer.write(access, list(ready.values()))
        except AppError as error:
            results.fail_all(ready, error)


@dataclass(slots=True)
class _Results:
    """Results in the order of the operations, and the bytes left for more."""

    atomic: bool
    members: list[JsonObject]
    room: int

    def set(self, place: int, size: int, **found: object) -> None:
        """Add what an operation read to its result."""
        self.members[place] |= found
        self.room -= size + _FRAME_BYTES

    def has_room(self, place: int) -> bool:
        """Return whether a result has room; if not, record that as the operation's result."""
        if self.room <= 0:
            self.leave_out(place)
        return self.room > 0

    def leave_out(self, place: int) -> None:
        """Record that an operation's result had no room, which does not fail an atomic batch."""
        self._keep(place, ResponseTooLargeError().within(f"operations[{place}]"))

    def fail(self, place: int, error: AppError) -> None:
        """Keep an operation's problem, or give the whole batch up if it is atomic."""
        if self.atomic:
            raise error.within(f"operations[{place}]")
        self._keep(place, error)

    def fail_all(self, places: Iterable[int], error: AppError) -> None:
        """Keep a problem that several operations share."""
        if self.atomic:
            raise error
        for place in places:
            self._keep(place, error)

    def _keep(self, place: int, error: AppError) -> None:
        self.members[place] = {"op": self.members[place]["op"], "problem": as_problem(error)}


def _empty_result(operation: Operation | Malformed) -> JsonObject:
    """Return the result of an operation before it has read anything."""
    return {"op": operation.op, **({"item": None} if operation.op == "get" else {})}


def _labels_bytes(namespaces: list[list[str]]) -> int:
    return sum(len(label) + 4 for labels in namespaces for label in labels)


def _of_type(prepared: Mapping[int, Prepared], kind: type[Kind]) -> dict[int, Kind]:
    return {place: one for place, one in prepared.items() if isinstance(one, kind)}
