"""From what the application says to where a tool works, on what and with which rights."""

from collections.abc import Sequence

from app.auth.access import Access, Verb
from app.errors import InvalidRequestError
from app.managers.kinds import resolve_kinds
from app.managers.memories import Kind
from app.managers.placing import place
from app.managers.schemas import KindSchema, ManagerConfig
from app.managers.service import ManagerService
from app.namespaces import parse_labels
from app.store.service import check_not_reserved
from app.tools.base import ACTIONS, Action, Bound, Offer
from app.tools.schemas import DEFAULT_NAMESPACE, CallTool, ListTools, Placed

VERBS: dict[Action, Verb] = {
    "create": Verb.WRITE,
    "update": Verb.WRITE,
    "delete": Verb.DELETE,
}


async def offered(managers: ManagerService, access: Access, query: ListTools) -> Offer:
    """Return how tools are to be offered; raises ManagerNotFoundError."""
    config = None if query.manager is None else await managers.config(access, query.manager)
    labels = parse_labels(query.namespace)
    return Offer(
        kind=_kind(query.kind, config),
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
    config, namespace = await located(managers, access, body)
    if body.query_model is not None and body.messages is None:
        raise InvalidRequestError(
            "query_model is given without messages; send the conversation that it is to search "
            "for, or leave it out.",
            field="query_model",
        )
    return Bound(
        access=access,
        namespace=namespace,
        kind=_kind(body.kind, config),
        actions=tuple(body.actions_permitted or ACTIONS),
        manager=body.manager,
        ttl_seconds=None if config is None else config.ttl_seconds,
        messages=body.messages or (),
        query_model=body.query_model or (None if config is None else config.query_model),
        wait_seconds=wait_seconds,
    )


async def located(
    managers: ManagerService, access: Access, body: Placed
) -> tuple[ManagerConfig | None, list[str]]:
    """Return the manager that a request names, and the labels of its namespace.

    Raises ManagerNotFoundError, MissingVariableError, UnknownVariableError and
    InvalidRequestError.
    """
    config = None if body.manager is None else await managers.config(access, body.manager)
    template = body.namespace or (config and config.namespace) or DEFAULT_NAMESPACE
    labels = place(template, body.variables or {})
    check_not_reserved(labels)
    return config, labels


def _kind(given: str | KindSchema | None, config: ManagerConfig | None) -> Kind | None:
    if given is not None:
        return resolve_kinds([given if isinstance(given, str) else given.as_kind()])[0]
    return None if config is None else config.kinds_in_full()[0]


def _may(access: Access, labels: Sequence[str], verb: Verb) -> bool:
    """Tell whether a key may do something: in a namespace, or, where none is named, anywhere."""
    return access.allows(labels, verb) if labels else access.may(verb)
