"""Finding the thread that a caller means by an id, among those that it may see."""

from collections.abc import Iterable

from asyncpg import Record

from app.auth.access import Access, Verb
from app.db.database import Connection, Row
from app.threads import repository
from app.threads.errors import AmbiguousThreadError, ThreadNotFoundError


def sees_thread(access: Access, thread: Row) -> bool:
    """Tell whether a caller may see a thread: it has `jobs` or `read` on its namespace."""
    return _allows(access, thread, Verb.JOBS) or reads_conversation(access, thread)


def reads_conversation(access: Access, thread: Row) -> bool:
    """Tell whether a caller may read a thread's messages and summary."""
    return _allows(access, thread, Verb.READ)


async def find_visible(connection: Connection, access: Access, thread_id: str) -> list[Record]:
    """Return the threads with this id that a caller may see."""
    rows = await repository.find_named(connection, access.root, thread_id)
    return [row for row in rows if sees_thread(access, row)]


async def find_one(connection: Connection, access: Access, thread_id: str) -> Record:
    """Return the one thread with this id that a caller may see.

    Raises ThreadNotFoundError if none is visible, and AmbiguousThreadError if several are.
    """
    rows = await find_visible(connection, access, thread_id)
    if not rows:
        raise ThreadNotFoundError(thread_id)
    if len(rows) > 1:
        raise AmbiguousThreadError(thread_id, _namespaces(access, rows))
    return rows[0]


def _allows(access: Access, thread: Row, verb: Verb) -> bool:
    return access.allows(access.relative(thread["namespace"]), verb)


def _namespaces(access: Access, rows: Iterable[Row]) -> list[list[str]]:
    return [access.relative(row["namespace"]) for row in rows]
