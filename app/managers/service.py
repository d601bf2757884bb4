"""Stored managers on behalf of a caller."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from app.auth.access import Access, Verb
from app.clock import Clock
from app.conversations.namespace_template import can_extend
from app.db.database import Database
from app.db.pages import Page
from app.errors import NotFoundError
from app.http.headers import Precondition, PreconditionFailedError
from app.managers import repository
from app.managers.repository import Manager
from app.managers.schemas import ManagerConfig
from app.providers.llm import LLMPool
from app.resources import Resources


class ManagerNotFoundError(NotFoundError):
    """There is no such manager under the key's root."""

    code = "manager_not_found"
    title = "Manager not found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f'There is no manager "{name}". GET /v1/managers lists them, '
            "PUT /v1/managers/{name} makes one."
        )


EXTRACT_VERBS = frozenset({Verb.JOBS, Verb.READ, Verb.WRITE})
"""Verbs that extracting memories needs in their namespace."""


@dataclass(frozen=True, slots=True)
class ChosenManager:
    """The manager of a job: a stored one, or, without name and version, the request's own."""

    config: ManagerConfig
    name: str | None = None
    version: int | None = None


class ManagerService:
    """Managers on behalf of one caller.

    They belong to the root of the key that made them. Writing one takes `admin` on the whole
    root, reading one `read`. A job may name one with no more rights than the job itself takes;
    but a manager that keeps memories where the caller has no grant is hidden from that caller.
    """

    def __init__(self, database: Database, llms: LLMPool, clock: Clock) -> None:
        self._database = database
        self._llms = llms
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Build the service from a process's resources."""
        return cls(resources.database, resources.llms, resources.clock)

    async def get(self, access: Access, name: str) -> Manager:
        """Return a manager; raises ManagerNotFoundError."""
        access.authorize([], Verb.READ)
        return await self._find(access, name)

    async def list(self, access: Access, *, after: str, limit: int) -> Page[Manager]:
        """Return a page of managers by name."""
        access.authorize([], Verb.READ)
        async with self._database.connection(access.root) as connection:
            return await repository.find_page(connection, access.root, after=after, limit=limit)

    async def put(
        self, access: Access, name: str, config: ManagerConfig, precondition: Precondition
    ) -> tuple[Manager, bool]:
        """Create or replace a manager; return it, and whether it is new."""
        access.authorize([], Verb.ADMIN)
        self._llms.check(config.model, config.query_model)
        text = config.model_dump_json(exclude_unset=True, by_alias=True)
        async with self._database.transaction(access.root) as connection:
            await repository.lock(connection, access.root, name)
            before = await repository.find(connection, access.root, name)
            _check(precondition, name, before)
            now = self._clock.now()
            manager = await repository.write(connection, access.root, name, text, now)
            return manager, before is None

    async def delete(self, access: Access, name: str, precondition: Precondition) -> None:
        """Delete a manager, whether or not it exists; submitted jobs are not affected."""
        access.authorize([], Verb.ADMIN)
        async with self._database.transaction(access.root) as connection:
            await repository.lock(connection, access.root, name)
            _check(precondition, name, await repository.find(connection, access.root, name))
            await repository.delete(connection, access.root, name)

    async def config(
        self, access: Access, name: str, alternatives: Collection[Collection[Verb]] = ()
    ) -> ManagerConfig:
        """Return a stored manager's configuration; raises ManagerNotFoundError as `choose` does."""
        return (await self._choose_stored(access, name, alternatives)).config

    async def choose(
        self,
        access: Access,
        name: str | None,
        config: ManagerConfig | None,
        alternatives: Collection[Collection[Verb]] = (),
    ) -> ChosenManager:
        """Return a stored manager, or the one that `config` or every default describes.

        Raises ModelNotAllowedError. Raises ManagerNotFoundError, also for a manager whose
        namespace the caller cannot use: it takes all verbs of at least one of the `alternatives`.
        Without alternatives the namespace does not matter.
        """
        if name is not None:
            return await self._choose_stored(access, name, alternatives)
        config = config or ManagerConfig()
        self._llms.check(config.model, config.query_model)
        return ChosenManager(config)

    async def _choose_stored(
        self, access: Access, name: str, alternatives: Collection[Collection[Verb]]
    ) -> ChosenManager:
        manager = await self._find(access, name)
        config = ManagerConfig.model_validate_json(manager.config)
        template = config.namespace or []
        if not template and EXTRACT_VERBS in alternatives:
            alternatives = ({Verb.JOBS},)  # nothing is stored, so nothing else is needed
        if alternatives and not any(_is_usable(access, template, verbs) for verbs in alternatives):
            raise ManagerNotFoundError(name)
        self._llms.check(config.model, config.query_model)
        return ChosenManager(config, manager.name, manager.version)

    async def _find(self, access: Access, name: str) -> Manager:
        async with self._database.connection(access.root) as connection:
            manager = await repository.find(connection, access.root, name)
        if manager is None:
            raise ManagerNotFoundError(name)
        return manager


def _is_usable(access: Access, template: Sequence[str], verbs: Collection[Verb]) -> bool:
    """Return whether a template can lead to a namespace where all verbs are granted."""
    # The grant with the longest prefix is below all others that would be used.
    return any(
        all(access.allows(grant.prefix, verb) for verb in verbs)
        and can_extend(template, grant.prefix)
        for grant in access.grants
    )


def _check(precondition: Precondition, name: str, manager: Manager | None) -> None:
    version = None if manager is None else manager.version
    if not precondition.holds(version):
        raise PreconditionFailedError(f'the manager "{name}"', version)
