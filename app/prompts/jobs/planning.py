"""What a request to improve prompts comes to: everything is decided when it is submitted."""

from collections.abc import Sequence

from app.auth.access import Access, Verb
from app.db.database import Connection
from app.errors import InvalidRequestError
from app.jobs.job import NewJob
from app.managers.schemas import MAX_MESSAGES
from app.prompts import repository
from app.prompts.evaluation.cases import check_conversation
from app.prompts.filling import variables_of
from app.prompts.jobs.plans import (
    OptimizePlan,
    PlannedCase,
    PlannedEvaluation,
    PlannedPrompt,
    PlannedTrajectory,
)
from app.prompts.jobs.schemas import (
    EvaluationCase,
    EvaluationRequest,
    GivenTrajectory,
    OptimizePrompt,
    PromptToOptimize,
)
from app.prompts.jobs.trajectories import read_trajectories
from app.prompts.optimizing.base import Kind
from app.prompts.optimizing.config import OptimizerConfig
from app.prompts.optimizing.showing import MAX_CHARACTERS
from app.prompts.repository import Ref
from app.prompts.schemas import PRODUCTION
from app.prompts.service import PromptService
from app.providers.llm.pool import LLMPool
from app.resources import Resources
from app.threads.errors import ThreadNotFoundError
from app.threads.service import ThreadService
from app.time_slice import TimeSlice

MAX_TRIALS = 100
"""Of a prompt on a case: four calls each, which have to fit into the time of one attempt."""

DEFAULT_MARGIN = 0.1

_OPTIONS: dict[Kind, frozenset[str]] = {
    "gradient": frozenset(
        {"max_reflection_steps", "min_reflection_steps", "gradient_prompt", "metaprompt"}
    ),
    "metaprompt": frozenset({"max_reflection_steps", "min_reflection_steps", "metaprompt"}),
    "prompt_memory": frozenset(),
}
"""What `config` may hold for each kind."""


async def optimizing_job(resources: Resources, access: Access, body: OptimizePrompt) -> NewJob:
    """Return the job that a request asks for.

    Raises ForbiddenError, InvalidRequestError, LLMNotConfiguredError, InvalidMessageError,
    ThreadNotFoundError and the errors of reading prompts.
    """
    _check_access(access, body)
    resources.llms.check(body.model)
    trajectories = []
    time_slice = TimeSlice()
    for index, given in enumerate(body.trajectories):
        trajectories.append(await _trajectory(resources, access, given, index))
        await time_slice.give_way()
    async with resources.database.connection(access.root) as connection:
        prompts = [
            await _prompt(PromptService.build(resources), connection, access, given)
            for given in body.all_prompts
        ]
        await read_trajectories(connection, access.root, trajectories)
    _check_length(prompts)
    plan = OptimizePlan(
        prompts=prompts,
        kind=body.kind or "gradient",
        config=_config(body),
        model=resources.llms.require(body.model) if trajectories else None,
        trajectories=trajectories,
        evaluation=body.evaluation and _evaluation(resources.llms, body.evaluation, prompts),
    )
    return plan.new_job(access.root)


def _check_access(access: Access, body: OptimizePrompt) -> None:
    """Raise ForbiddenError unless the caller may do all that the job may do."""
    access.locate([], Verb.JOBS)
    if any(prompt.text is None for prompt in body.all_prompts):
        access.locate([], Verb.WRITE)
        if body.evaluation is not None and body.evaluation.promote is not False:
            access.locate([], Verb.ADMIN)


def _config(body: OptimizePrompt) -> OptimizerConfig:
    if body.config is None:
        return OptimizerConfig()
    kind = body.kind or "gradient"
    for option in body.config.model_dump(exclude_none=True):
        if option not in _OPTIONS[kind]:
            takes = ", ".join(sorted(_OPTIONS[kind])) or "no config at all"
            raise InvalidRequestError(
                f"The kind {kind} has no config.{option}; it takes {takes}.",
                field=f"config.{option}",
            )
    return body.config.config()


async def _prompt(
    prompts: PromptService, connection: Connection, access: Access, given: PromptToOptimize
) -> PlannedPrompt:
    if given.text is not None:
        return PlannedPrompt(**given.model_dump(exclude={"label", "version"}), version=None)
    label = given.label
    if label is None and given.version is None:
        known = await repository.find_labels(connection, Ref(access.root, given.name))
        label = PRODUCTION if PRODUCTION in known else None
    row = await prompts.read(connection, access, given.name, label=label, version=given.version)
    stored = row["update_instructions"], row["when_to_update"]
    return PlannedPrompt(
        name=given.name,
        text=row["text"],
        update_instructions=_or(given.update_instructions, stored[0]),
        when_to_update=_or(given.when_to_update, stored[1]),
        version=row["version"],
    )


def _or(given: str | None, stored: str | None) -> str | None:
    return stored if given is None else given


def _check_length(prompts: Sequence[PlannedPrompt]) -> None:
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


async def _trajectory(
    resources: Resources, access: Access, given: GivenTrajectory, index: int
) -> PlannedTrajectory:
    first, last = given.first or 0, 0
    namespace: str | None = None
    if given.thread_id is not None:
        place = f"trajectories[{index}]"
        try:
            thread = await ThreadService.build(resources).readable(access, given.thread_id)
        except ThreadNotFoundError as error:
            raise error.within(place) from None
        namespace = thread["namespace"]
        ends_at = thread["next_position"] - 1
        last = ends_at if given.last is None else min(given.last, ends_at)
        if last - first >= MAX_MESSAGES:
            raise InvalidRequestError(
                f"{place} has {last - first + 1:,} messages; send positions (first, last) of at "
                f"most {MAX_MESSAGES:,}.",
                field=place,
            )
    return PlannedTrajectory(
        messages=None if given.messages is None else [m.members() for m in given.messages],
        thread_id=given.thread_id,
        namespace=namespace,
        first=first,
        last=last,
        feedback=given.feedback,
    )


def _evaluation(
    llms: LLMPool, given: EvaluationRequest, prompts: Sequence[PlannedPrompt]
) -> PlannedEvaluation:
    cases = [_case(case, index, prompts) for index, case in enumerate(given.cases)]
    evaluation = PlannedEvaluation(
        cases=cases,
        model=llms.require(given.model),
        judge=llms.require(given.judge),
        margin=DEFAULT_MARGIN if given.margin is None else given.margin,
        promote=given.promote is not False,
    )
    trials = sum(len(evaluation.cases_of(prompt.name)) for prompt in prompts)
    if trials > MAX_TRIALS:
        raise InvalidRequestError(
            f"{len(cases)} cases for {len(prompts)} prompts are {trials} trials; one job makes at "
            f"most {MAX_TRIALS}. Say which prompt each case is about, or send fewer.",
            field="evaluation.cases",
        )
    characters = sum(_characters(case) for case in cases)
    if characters > MAX_CHARACTERS:
        raise InvalidRequestError(
            f"The cases have {characters:,} characters; one job tries at most {MAX_CHARACTERS:,}.",
            field="evaluation.cases",
        )
    return evaluation


def _case(given: EvaluationCase, index: int, prompts: Sequence[PlannedPrompt]) -> PlannedCase:
    place = f"evaluation.cases[{index}]"
    case = PlannedCase(
        messages=[message.members() for message in given.messages],
        expected=given.expected,
        variables=given.variables or {},
        prompt=given.prompt,
    )
    try:
        check_conversation(case.as_case().turns)
        _check_concerns(case, prompts)
    except InvalidRequestError as error:
        raise error.within(place) from None
    return case


def _check_concerns(case: PlannedCase, prompts: Sequence[PlannedPrompt]) -> None:
    """Raise InvalidRequestError unless each prompt that a case is about can be filled in."""
    concerned = [prompt for prompt in prompts if case.prompt in (None, prompt.name)]
    if not concerned:
        names = ", ".join(prompt.name for prompt in prompts)
        raise InvalidRequestError(
            f'"{case.prompt}" is none of the prompts to improve ({names}).', field="prompt"
        )
    for prompt in concerned:
        for name in variables_of(prompt.text):
            if name not in case.variables:
                raise InvalidRequestError(
                    f'The prompt "{prompt.name}" needs the variable "{name}"; send it.',
                    field=f"variables.{name}",
                )


def _characters(case: PlannedCase) -> int:
    said = sum(len(turn.text) for turn in case.as_case().turns)
    return said + len(case.expected) + sum(map(len, case.variables.values()))
