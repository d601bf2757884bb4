"""Read and write prompts, and move their labels."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from app.auth.access import Access, Verb
from app.auth.errors import ForbiddenError
from app.clock import Clock
from app.db.database import Connection, Database
from app.db.pages import Page
from app.errors import InvalidRequestError
from app.http.headers import Precondition, PreconditionFailedError
from app.prompts import repository
from app.prompts.repository import NewVersion, Ref, Stamp
from app.prompts.types import (
    CANDIDATE,
    MAX_LABELS,
    MAX_VERSION,
    PRODUCTION,
    NothingToRollBackError,
    Prompt,
    PromptLabelNotFoundError,
    PromptState,
    PromptSummary,
    PromptVersion,
    PromptVersionNotFoundError,
    TooManyLabelsError,
    check_text,
)
from app.resources import Resources

UNCOUNTED_LABELS = {PRODUCTION, CANDIDATE}
"""Do not count against MAX_LABELS: a job must be able to store the text it paid for."""


class PromptService:
    """Prompts on behalf of one caller.

    They belong to the root of the caller's key. Reading takes `read` anywhere below it, adding a
    version `write`, and everything else `admin` on the whole root.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(resources.database, resources.clock)

    async def get(
        self, access: Access, name: str, *, label: str | None = None, version: int | None = None
    ) -> Prompt:
        """Return a prompt with one version; raises the errors of `read`."""
        async with self._database.connection(access.root) as connection:
            return await self.read(connection, access, name, label=label, version=version)

    async def list_versions(
        self, access: Access, name: str, *, before: int | None, limit: int
    ) -> tuple[Page[PromptVersion], int]:
        """Return a page of versions, newest first, and the prompt's revision.

        Raises PromptNotFoundError.
        """
        async with self._database.connection(access.root) as connection:
            prompt = await self.read(connection, access, name)
            page = await repository.find_versions(
                connection, Ref(access.root, name), before=before or MAX_VERSION, limit=limit
            )
        return page, prompt.revision

    async def list_prompts(
        self, access: Access, *, after: str | None, limit: int
    ) -> Page[PromptSummary]:
        """Return a page of prompts by name."""
        _check_may_read(access)
        async with self._database.connection(access.root) as connection:
            return await repository.find_page(
                connection, access.root, after=after or "", limit=limit
            )

    async def get_pair(
        self, access: Access, name: str, old: str | None, new: str | None
    ) -> tuple[Prompt, Prompt]:
        """Return a prompt with the two versions to compare, each given by number or label.

        They default to production, and the candidate or else the newest version.
        """
        async with self._database.connection(access.root) as connection:
            before = await self._read_either(connection, access, name, old or PRODUCTION)
            if new is not None:
                return before, await self._read_either(connection, access, name, new)
            try:
                return before, await self.read(connection, access, name, label=CANDIDATE)
            except PromptLabelNotFoundError:
                return before, await self.read(connection, access, name)

    async def put(
        self, access: Access, name: str, state: PromptState, precondition: Precondition
    ) -> tuple[Prompt, bool]:
        """Write a prompt's whole next state; return it, and whether it is new."""
        ref, stamp = self._authorize_admin(access, name)
        async with self._locked(ref, precondition) as connection:
            present = await repository.find(connection, ref)
            await _write(connection, ref, present, state, stamp)
            return await repository.get(connection, ref), present is None

    async def move_label(
        self,
        access: Access,
        name: str,
        label: str,
        precondition: Precondition,
        *,
        from_label: str | None = None,
        version: int | None = None,
    ) -> Prompt:
        """Point a label to a version, by default the candidate; return the prompt with it."""
        ref, _ = self._authorize_admin(access, name)
        source = from_label or (CANDIDATE if version is None else None)
        async with self._locked(ref, precondition) as connection:
            prompt = await repository.get(connection, ref, label=source, version=version)
            await self.promote(connection, access, name, version=prompt.version, label=label)
            return await repository.get(connection, ref, label=label)

    async def roll_back(
        self, access: Access, name: str, label: str, precondition: Precondition
    ) -> Prompt:
        """Point a label to its previous version; return the prompt with that version.

        Raises NothingToRollBackError.
        """
        ref, stamp = self._authorize_admin(access, name)
        async with self._locked(ref, precondition) as connection:
            prompt = await repository.get(connection, ref, label=label)
            if not await repository.roll_back_label(connection, ref, label, stamp):
                raise NothingToRollBackError(name, label, prompt.version)
            await repository.increment_revision(connection, ref, stamp)
            return await repository.get(connection, ref, label=label)

    async def delete_label(
        self, access: Access, name: str, label: str, precondition: Precondition
    ) -> None:
        """Remove a label, whether or not it exists."""
        ref, stamp = self._authorize_admin(access, name)
        async with self._locked(ref, precondition) as connection:
            if await repository.delete_label(connection, ref, label):
                await repository.increment_revision(connection, ref, stamp)

    async def delete(self, access: Access, name: str, precondition: Precondition) -> None:
        """Remove a prompt with all its versions, whether or not it exists."""
        ref, _ = self._authorize_admin(access, name)
        async with self._locked(ref, precondition) as connection:
            await repository.delete(connection, ref)

    async def read(
        self,
        connection: Connection,
        access: Access,
        name: str,
        *,
        label: str | None = None,
        version: int | None = None,
    ) -> Prompt:
        """Return a prompt with the version of a label or number, or its newest.

        Raises PromptNotFoundError, PromptLabelNotFoundError, PromptVersionNotFoundError.
        """
        _check_may_read(access)
        return await repository.get(
            connection, Ref(access.root, name), label=label, version=version
        )

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
        """Add a version in the caller's transaction, and point `candidate` to it.

        Returns its number, or the newest version's if that has the same text. The prompt stays
        locked until the end of the transaction; lock several prompts by name, or deadlocks are
        possible. Raises PromptNotFoundError, and InvalidRequestError for a text that no prompt
        can have.
        """
        access.authorize([], Verb.WRITE)
        _check_text(text)
        ref, stamp = Ref(access.root, name), self._stamp(access)
        await repository.lock(connection, ref)
        present = await repository.get(connection, ref)
        number = present.newest
        is_new = text != present.text
        if is_new:
            number += 1
            version = NewVersion(number, text, based_on, analysis)
            await repository.insert_version(connection, ref, version, stamp)
        if await _point_label(connection, ref, CANDIDATE, number, stamp) or is_new:
            await repository.increment_revision(connection, ref, stamp, newest=number)
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
        """Point a label to a version in the caller's transaction.

        Raises PromptNotFoundError and PromptVersionNotFoundError.
        """
        access.authorize([], Verb.ADMIN)
        ref, stamp = Ref(access.root, name), self._stamp(access)
        await repository.lock(connection, ref)
        await repository.get(connection, ref, version=version)  # raises if it does not exist
        if await _point_label(connection, ref, label, version, stamp):
            await repository.increment_revision(connection, ref, stamp)

    async def _read_either(
        self, connection: Connection, access: Access, name: str, version_or_label: str
    ) -> Prompt:
        if not version_or_label.isdecimal():
            return await self.read(connection, access, name, label=version_or_label)
        number = int(version_or_label)
        if number > MAX_VERSION:  # does not fit into the database's integers
            newest = await self.read(connection, access, name)
            raise PromptVersionNotFoundError(name, number, newest.version)
        return await self.read(connection, access, name, version=number)

    def _authorize_admin(self, access: Access, name: str) -> tuple[Ref, Stamp]:
        access.authorize([], Verb.ADMIN)
        return Ref(access.root, name), self._stamp(access)

    def _stamp(self, access: Access) -> Stamp:
        return Stamp(access.actor, self._clock.now())

    @asynccontextmanager
    async def _locked(self, ref: Ref, precondition: Precondition) -> AsyncIterator[Connection]:
        """Open a transaction that has locked a prompt; raises PreconditionFailedError."""
        async with self._database.transaction(ref.root) as connection:
            await repository.lock(connection, ref)
            if precondition:
                present = await repository.find(connection, ref)
                revision = None if present is None else present.revision
                if not precondition.holds(revision):
                    raise PreconditionFailedError(
                        f'the prompt "{ref.name}"', revision, counter="revision"
                    )
            yield connection


async def _write(
    connection: Connection, ref: Ref, present: Prompt | None, state: PromptState, stamp: Stamp
) -> None:
    """Write a locked prompt's next state, if it differs from the present one."""
    if present is not None and _is_unchanged(present, state):
        return
    is_new_text = present is None or present.text != state.text
    number = (0 if present is None else present.newest) + is_new_text
    instructions = (state.update_instructions, state.when_to_update)
    await repository.upsert(connection, ref, number, instructions, stamp)
    if is_new_text:
        version = NewVersion(number, state.text, analysis=state.analysis)
        await repository.insert_version(connection, ref, version, stamp)
    labels = [PRODUCTION] if present is None and state.labels is None else state.labels or []
    for label in labels:
        await _point_label(connection, ref, label, number, stamp)


def _is_unchanged(present: Prompt, state: PromptState) -> bool:
    return (
        present.text == state.text
        and present.update_instructions == state.update_instructions
        and present.when_to_update == state.when_to_update
        and set(state.labels or ()) <= set(present.labels)
    )


async def _point_label(
    connection: Connection, ref: Ref, label: str, number: int, stamp: Stamp
) -> bool:
    """Point a label to a version; False if it points there already. Raises TooManyLabelsError."""
    moved = await repository.point_label(connection, ref, label, number, stamp)
    if moved and label not in UNCOUNTED_LABELS:
        labels = await repository.find_labels(connection, ref)
        if len(labels.keys() - UNCOUNTED_LABELS) > MAX_LABELS:
            raise TooManyLabelsError(ref.name, MAX_LABELS)
    return moved


def _check_text(text: str) -> None:
    try:
        check_text(text)
    except ValueError as error:
        raise InvalidRequestError(f"The text {error}.", field="text") from error


def _check_may_read(access: Access) -> None:
    if not access.may(Verb.READ):
        raise ForbiddenError(access.actor, Verb.READ)
