"""The job that improves prompts."""

from collections.abc import Mapping, Sequence
from typing import Self

from app.changes.applier import access_for_job
from app.db.database import Connection, Database
from app.jobs.run import JobRun
from app.prompts.jobs.improving import Improvement, Improver
from app.prompts.jobs.plans import OptimizePlan
from app.prompts.jobs.results import result_of
from app.prompts.jobs.storing import PromptWriter, Stored
from app.prompts.jobs.trajectories import read_trajectories
from app.prompts.service import PromptService
from app.providers.llm.pool import LLMPool
from app.resources import Resources


class OptimizeHandler:
    """Does the jobs of the kind `optimize_prompt`."""

    def __init__(self, database: Database, llms: LLMPool, prompts: PromptService) -> None:
        self._database = database
        self._llms = llms
        self._prompts = prompts

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the handler from a process's resources."""
        return cls(resources.database, resources.llms, PromptService.build(resources))

    async def run(self, run: JobRun, plan: OptimizePlan) -> None:
        """Improve prompts, try them where that is asked for, and store what is new."""
        root = run.job.access.root
        async with self._database.connection(root) as connection:
            trajectories = await read_trajectories(connection, root, plan.trajectories)
        improved = await Improver(run, self._llms, plan).improve(trajectories)
        async with self._database.transaction(root) as connection:
            stored = await self._stored(connection, run, plan, improved)
            result = [result_of(new, stored.get(new.prompt.name)) for new in improved]
            await run.finish(connection, {"prompts": result})

    async def _stored(
        self,
        connection: Connection,
        run: JobRun,
        plan: OptimizePlan,
        improved: Sequence[Improvement],
    ) -> Mapping[str, Stored]:
        """Store new texts of stored prompts, in the order of names, as they are locked."""
        writer = PromptWriter(
            self._prompts,
            connection,
            access_for_job(run.job.access, run.job.id),
            promote=plan.evaluation is not None and plan.evaluation.promote,
        )
        new = [one for one in improved if one.outcome == "improved" and one.prompt.version]
        in_order = sorted(new, key=lambda one: one.prompt.name)
        return {one.prompt.name: await writer.store(one) for one in in_order}
