"""Plans of optimize jobs: everything is decided when the job is submitted."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, PlainSerializer

from app.auth.access import Access, Verb
from app.background import TimeSlice
from app.conversations.messages import (
    MAX_MESSAGES,
    ConversationMessage,
    Turn,
    parse_messages,
    to_turns,
)
from app.conversations.prompt_text import render_text
from app.db.database import Connection, Database
from app.errors import InvalidRequestError
from app.jobs.kind import JobPlan
from app.jobs.record import NewJob
from app.namespaces import Root, StoredNamespace
from app.prompts import repository
from app.prompts.evaluation import Case, check_conversation
from app.prompts.job_schemas import (
    EvaluationCase,
    EvaluationRequest,
    FeedbackInput,
    OptimizePrompt,
    PromptToOptimize,
    TrajectoryInput,
)
from app.prompts.optimizer_requests import MAX_CHARACTERS
from app.prompts.repository import Ref
from app.prompts.service import PromptService
from app.prompts.texts import list_variables
from app.prompts.types import (
    OPTIONS,
    PRODUCTION,
    Feedback,
    OptimizerConfig,
    OptimizerKind,
    TargetPrompt,
    Trajectory,
)
from app.providers.llm import LLMPool
from app.resources import Resources
from app.threads import repository as threads_repository
from app.threads.repository import ThreadRef
from app.threads.service import ThreadNotFoundError, ThreadService

MAX_TRIALS = 100
"""Trials of a prompt on a case, with four calls each, that fit into the time of one attempt."""

DEFAULT_MARGIN = 0.1

StoredMessage = Annotated[ConversationMessage, PlainSerializer(ConversationMessage.members)]
"""A message of a plan, stored as the client sent it."""


class PlannedPrompt(BaseModel):
    """A prompt to improve; `version` is the number of the stored one, None if nothing is stored."""

    name: str
    text: str
    update_instructions: str | None
    when_to_update: str | None
    version: int | None

    def to_target(self) -> TargetPrompt:
        """Return the prompt as optimizers take it."""
        return TargetPrompt(self.name, self.text, self.update_instructions, self.when_to_update)


class PlannedTrajectory(BaseModel):
    """A conversation: its messages, or their range in a thread, including `last`.

    `namespace` is the thread's stored namespace.
    """

    messages: list[StoredMessage] | None
    thread_id: str | None
    namespace: StoredNamespace | None = None
    first: int
    last: int
    feedback: FeedbackInput | None

    def to_feedback(self) -> Feedback | None:
        """Return the feedback as optimizers take it."""
        return None if self.feedback is None else self.feedback.to_feedback()


class PlannedCase(BaseModel):
    """A case, and the only prompt it is about, if there is one."""

    messages: list[StoredMessage]
    expected: str
    variables: dict[str, str]
    prompt: str | None

    def to_case(self) -> Case:
        """Return the case as the gate takes it; raises InvalidMessageError."""
        return Case(to_turns(self.messages), self.expected, self.variables)


class PlannedEvaluation(BaseModel):
    """How new texts are tried."""

    cases: list[PlannedCase]
    model: str | None
    judge: str | None
    margin: float
    promote: bool

    def cases_of(self, prompt: str) -> list[PlannedCase]:
        """Return the cases that concern a prompt."""
        return [case for case in self.cases if case.prompt in (None, prompt)]


class OptimizePlan(JobPlan):
    """The plan of a job that improves prompts; without a `model`, the default one is asked."""

    job_kind = "optimize_prompt"

    prompts: list[PlannedPrompt]
    kind: OptimizerKind
    config: OptimizerConfig
    model: str | None
    trajectories: list[PlannedTrajectory]
    evaluation: PlannedEvaluation | None


class OptimizePlanner:
    """Plans jobs that improve prompts."""

    def __init__(
        self, database: Database, llms: LLMPool, prompts: PromptService, threads: ThreadService
    ) -> None:
        self._database = database
        self._llms = llms
        self._prompts = prompts
        self._threads = threads

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the planner from a process's resources."""
        return cls(
            resources.database,
            resources.llms,
            PromptService.build(resources),
            ThreadService.build(resources),
        )

    async def plan(self, access: Access, body: OptimizePrompt) -> NewJob:
        """Return the job that a request asks for.

        Raises ForbiddenError, InvalidRequestError, LLMNotConfiguredError, InvalidMessageError,
        ThreadNotFoundError, and the errors of reading prompts.
        """
        _check_access(access, body)
        self._llms.check(body.model)
        trajectories = [
            await self._plan_trajectory(access, given, index)
            for index, given in enumerate(body.trajectories)
        ]
        async with self._database.connection(access.root) as connection:
            prompts = [
                await self._plan_prompt(connection, access, given) for given in body.all_prompts
            ]
            await read_trajectories(connection, access.root, trajectories)
        _check_prompt_length(prompts)
        plan = OptimizePlan(
            prompts=prompts,
            kind=body.kind or "gradient",
            config=_plan_config(body),
            model=self._llms.require(body.model) if trajectories else None,
            trajectories=trajectories,
            evaluation=body.evaluation and self._plan_evaluation(body.evaluation, prompts),
        )
        return plan.new_job(access.root)

    async def _plan_prompt(
        self, connection: Connection, access: Access, given: PromptToOptimize
    ) -> PlannedPrompt:
        if given.text is not None:
            return PlannedPrompt(**given.model_dump(exclude={"label", "version"}), version=None)
        label = given.label
        if label is None and given.version is None:
            labels = await repository.find_labels(connection, Ref(access.root, given.name))
            label = PRODUCTION if PRODUCTION in labels else None
        stored = await self._prompts.read(
            connection, access, given.name, label=label, version=given.version
        )
        return PlannedPrompt(
            name=given.name,
            text=stored.text,
            update_instructions=_prefer(given.update_instructions, stored.update_instructions),
            when_to_update=_prefer(given.when_to_update, stored.when_to_update),
            version=stored.version,
        )

    async def _plan_trajectory(
        self, access: Access, given: TrajectoryInput, index: int
    ) -> PlannedTrajectory:
        if given.thread_id is None:
            return PlannedTrajectory(
                messages=given.messages, thread_id=None, first=0, last=0, feedback=given.feedback
            )
        place = f"trajectories[{index}]"
        try:
            thread = await self._threads.get_readable(access, given.thread_id)
        except ThreadNotFoundError as error:
            raise error.within(place) from None
        first, end = given.first or 0, thread.next_position - 1
        last = end if given.last is None else min(given.last, end)
        if last - first >= MAX_MESSAGES:
            raise InvalidRequestError(
                f"{place} has {last - first + 1:,} messages; send positions (first, last) of at "
                f"most {MAX_MESSAGES:,}.",
                field=place,
            )
        return PlannedTrajectory(
            messages=None,
            thread_id=given.thread_id,
            namespace=thread.namespace,
            first=first,
            last=last,
            feedback=given.feedback,
        )

    def _plan_evaluation(
        self, given: EvaluationRequest, prompts: Sequence[PlannedPrompt]
    ) -> PlannedEvaluation:
        planned = [_plan_case(case, index, prompts) for index, case in enumerate(given.cases)]
        _check_case_length([case for _, case in planned])
        evaluation = PlannedEvaluation(
            cases=[plan for plan, _ in planned],
            model=self._llms.require(given.model),
            judge=self._llms.require(given.judge),
            margin=DEFAULT_MARGIN if given.margin is None else given.margin,
            promote=given.promote is not False,
        )
        _check_trials(evaluation, prompts)
        return evaluation


async def plan_optimize(resources: Resources, access: Access, body: OptimizePrompt) -> NewJob:
    """Return the job for a request; raises as `OptimizePlanner.plan`."""
    return await OptimizePlanner.build(resources).plan(access, body)


async def read_trajectories(
    connection: Connection, root: Root, planned: Sequence[PlannedTrajectory]
) -> list[Trajectory]:
    """Return trajectories with their messages.

    Raises, naming the trajectory, ThreadNotFoundError, InvalidMessageError, and
    InvalidRequestError if one has no text, or if all together are too long.
    """
    trajectories, characters, time_slice = [], 0, TimeSlice()
    for index, one in enumerate(planned):
        trajectories.append(await _read_trajectory(connection, root, one, index))
        characters += _count_characters(trajectories[-1])
        await time_slice.give_way()
    if characters > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"The trajectories have {characters:,} characters; one job takes at most "
            f"{MAX_CHARACTERS:,}. Send the most important ones, or several jobs.",
            field="trajectories",
        )
    return trajectories


async def _read_trajectory(
    connection: Connection, root: Root, planned: PlannedTrajectory, index: int
) -> Trajectory:
    place = f"trajectories[{index}]"
    try:
        turns = await _read_turns(connection, root, planned)
    except (ThreadNotFoundError, InvalidRequestError) as error:
        raise error.within(place) from None
    if not any(turn.text.strip() for turn in turns):
        problem = "has no messages that say anything; send others, or leave it out"
        raise InvalidRequestError(f"{place} {problem}.", field=place)
    return Trajectory(turns, planned.to_feedback())


async def _read_turns(connection: Connection, root: Root, planned: PlannedTrajectory) -> list[Turn]:
    if planned.messages is not None:
        return to_turns(planned.messages)
    ref = ThreadRef(root, planned.thread_id or "", planned.namespace or root)
    if await threads_repository.find(connection, ref) is None:
        raise ThreadNotFoundError(ref.thread_id)
    messages = await threads_repository.find_messages(
        connection, ref, planned.first, planned.last + 1
    )
    return to_turns(parse_messages([message.members for message in messages]))


def _count_characters(trajectory: Trajectory) -> int:
    messages = sum(len(render_text(turn)) for turn in trajectory.turns)
    if (feedback := trajectory.feedback) is None:
        return messages
    more = 0 if feedback.more is None else len(str(feedback.more))
    return messages + len(feedback.comment or "") + len(feedback.edited_answer or "") + more


def _check_access(access: Access, body: OptimizePrompt) -> None:
    """Raise ForbiddenError unless the caller may do everything that the job may do."""
    access.authorize([], Verb.JOBS)
    if any(prompt.text is None for prompt in body.all_prompts):
        access.authorize([], Verb.WRITE)
        if body.evaluation is not None and body.evaluation.promote is not False:
            access.authorize([], Verb.ADMIN)


def _plan_config(body: OptimizePrompt) -> OptimizerConfig:
    if body.config is None:
        return OptimizerConfig()
    kind = body.kind or "gradient"
    for option in body.config.model_dump(exclude_none=True):
        if option not in OPTIONS[kind]:
            options = ", ".join(sorted(OPTIONS[kind])) or "no config at all"
            raise InvalidRequestError(
                f"The kind {kind} has no config.{option}; it takes {options}.",
                field=f"config.{option}",
            )
    return body.config.to_config()


def _prefer(given: str | None, stored: str | None) -> str | None:
    return stored if given is None else given


def _check_prompt_length(prompts: Sequence[PlannedPrompt]) -> None:
    characters = sum(
        len(text)
        for prompt in prompts
        for text in (prompt.text, prompt.update_instructions or "", prompt.when_to_update or "")
    )
    if characters > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"The prompts have {characters:,} characters; one job improves at most "
            f"{MAX_CHARACTERS:,}. Send several jobs.",
            field="prompts",
        )


def _plan_case(
    given: EvaluationCase, index: int, prompts: Sequence[PlannedPrompt]
) -> tuple[PlannedCase, Case]:
    planned = PlannedCase(
        messages=given.messages,
        expected=given.expected,
        variables=given.variables or {},
        prompt=given.prompt,
    )
    try:
        case = planned.to_case()
        check_conversation(case.turns)
        _check_variables(planned, prompts)
    except InvalidRequestError as error:
        raise error.within(f"evaluation.cases[{index}]") from None
    return planned, case


def _check_variables(case: PlannedCase, prompts: Sequence[PlannedPrompt]) -> None:
    """Raise InvalidRequestError unless a case has the variables of each prompt it is about."""
    concerned = [prompt for prompt in prompts if case.prompt in (None, prompt.name)]
    if not concerned:
        names = ", ".join(prompt.name for prompt in prompts)
        raise InvalidRequestError(
            f'"{case.prompt}" is none of the prompts to improve ({names}).', field="prompt"
        )
    for prompt in concerned:
        for name in list_variables(prompt.text):
            if name not in case.variables:
                raise InvalidRequestError(
                    f'The prompt "{prompt.name}" needs the variable "{name}"; send it.',
                    field=f"variables.{name}",
                )


def _check_trials(evaluation: PlannedEvaluation, prompts: Sequence[PlannedPrompt]) -> None:
    trials = sum(len(evaluation.cases_of(prompt.name)) for prompt in prompts)
    if trials > MAX_TRIALS:
        raise InvalidRequestError(
            f"{len(evaluation.cases)} cases for {len(prompts)} prompts are {trials} trials; one "
            f"job makes at most {MAX_TRIALS}. Say which prompt each case is about, or send fewer.",
            field="evaluation.cases",
        )


def _check_case_length(cases: Sequence[Case]) -> None:
    characters = sum(
        sum(len(turn.text) for turn in case.turns)
        + len(case.expected)
        + sum(map(len, case.variables.values()))
        for case in cases
    )
    if characters > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"The cases have {characters:,} characters; one job tries at most {MAX_CHARACTERS:,}.",
            field="evaluation.cases",
        )
