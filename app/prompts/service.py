"""What may be done with prompts: reading and writing them, moving labels and back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Self

from asyncpg import Record

from app.auth.access import Access, Verb
from app.auth.errors import ForbiddenError
from app.clock import Clock
from app.db.database import Connection, Database
from app.errors import InvalidRequestError
from app.http.conditional import Precondition, PreconditionFailedError
from app.prompts import changing, repository
from app.prompts.errors import (
    NothingToRollBackError,
    PromptLabelNotFoundError,
    PromptVersionNotFoundError,
)
from app.prompts.repository import Change, Ref, Version
from app.prompts.schemas import (
    CANDIDATE,
    MAX_VERSION,
    PRODUCTION,
    DiffPrompt,
    ListPrompts,
    ListVersions,
    PromotePrompt,
    PutPrompt,
    ReadPrompt,
    check_text,
)
from app.resources import Resources

DEFAULT_PAGE = 100
DEFAULT_VERSIONS_PAGE = 50


class PromptService:
    """Prompts on behalf of one caller.

    They belong to the root of the caller's key. Reading takes `read` anywhere below it, adding a
    version `write` and everything else `admin` on the whole of it.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(resources.database, resources.clock)

    async def get(self, access: Access, name: str, query: ReadPrompt) -> Record:
        """Return a prompt with one version; raises the errors of `read`."""
        async with self._database.connection(access.root) as connection:
            return await self.read(
                connection, access, name, label=query.label, version=query.version
            )

    async def versions(
        self, access: Access, name: str, query: ListVersions
    ) -> tuple[Sequence[Record], int | None, int]:
        """Return a page of versions, newest first, the cursor of the next, and the revision.

        Raises PromptNotFoundError.
        """
        limit = query.limit or DEFAULT_VERSIONS_PAGE
        before = query.cursor or MAX_VERSION
        async with self._database.connection(access.root) as connection:
            head = await self.read(connection, access, name)
            page = await repository.find_versions(
                connection, Ref(access.root, name), before=before, limit=limit
            )
        return page.items, page.next_cursor(itemgetter("version")), head["revision"]

    async def list(self, access: Access, query: ListPrompts) -> tuple[Sequence[Record], str | None]:
        """Return a page of prompts by name, and the cursor of the next."""
        _check_may_read(access)
        limit = query.limit or DEFAULT_PAGE
        async with self._database.connection(access.root) as connection:
            page = await repository.find_page(
                connection, access.root, after=query.cursor or "", limit=limit
            )
        return page.items, page.next_cursor(itemgetter("name"))

    async def pair(self, access: Access, name: str, query: DiffPrompt) -> tuple[Record, Record]:
        """Return a prompt with the two versions that are to be compared."""
        async with self._database.connection(access.root) as connection:
            old = await self._read_ref(connection, access, name, query.old or PRODUCTION)
            if query.new is not None:
                return old, await self._read_ref(connection, access, name, query.new)
            try:
                return old, await self._read_ref(connection, access, name, CANDIDATE)
            except PromptLabelNotFoundError:
                return old, await self.read(connection, access, name)

    async def put(
        self, access: Access, name: str, body: PutPrompt, precondition: Precondition
    ) -> tuple[Record, bool]:
        """Write a prompt's whole next state; return it, and whether it is new."""
        ref, change = self._admin(access, name)
        async with self._changing(ref, precondition) as connection:
            row = await repository.find(connection, ref)
            await changing.write(connection, ref, row, body, change)
            return await changing.find(connection, ref), row is None

    async def move_label(
        self, access: Access, name: str, body: PromotePrompt, precondition: Precondition
    ) -> Record:
        """Let a label point to a version; return the prompt with that version."""
        ref, _ = self._admin(access, name)
        label = body.label or PRODUCTION
        source = body.from_label or (CANDIDATE if body.version is None else None)
        async with self._changing(ref, precondition) as connection:
            row = await changing.find(connection, ref, label=source, version=body.version)
            await self.promote(connection, access, name, version=row["version"], label=label)
            return await changing.find(connection, ref, label=label)

    async def roll_back(
        self, access: Access, name: str, label: str, precondition: Precondition
    ) -> Record:
        """Let a label point to where it pointed before; return the prompt with that version.

        Raises NothingToRollBackError.
        """
        ref, change = self._admin(access, name)
        async with self._changing(ref, precondition) as connection:
            row = await changing.find(connection, ref, label=label)
            if not await repository.point_back(connection, ref, label, change):
                raise NothingToRollBackError(name, label, row["version"])
            await repository.touch(connection, ref, change)
            return await changing.find(connection, ref, label=label)

    async def delete_label(
        self, access: Access, name: str, label: str, precondition: Precondition
    ) -> None:
        """Remove a label, whether or not it exists."""
        ref, change = self._admin(access, name)
        async with self._changing(ref, precondition) as connection:
            if await repository.delete_label(connection, ref, label):
                await repository.touch(connection, ref, change)

    async def delete(self, access: Access, name: str, precondition: Precondition) -> None:
        """Remove a prompt with all its versions, whether or not it exists."""
        ref, _ = self._admin(access, name)
        async with self._changing(ref, precondition) as connection:
            await repository.delete(connection, ref)

    async def read(
        self,
        connection: Connection,
        access: Access,
        name: str,
        *,
        label: str | None = None,
        version: int | None = None,
    ) -> Record:
        """Return a prompt with the version asked for, or its newest.

        Raises PromptNotFoundError, PromptLabelNotFoundError, PromptVersionNotFoundError.
        """
        _check_may_read(access)
        return await changing.find(connection, Ref(access.root, name), label=label, version=version)

    async def add_version(
        self,
        connection: Connection,
        access: Access,
        name: str,
        text: str,
        *,
        based_on: int | None,
        analysis: str | None,
    ) -> int:
        """Add a version in the caller's transaction, and let `candidate` point to it.

        Returns its number; that of the newest version when it has this text. Nobody else changes
        the prompt before the transaction's end; who changes several takes them by name, or two
        wait for each other. Raises PromptNotFoundError, and InvalidRequestError for a text that
        no prompt can have.
        """
        access.locate([], Verb.WRITE)
        _check_text(text)
        ref, change = Ref(access.root, name), self._change(access)
        await repository.lock(connection, ref)
        row = await changing.find(connection, ref)
        number = int(row["newest"])
        is_new = text != row["text"]
        if is_new:
            number += 1
            version = Version(number, text, based_on, analysis)
            await repository.add_version(connection, ref, version, change)
        if await changing.point(connection, ref, CANDIDATE, number, change) or is_new:
            await repository.touch(connection, ref, change, newest=number)
        return number

    async def promote(
        self,
        connection: Connection,
        access: Access,
        name: str,
        *,
        version: int,
        label: str = PRODUCTION,
    ) -> None:
        """Let a label point to a version in the caller's transaction.

        Raises PromptNotFoundError and PromptVersionNotFoundError.
        """
        access.locate([], Verb.ADMIN)
        ref, change = Ref(access.root, name), self._change(access)
        await repository.lock(connection, ref)
        await changing.find(connection, ref, version=version)  # raises where there is none
        if await changing.point(connection, ref, label, version, change):
            await repository.touch(connection, ref, change)

    async def _read_ref(
        self, connection: Connection, access: Access, name: str, version_or_label: str
    ) -> Record:
        if not version_or_label.isdecimal():
            return await self.read(connection, access, name, label=version_or_label)
        number = int(version_or_label)
        if number > MAX_VERSION:  # more than the database can look for
            newest = await self.read(connection, access, name)
            raise PromptVersionNotFoundError(name, number, newest["version"])
        return await self.read(connection, access, name, version=number)

    def _admin(self, access: Access, name: str) -> tuple[Ref, Change]:
        access.locate([], Verb.ADMIN)
        return Ref(access.root, name), self._change(access)

    def _change(self, access: Access) -> Change:
        return Change(access.actor, self._clock.now())

    @asynccontextmanager
    async def _changing(self, ref: Ref, precondition: Precondition) -> AsyncIterator[Connection]:
        """Lend a connection for a change; raises PreconditionFailedError."""
        async with self._database.transaction(ref.root) as connection:
            await repository.lock(connection, ref)
            if precondition:
                row = await repository.find(connection, ref)
                revision = None if row is None else row["revision"]
                if not precondition.holds(revision):
                    raise PreconditionFailedError(
                        f'the prompt "{ref.name}"', revision, counter="revision"
                    )
            yield connection


def _check_text(text: str) -> None:
    try:
        check_text(text)
    except ValueError as error:
        raise InvalidRequestError(f"The text {error}.", field="text") from error


def _check_may_read(access: Access) -> None:
    if not access.may(Verb.READ):
        raise ForbiddenError(access.actor, Verb.READ)
