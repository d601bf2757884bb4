"""Runs, as LangMem's remote executor creates them: extraction from a conversation, later."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from pydantic import TypeAdapter

from app.auth.access import Access
from app.clock import Clock
from app.conversations.messages import ConversationMessage
from app.conversations.namespace_template import fill_template
from app.db.database import Database
from app.db.idempotency import IdempotentRequest
from app.extraction.plan import ExtractCommand, ExtractPlanner
from app.jobs.service import JobService
from app.managers.service import EXTRACT_VERBS, ManagerService
from app.resources import Resources
from app.threads.schedule import require_namespace
from app.threads.service import (
    AppendPlan,
    ThreadNotFoundError,
    append,
    authorize_append,
    find_visible,
)

# LangMem 0.0.30 sends the text of a placeholder object if no thread was named.
_PLACEHOLDER = re.compile(r"<object object at 0x[0-9a-f]+>")


def is_placeholder(thread_id: str) -> bool:
    """Return whether LangMem's executor means no thread; all users would share this one."""
    return _PLACEHOLDER.fullmatch(thread_id) is not None


@dataclass(frozen=True, slots=True)
class RunCommand:
    """A run to create; `template` replaces the manager's namespace template."""

    manager: str
    messages: Sequence[ConversationMessage]
    template: Sequence[str] | None
    variables: Mapping[str, str]
    thread_id: str | None
    creates_thread: bool
    after_seconds: float


@dataclass(frozen=True, slots=True)
class RunReceipt:
    """A run that was created."""

    job_id: str
    thread_id: str | None
    created_at: datetime


_RECEIPT: TypeAdapter[RunReceipt] = TypeAdapter(RunReceipt)


class RunService:
    """Runs on behalf of one caller."""

    def __init__(
        self,
        database: Database,
        jobs: JobService,
        managers: ManagerService,
        planner: ExtractPlanner,
        clock: Clock,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._managers = managers
        self._planner = planner
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            JobService.build(resources),
            ManagerService.build(resources),
            ExtractPlanner.build(resources),
            resources.clock,
        )

    async def create(
        self, access: Access, command: RunCommand, idempotent: IdempotentRequest
    ) -> RunReceipt:
        """Submit the extraction from a conversation without a thread."""
        if (known := await idempotent.find_answer(self._database)) is not None:
            return _RECEIPT.validate_python(known)
        extraction = await self._extract_command(access, command)
        planned = await self._planner.plan_job(access, extraction)
        new = replace(planned, delay_seconds=command.after_seconds)
        async with self._database.transaction(access.root) as connection:
            if (answer := await idempotent.claim(connection)) is not None:
                return _RECEIPT.validate_python(answer)
            job_id = await self._jobs.create(connection, access, new)
            receipt = RunReceipt(job_id, None, self._clock.now())
            answer = _RECEIPT.dump_python(receipt, mode="json")
            await idempotent.remember(connection, answer)
        return receipt

    async def create_in_thread(
        self, access: Access, thread_id: str, command: RunCommand, idempotent: IdempotentRequest
    ) -> RunReceipt:
        """Append the new messages of a conversation to its thread, and postpone its job."""
        if (known := await idempotent.find_answer(self._database)) is not None:
            return _RECEIPT.validate_python(known)
        extraction = await self._extract_command(access, command)
        plan = require_namespace(await self._planner.plan(access, extraction))
        planned = AppendPlan(
            thread_id=thread_id,
            messages=[message.members() for message in command.messages],
            namespace=plan.namespace,
            extraction=plan,
            after_seconds=command.after_seconds,
            is_run=True,
        )
        async with self._database.transaction(access.root) as connection:
            ref = await authorize_append(connection, access, planned)
            if (answer := await idempotent.claim(connection)) is not None:
                return _RECEIPT.validate_python(answer)
            exists = bool(await find_visible(connection, access, thread_id))
            if not exists and not command.creates_thread:
                raise ThreadNotFoundError(thread_id)
            now = self._clock.now()
            result = await append(connection, access, self._jobs, ref, planned, now)
            receipt = RunReceipt(result.job_id or "", thread_id, now)  # a run always has a job
            answer = _RECEIPT.dump_python(receipt, mode="json")
            await idempotent.remember(connection, answer)
        return receipt

    async def _extract_command(self, access: Access, command: RunCommand) -> ExtractCommand:
        """Return the extraction that a run stands for."""
        template = command.template
        if not template:
            config = await self._managers.config(access, command.manager, (EXTRACT_VERBS,))
            template = config.namespace
        return ExtractCommand(
            manager=command.manager,
            namespace=_namespace(template, command.variables) if template else None,
            messages=command.messages,
            thread_id=command.thread_id,
        )


def _namespace(template: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Fill a template in; LangGraph's `configurable` has variables for other purposes, too."""
    labels = "".join(template)
    used = {name: value for name, value in variables.items() if f"{{{name}}}" in labels}
    return fill_template(template, used, where="config.configurable")
