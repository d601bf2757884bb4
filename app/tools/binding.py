"""From what the application says to where a tool works, on what and with which rights."""

from collections.abc import Collection, Sequence

from app.auth.access import Access, Verb
from app.auth.errors import ForbiddenError
from app.conversations.kinds import BUILT_IN
from app.conversations.namespace_template import place
from app.conversations.types import Kind
from app.errors import InvalidRequestError
from app.managers.schemas import ManagerConfig
from app.managers.service import ManagerService
from app.namespaces import parse_labels
from app.store.service import check_not_reserved
from app.tools.base import ACTIONS, Action, Bound, Offer
from app.tools.schemas import DEFAULT_NAMESPACE, CallTool, ListTools, Placed

FOR_TOOLS = ({Verb.READ}, {Verb.WRITE}, {Verb.DELETE})
"""Verbs of which a tool needs at least one in the manager's namespace."""

VERBS: dict[Action, Verb] = {
    "create": Verb.WRITE,
    "update": Verb.WRITE,
    "delete": Verb.DELETE,
}


async def offered(managers: ManagerService, access: Access, query: ListTools) -> Offer:
    """Return how tools are to be offered; raises ManagerNotFoundError."""
    labels = parse_labels(query.namespace)
    config = None
    if query.manager is not None:
        config = await managers.config(access, query.manager, () if labels else FOR_TOOLS)
    return Offer(
        kind=_kind_of(config) if query.kind is None else BUILT_IN[query.kind],
        actions=tuple(
            action
            for action in query.actions_permitted or ACTIONS
            if _may(access, labels, VERBS[action])
        ),
        instructions=query.instructions,
    )


async def bound(
    managers: ManagerService, access: Access, body: CallTool, *, wait_seconds: float
) -> Bound:
    """Return what a call is bound to; raises as `located` does."""
    config, namespace = await located(managers, access, body, FOR_TOOLS)
    if body.query_model is not None and body.messages is None:
        raise InvalidRequestError(
            "query_model is given without messages; send the conversation that it is to search "
            "for, or leave it out.",
            field="query_model",
        )
    return Bound(
        access=access,
        namespace=namespace,
        kind=_kind_of(config) if body.kind is None else body.kind.as_kind(),
        actions=tuple(body.actions_permitted or ACTIONS),
        manager=body.manager,
        ttl_seconds=None if config is None else config.ttl_seconds,
        messages=body.messages or (),
        query_model=body.query_model or (None if config is None else config.query_model),
        wait_seconds=wait_seconds,
    )


async def located(
    managers: ManagerService, access: Access, body: Placed, ways: Collection[Collection[Verb]]
) -> tuple[ManagerConfig | None, list[str]]:
    """Return the manager that a request names, and the labels of its namespace.

    A manager is hidden from a caller that may use its namespace in none of the `ways`.

    Raises ManagerNotFoundError, MissingVariableError, UnknownVariableError, ForbiddenError and
    InvalidRequestError.
    """
    # Checked before the manager is looked up, so that the answer reveals no managers.
    labels = _placed(access, body.namespace, body) if body.namespace else None
    config = None
    if body.manager is not None:
        config = await managers.config(access, body.manager, () if labels else ways)
    if labels is None:
        labels = _placed(access, (config and config.namespace) or DEFAULT_NAMESPACE, body)
    return config, labels


def _placed(access: Access, template: Sequence[str], body: Placed) -> list[str]:
    """Return a template's labels; raises ForbiddenError if nothing is granted there."""
    labels = place(template, body.variables or {})
    check_not_reserved(labels)
    if not any(access.allows(labels, verb) for verb in Verb):
        raise ForbiddenError(access.actor, Verb.READ, labels)
    return labels


def _kind_of(config: ManagerConfig | None) -> Kind | None:
    return None if config is None else config.kinds_in_full()[0]


def _may(access: Access, labels: Sequence[str], verb: Verb) -> bool:
    """Tell whether a key may do something: in a namespace, or, where none is named, anywhere."""
    return access.allows(labels, verb) if labels else access.may(verb)
