"""Stored managers, and what a job that names or brings one is going to do."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Self

from asyncpg import Record

from app.auth.access import Access, Verb
from app.clock import Clock
from app.conversations.messages import to_turns
from app.conversations.namespace_template import is_reachable, place
from app.conversations.prompt_text import render_text
from app.db.database import Database
from app.errors import InvalidRequestError
from app.http.conditional import Precondition, PreconditionFailedError
from app.jobs.record import NewJob
from app.managers import repository
from app.managers.errors import ManagerNotFoundError
from app.managers.plans import Config, ConsolidatePlan, ExtractPlan, given_memories
from app.managers.schemas import (
    MAX_CHARACTERS,
    ConsolidateRequest,
    ExtractRequest,
    ListManagers,
    ManagerChoice,
    ManagerConfig,
)
from app.namespaces import to_stored
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from app.store.service import check_not_reserved
from app.time_slice import TimeSlice

FORMING = frozenset({Verb.JOBS, Verb.READ, Verb.WRITE})
"""What forming memories takes in their namespace."""

DEFAULT_PAGE = 100
DEFAULT_CONSOLIDATED = 200


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The manager of a job: a stored one, with its name and version, or the request's own."""

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
        """Make the service from a process's resources."""
        return cls(resources.database, resources.llms, resources.clock)

    async def get(self, access: Access, name: str) -> Record:
        """Return a manager's row; raises ManagerNotFoundError."""
        access.authorize([], Verb.READ)
        return await self._find(access, name)

    async def list(
        self, access: Access, query: ListManagers
    ) -> tuple[Sequence[Record], str | None]:
        """Return a page of managers by name, and the cursor of the next."""
        access.authorize([], Verb.READ)
        limit = query.limit or DEFAULT_PAGE
        async with self._database.connection(access.root) as connection:
            page = await repository.find_page(
                connection, access.root, after=query.cursor or "", limit=limit
            )
        return page.items, page.next_cursor(itemgetter("name"))

    async def put(
        self, access: Access, name: str, config: ManagerConfig, precondition: Precondition
    ) -> tuple[Record, bool]:
        """Create or replace a manager; return its row, and whether it is new."""
        access.authorize([], Verb.ADMIN)
        self._llms.check(config.model, config.query_model)
        text = config.model_dump_json(exclude_unset=True, by_alias=True)
        async with self._database.transaction(access.root) as connection:
            await repository.lock(connection, access.root, name)
            row = await repository.find(connection, access.root, name)
            _check(precondition, name, row)
            now = self._clock.now()
            return await repository.write(connection, access.root, name, text, now), row is None

    async def delete(self, access: Access, name: str, precondition: Precondition) -> None:
        """Remove a manager, whether or not it exists; jobs that wait go on as they were asked."""
        access.authorize([], Verb.ADMIN)
        async with self._database.transaction(access.root) as connection:
            await repository.lock(connection, access.root, name)
            _check(precondition, name, await repository.find(connection, access.root, name))
            await repository.delete(connection, access.root, name)

    async def plan_extract(self, access: Access, body: ExtractRequest) -> NewJob:
        """Return the job that a request asks for; raises the errors of `extraction`.

        Raises InvalidRequestError where it would read more than a model can.
        """
        time_slice = TimeSlice()
        plan = await self.extraction(access, body)
        await time_slice.give_way()
        _check_length(plan)
        await time_slice.give_way()
        stored = None if plan.namespace is None else access.root + to_stored(plan.namespace)
        return plan.new_job(
            access.root if stored is None else stored,
            concurrency_key=stored,
            manager=plan.manager,
            thread_id=plan.thread_id,
        )

    async def extraction(self, access: Access, body: ExtractRequest) -> ExtractPlan:
        """Decide everything about an extraction.

        Raises ManagerNotFoundError, MissingVariableError, UnknownVariableError,
        InvalidMessageError, InvalidRequestError, ForbiddenError and LLMNotConfiguredError.
        """
        if body.namespace is not None:
            _check_place(
                access, body.namespace
            )  # before the lookup, so that the answer reveals no managers
        ways = () if body.namespace is not None else (FORMING,)
        chosen = await self._choice(access, body, ways)
        config = _overridden(Config.of(chosen.config, deletes=False), body)
        namespace = _namespace(chosen.config, body)
        to_turns(body.messages)  # raises where the job could not read them
        _check_state(config, namespace, body)
        _check_extraction(access, config, namespace)
        given = await asyncio.to_thread(given_memories, body.existing or (), config.kinds)
        return ExtractPlan(
            config=self._with_models(config) if config.strategy == "llm" else config,
            manager=chosen.name,
            manager_version=chosen.version,
            namespace=namespace,
            messages=[message.members() for message in body.messages],
            existing=given,
            thread_id=body.thread_id,
            position=_position(body),
        )

    async def plan_consolidate(self, access: Access, body: ConsolidateRequest) -> NewJob:
        """Return the job that a request asks for.

        Raises ManagerNotFoundError, ForbiddenError and LLMNotConfiguredError.
        """
        for verb in (Verb.READ, Verb.WRITE, Verb.DELETE):
            access.authorize(body.namespace, verb)
        stored = access.authorize(body.namespace, Verb.JOBS)
        chosen = await self._choice(access, body)
        config = _overridden(Config.of(chosen.config, deletes=True), body)
        strategy = body.strategy or ("llm" if config.strategy == "llm" else "duplicates")
        plan = ConsolidatePlan(
            config=self._with_models(config) if strategy == "llm" else config,
            manager=chosen.name,
            manager_version=chosen.version,
            namespace=body.namespace,
            strategy=strategy,
            everything=bool(body.everything),
            limit=body.limit or DEFAULT_CONSOLIDATED,
        )
        return plan.new_job(stored, concurrency_key=stored, manager=plan.manager)

    async def template(self, access: Access, name: str) -> Sequence[str] | None:
        """Return where a stored manager keeps memories; raises ManagerNotFoundError."""
        return (await self.config(access, name, (FORMING,))).namespace

    async def config(
        self, access: Access, name: str, ways: Collection[Collection[Verb]] = ()
    ) -> ManagerConfig:
        """Return a stored manager's configuration; raises ManagerNotFoundError.

        It is also raised if the caller may use the manager's namespace in none of the `ways`, each
        of which takes all of its verbs; with no ways, that namespace does not matter.
        """
        return (await self._stored(access, name, ways)).config

    async def _choice(
        self, access: Access, choice: ManagerChoice, ways: Collection[Collection[Verb]] = ()
    ) -> _Chosen:
        if choice.manager is None:
            config = choice.manager_config or ManagerConfig()
            self._llms.check(config.model, config.query_model)
            return _Chosen(config)
        return await self._stored(access, choice.manager, ways)

    async def _stored(
        self, access: Access, name: str, ways: Collection[Collection[Verb]]
    ) -> _Chosen:
        row = await self._find(access, name)
        config = ManagerConfig.model_validate_json(row["config"])
        template = config.namespace or []
        if not template and FORMING in ways:
            ways = ({Verb.JOBS},)  # what is not stored takes nothing else
        if ways and not any(is_reachable(access, template, verbs) for verbs in ways):
            raise ManagerNotFoundError(name)
        self._llms.check(config.model, config.query_model)
        return _Chosen(config, row["name"], row["version"])

    async def _find(self, access: Access, name: str) -> Record:
        async with self._database.connection(access.root) as connection:
            row = await repository.find(connection, access.root, name)
        if row is None:
            raise ManagerNotFoundError(name)
        return row

    def _with_models(self, config: Config) -> Config:
        """Return the configuration; raises LLMNotConfiguredError if its models cannot be asked."""
        self._llms.require(config.model)
        if config.query_model is not None:
            self._llms.require(config.query_model)
        return config


def _position(body: ExtractRequest) -> int | None:
    """Return where in its thread a conversation begins: there, unless it says otherwise."""
    return 0 if body.position is None and body.thread_id is not None else body.position


def _check(precondition: Precondition, name: str, row: Record | None) -> None:
    version = None if row is None else row["version"]
    if not precondition.holds(version):
        raise PreconditionFailedError(f'the manager "{name}"', version)


def _overridden(config: Config, body: ExtractRequest | ConsolidateRequest) -> Config:
    """Return the configuration with what the request says otherwise."""
    asked = {name: getattr(body, name, None) for name in ("apply", "max_steps")}
    return config.model_copy(update={name: given for name, given in asked.items() if given})


def _namespace(config: ManagerConfig, body: ExtractRequest) -> list[str] | None:
    """Return the labels under which memories are kept; None: nowhere."""
    if body.namespace is None:
        labels = place(config.namespace or [], body.variables or {})
    else:
        place([], body.variables or {})  # variables of a namespace that has none are a mistake
        labels = body.namespace
    check_not_reserved(labels)
    return labels or None


def _check_state(config: Config, namespace: list[str] | None, body: ExtractRequest) -> None:
    """Raise InvalidRequestError where it does not go together what is known and kept."""
    if namespace is not None and body.existing is not None:
        raise InvalidRequestError(
            "existing is given, but the namespace has the existing memories; leave existing out, "
            "or send no namespace.",
            field="existing",
        )
    if namespace is None and config.strategy == "verbatim":
        raise InvalidRequestError(
            "The strategy verbatim only stores messages, and no namespace says where; send one.",
            field="namespace",
        )


def _check_length(plan: ExtractPlan) -> None:
    """Raise InvalidRequestError where no model could read the messages at once."""
    if plan.config.strategy == "llm":
        shown = sum(len(render_text(turn)) for turn in to_turns(plan.messages))
        if shown > MAX_CHARACTERS:
            raise InvalidRequestError(
                f"The messages have {shown:,} characters; one job learns from at most "
                f"{MAX_CHARACTERS:,}. Append them to a thread, which is learned from in portions: "
                "POST /v1/threads/{id}/messages.",
                field="messages",
            )


def _check_extraction(access: Access, config: Config, namespace: list[str] | None) -> None:
    """Raise ForbiddenError unless the caller may do all that the job may do."""
    if namespace is None:
        access.authorize([], Verb.JOBS)
    else:
        _check_place(access, namespace)
        if config.may_delete and config.strategy == "llm":
            access.authorize(namespace, Verb.DELETE)


def _check_place(access: Access, namespace: list[str]) -> None:
    """Raise ForbiddenError unless the caller may have memories formed in a namespace."""
    for verb in (Verb.JOBS, Verb.READ, Verb.WRITE):
        access.authorize(namespace, verb)
