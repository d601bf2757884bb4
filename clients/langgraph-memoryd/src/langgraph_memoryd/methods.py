"""LangGraph's store methods, without its rule that labels contain no dots.

memoryd stores namespaces as lists of labels, so "ann@example.com" is a valid label; the server
checks them.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    NamespaceMatchType,
    NamespacePath,
    NotProvided,
    PutOp,
    SearchItem,
    SearchOp,
)

from langgraph_memoryd.operations import labels

Namespace: TypeAlias = tuple[str, ...]
Index: TypeAlias = Literal[False] | list[str] | None
Minutes: TypeAlias = float | NotProvided | None
"""None: the item does not expire."""


class StoreMethods(BaseStore):
    """All methods, on top of `batch` or `abatch`."""

    def get(
        self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """Return an item, or None."""
        return cast(Item | None, self.batch([self._get(namespace, key, refresh_ttl)])[0])

    async def aget(
        self, namespace: Namespace, key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """Return an item, or None."""
        results = await self.abatch([self._get(namespace, key, refresh_ttl)])
        return cast(Item | None, results[0])

    def search(
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Return items at and below a namespace, best first or, without a query, newest first."""
        refresh = self._refresh(refresh_ttl)
        op = SearchOp(namespace_prefix, filter, limit, offset, query, refresh)
        return cast(list[SearchItem], self.batch([op])[0])

    async def asearch(
        self,
        namespace_prefix: Namespace,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,  # noqa: A002
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Return items at and below a namespace, best first or, without a query, newest first."""
        refresh = self._refresh(refresh_ttl)
        op = SearchOp(namespace_prefix, filter, limit, offset, query, refresh)
        return cast(list[SearchItem], (await self.abatch([op]))[0])

    def put(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Index = None,
        *,
        ttl: Minutes = NOT_PROVIDED,
    ) -> None:
        """Write an item's whole next state."""
        self.batch([self._put(namespace, key, value, index, ttl)])

    async def aput(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Index = None,
        *,
        ttl: Minutes = NOT_PROVIDED,
    ) -> None:
        """Write an item's whole next state."""
        await self.abatch([self._put(namespace, key, value, index, ttl)])

    def delete(self, namespace: Namespace, key: str) -> None:
        """Delete an item, whether or not it exists."""
        self.batch([PutOp(namespace, str(key), None)])

    async def adelete(self, namespace: Namespace, key: str) -> None:
        """Delete an item, whether or not it exists."""
        await self.abatch([PutOp(namespace, str(key), None)])

    def list_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """Return namespaces in ascending order; `*` in a prefix or suffix matches any label."""
        op = ListNamespacesOp(_conditions(prefix, suffix), max_depth, limit, offset)
        return cast(list[Namespace], self.batch([op])[0])

    async def alist_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """Return namespaces in ascending order; `*` in a prefix or suffix matches any label."""
        op = ListNamespacesOp(_conditions(prefix, suffix), max_depth, limit, offset)
        return cast(list[Namespace], (await self.abatch([op]))[0])

    def _get(self, namespace: Namespace, key: str, refresh_ttl: bool | None) -> GetOp:
        return GetOp(namespace, str(key), self._refresh(refresh_ttl))

    def _put(
        self,
        namespace: Namespace,
        key: str,
        value: Mapping[str, Any],
        index: Index,
        ttl: Minutes,
    ) -> PutOp:
        if list(namespace[:1]) == ["langgraph"]:  # LangGraph allows it in a PutOp
            raise InvalidNamespaceError('The first label "langgraph" is reserved; choose another.')
        if ttl is NOT_PROVIDED and self.ttl_config is not None:
            ttl = self.ttl_config.get("default_ttl", NOT_PROVIDED)
        return PutOp(namespace, str(key), value, index, cast(float | None, ttl))

    def _refresh(self, refresh_ttl: bool | None) -> bool:
        if refresh_ttl is None and self.ttl_config is not None:
            refresh_ttl = self.ttl_config.get("refresh_on_read")
        return cast(bool, refresh_ttl)


def _conditions(
    prefix: NamespacePath | None, suffix: NamespacePath | None
) -> tuple[MatchCondition, ...]:
    conditions: list[tuple[NamespaceMatchType, NamespacePath | None]]
    conditions = [("prefix", prefix), ("suffix", suffix)]
    return tuple(MatchCondition(kind, tuple(labels(path))) for kind, path in conditions if path)
