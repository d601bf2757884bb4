"""Errors of threads."""

import json

from app.errors import ConflictError, NotFoundError


class ThreadNotFoundError(NotFoundError):
    """The key sees no thread with this id."""

    code = "thread_not_found"
    title = "Thread not found"

    def __init__(self, thread_id: str) -> None:
        super().__init__(
            f'There is no thread "{thread_id}"; '
            "POST /v1/threads/{thread_id}/messages creates it with its first messages."
        )


class ThreadElsewhereError(ConflictError):
    """The thread belongs to a namespace other than the requested one."""

    code = "thread_elsewhere"
    title = "Thread belongs to another namespace"

    def __init__(self, thread_id: str, labels: list[str]) -> None:
        namespace = json.dumps(labels, ensure_ascii=False)
        super().__init__(
            f'The thread "{thread_id}" belongs to another namespace than {namespace}; '
            "use one thread for each namespace, or delete the thread and send its messages again."
        )


class ThreadWithoutManagerError(ConflictError):
    """The extraction from a thread needs a manager, which was never chosen."""

    code = "thread_without_manager"
    title = "Thread has no manager"

    def __init__(self, thread_id: str) -> None:
        super().__init__(
            f'No manager was ever named for the thread "{thread_id}", so its messages are only '
            "kept; name one when appending the next."
        )


class AmbiguousThreadError(ConflictError):
    """The key sees threads with this id in several namespaces."""

    code = "thread_ambiguous"
    title = "Several threads with this id"

    def __init__(self, thread_id: str, namespaces: list[list[str]]) -> None:
        found = ", ".join(json.dumps(labels, ensure_ascii=False) for labels in namespaces[:5])
        super().__init__(
            f'There are threads "{thread_id}" in several namespaces that this key may see: '
            f"{found}. Send the namespace if the request has that field, or use a key with a grant "
            "for only one of them."
        )
