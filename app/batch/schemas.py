"""Bodies of the batch route: the single routes' bodies, each with its `op`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from typing_extensions import TypeAliasType

from app.errors import list_errors
from app.http.problems import Problem
from app.schemas import BATCH, Flag, Schema
from app.search.schemas import SearchItems, SearchResults
from app.store.schemas import Item, ItemAddress, ListNamespaces, NamespaceList, PutItem

MAX_OPERATIONS = 1000
MAX_ERRORS = 10
"""Maximum mistakes listed for one operation; a hundred each would add up over a thousand."""


class PutOperation(PutItem):
    """Write an item."""

    op: Literal["put"]


class GetOperation(ItemAddress):
    """Read an item."""

    op: Literal["get"]
    refresh_ttl: Flag | None = Field(
        None, description="Restart the item's lifetime; absent: the server's setting."
    )


class DeleteOperation(ItemAddress):
    """End an item."""

    op: Literal["delete"]


class SearchOperation(SearchItems):
    """Find items."""

    op: Literal["search"]


class ListNamespacesOperation(ListNamespaces):
    """List namespaces."""

    op: Literal["list_namespaces"]


Operation: TypeAlias = (
    PutOperation | GetOperation | DeleteOperation | SearchOperation | ListNamespacesOperation
)

BatchOperation = TypeAliasType(
    "BatchOperation",
    Annotated[Operation, Field(discriminator="op", description="An operation, by its `op`.")],
)
"""A named alias, so that generated clients have a name for the type."""


OpName: TypeAlias = Literal["put", "get", "delete", "search", "list_namespaces"]

_OP_NAMES: frozenset[object] = frozenset(get_args(OpName))


@dataclass(frozen=True, slots=True)
class Malformed:
    """An operation that could not be read, and why; it does not affect the others."""

    op: OpName | None
    error: ValidationError

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Mistakes, located below the operation; pydantic puts the value of `op` first."""
        found = list_errors(self.error, most=MAX_ERRORS)
        return [{**one, "loc": ("operation", *(one["loc"][1:] or ("op",)))} for one in found]


def _keep_malformed(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError as error:
        return Malformed(_op_of(value), error)


def _op_of(value: object) -> OpName | None:
    """Return the name of a malformed operation, if that much is valid."""
    op = value.get("op") if isinstance(value, dict) else None
    return cast(OpName, op) if isinstance(op, str) and op in _OP_NAMES else None


def _drop_default(schema: dict[str, Any]) -> None:
    # Generators of TypeScript require members that have a default.
    del schema["default"]


class Batch(Schema):
    """Operations of one request; reads see the state before the batch."""

    body_limit = BATCH

    operations: list[Annotated[BatchOperation, WrapValidator(_keep_malformed)]] = Field(
        max_length=MAX_OPERATIONS, description="The operations, each with its `op`."
    )
    atomic: Flag = Field(
        True,
        json_schema_extra=_drop_default,
        description="true, or absent: all writes or, on any problem, none; "
        "false: each operation has its own result or problem.",
    )


class BatchResult(BaseModel):
    """The result of one operation: `op`, and the member that fits it."""

    op: OpName | None = Field(
        description="As in the operation; null if the operation has no valid one."
    )
    item: Item | None = Field(None, description="For get: the item; null: there is none.")
    found: SearchResults | None = Field(None, description="For search: the items, best first.")
    listed: NamespaceList | None = Field(None, description="For list_namespaces: the namespaces.")
    problem: Problem | None = Field(
        None, description="Why the operation failed; absent: it succeeded."
    )


class BatchResults(BaseModel):
    """One result for each operation, in order."""

    results: list[BatchResult] = Field(description="In the order of the operations.")
