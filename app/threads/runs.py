"""Runs as LangMem's remote executor asks for them: conversations to learn from, later."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Self

from app.auth.access import Access
from app.clock import Clock
from app.conversations.namespace_template import place
from app.db.database import Connection, Database
from app.jobs.idempotency import Idempotent
from app.jobs.service import JobService
from app.managers.schemas import ExtractRequest
from app.managers.service import ManagerService
from app.resources import Resources
from app.threads.appending import Arrival, admit, append, with_place
from app.threads.errors import ThreadNotFoundError
from app.threads.schemas import Configurable, CreateRun
from app.threads.visibility import find_visible

# What LangMem 0.0.30 sends where no thread was named: the text of a placeholder of its own.
_PLACEHOLDER = re.compile(r"<object object at 0x[0-9a-f]+>")


def is_placeholder(thread_id: str) -> bool:
    """Tell whether LangMem's executor means no thread; users would share the one it names."""
    return _PLACEHOLDER.fullmatch(thread_id) is not None


class RunService:
    """Runs on behalf of one caller."""

    def __init__(
        self, database: Database, jobs: JobService, managers: ManagerService, clock: Clock
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._managers = managers
        self._clock = clock

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the service from a process's resources."""
        return cls(
            resources.database,
            JobService.build(resources),
            ManagerService.build(resources),
            resources.clock,
        )

    async def create(self, access: Access, body: CreateRun, idempotent: Idempotent) -> Any:
        """Submit a job that learns from a conversation without a thread."""
        if (known := await idempotent.known(self._database, access)) is not None:
            return known
        asked = await self._managers.plan_extract(access, await self._request(access, body))
        new = replace(asked, delay_seconds=body.after_seconds or 0.0)
        async with self._database.transaction(access.root) as connection:
            run = await idempotent.replayed(connection, access)
            if run is None:
                job_id = await self._jobs.create(connection, access, new)
                run = _run(job_id, None, body, self._clock.now())
                await idempotent.remember(connection, access, run)
        return run

    async def create_in_thread(
        self, access: Access, thread_id: str, body: CreateRun, idempotent: Idempotent
    ) -> Any:
        """Add what is new in a conversation to its thread, and put off the thread's job."""
        if (known := await idempotent.known(self._database, access)) is not None:
            return known
        request = await self._request(access, body, thread_id)
        plan = with_place(await self._managers.extraction(access, request))
        arrival = Arrival(
            thread_id=thread_id,
            messages=[message.members() for message in body.input.messages],
            namespace=plan.namespace,
            plan=plan,
            after_seconds=body.after_seconds or 0.0,
            is_run=True,
        )
        async with self._database.transaction(access.root) as connection:
            ref = await admit(connection, access, arrival)
            run = await idempotent.replayed(connection, access)
            if run is None:
                if body.if_not_exists != "create":
                    await _check_exists(connection, access, thread_id)
                now = self._clock.now()
                appended = await append(connection, access, self._jobs, ref, arrival, now)
                run = _run(appended.job_id, thread_id, body, now)
                await idempotent.remember(connection, access, run)
        return run

    async def _request(
        self, access: Access, body: CreateRun, thread_id: str | None = None
    ) -> ExtractRequest:
        """Return a run as the extraction it stands for."""
        configurable = body.config.configurable if body.config else Configurable()
        template = configurable.namespace or await self._managers.template(
            access, body.assistant_id
        )
        return ExtractRequest(
            manager=body.assistant_id,
            namespace=_placed(template, configurable) if template else None,
            messages=body.input.messages,
            thread_id=thread_id,
        )


def _placed(template: Sequence[str], configurable: Configurable) -> list[str]:
    variables = configurable.variables_in(template)
    return place(template, variables, where="config.configurable")


async def _check_exists(connection: Connection, access: Access, thread_id: str) -> None:
    if not await find_visible(connection, access, thread_id):
        raise ThreadNotFoundError(thread_id)


def _run(
    job_id: str | None, thread_id: str | None, body: CreateRun, now: datetime
) -> dict[str, Any]:
    return {
        "run_id": job_id,
        "thread_id": thread_id,
        "assistant_id": body.assistant_id,
        "status": "pending",
        "created_at": now.isoformat(),
        "updated_at": now.isoformat(),
        "metadata": body.metadata or {},
        "kwargs": {},
        "multitask_strategy": body.multitask_strategy,
    }
