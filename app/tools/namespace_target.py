"""The namespace that a request is about: its own, its manager's, or the default."""

from collections.abc import Collection, Sequence

from app.auth.access import Access, Verb
from app.auth.errors import ForbiddenError
from app.conversations.namespace_template import fill_template
from app.managers.schemas import ManagerConfig
from app.managers.service import ManagerService
from app.store.writer import check_not_reserved
from app.tools.schemas import DEFAULT_NAMESPACE, NamespaceTarget


async def resolve_namespace(
    managers: ManagerService,
    access: Access,
    target: NamespaceTarget,
    verb_sets: Collection[Collection[Verb]],
) -> tuple[ManagerConfig | None, list[str]]:
    """Return the manager that a request names or describes, and the labels of its namespace.

    A stored manager is hidden from a caller that has none of the `verb_sets` in its namespace.

    Raises ManagerNotFoundError, ModelNotAllowedError, MissingVariableError, UnknownVariableError,
    ForbiddenError, and InvalidRequestError.
    """
    # Checked before the manager is looked up, so that the answer reveals no managers.
    labels = _fill(access, target.namespace, target) if target.namespace else None
    config = None
    if target.manager is not None or target.manager_config is not None:
        alternatives = () if labels else verb_sets
        chosen = await managers.choose(access, target.manager, target.manager_config, alternatives)
        config = chosen.config
    if labels is None:
        labels = _fill(access, (config and config.namespace) or DEFAULT_NAMESPACE, target)
    return config, labels


def _fill(access: Access, template: Sequence[str], target: NamespaceTarget) -> list[str]:
    """Return a template's labels; raises ForbiddenError if nothing is granted there."""
    labels = fill_template(template, target.variables or {})
    check_not_reserved(labels)
    if not any(access.allows(labels, verb) for verb in Verb):
        raise ForbiddenError(access.actor, Verb.READ, labels)
    return labels
