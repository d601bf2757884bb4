"""Request that submits a job to improve prompts."""

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from app.conversations.fields import MAX_INSTRUCTIONS_CHARACTERS, Instructions, ModelName
from app.conversations.messages import MAX_MESSAGES, ConversationMessage
from app.conversations.namespace_template import MAX_VARIABLES
from app.json_values import check_storable, check_storable_text
from app.prompts.schemas import Label, PromptName, PromptText, UpdateInstructions, VersionNumber
from app.prompts.types import (
    DEFAULT_MAX_REFLECTION_STEPS,
    DEFAULT_MIN_REFLECTION_STEPS,
    Feedback,
    OptimizerConfig,
    OptimizerKind,
)
from app.schemas import CONVERSATION, Flag, Number, Real, Schema
from app.store.schemas import MAX_INTEGER
from app.threads.schemas import ThreadId

MAX_PROMPTS = 20
MAX_TRAJECTORIES = 100
MAX_CASES = 50
MAX_REFLECTION_STEPS = 10


def _is_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; say what a good answer does")
    return text


Expected = Annotated[
    str,
    Field(
        json_schema_extra={"minLength": 1, "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"},
        max_length=MAX_INSTRUCTIONS_CHARACTERS,
    ),
    AfterValidator(check_storable_text),
    AfterValidator(_is_not_blank),
]
Steps = Annotated[int, Field(ge=1, le=MAX_REFLECTION_STEPS), Number]
OptionalSteps = Annotated[int, Field(ge=0, le=MAX_REFLECTION_STEPS), Number]
PlaceholderName = Annotated[str, Field(max_length=256), WithJsonSchema({"type": "string"})]
Position = Annotated[int, Field(ge=0, le=MAX_INTEGER), Number]


def _no_list(entry: object) -> object:
    if isinstance(entry, list | tuple):
        # LangMem reads such lists as pairs of a conversation and its feedback.
        raise ValueError(  # noqa: TRY004  # pydantic's
            'is a list; send an object such as {"messages": […], "feedback": …}'
        )
    return entry


class PromptToOptimize(Schema):
    """A prompt to improve: a stored one, or one that comes with its text."""

    name: PromptName = Field(description="A stored prompt's; any name if there is a text.")
    text: PromptText | None = Field(
        None, description="The prompt itself; then nothing is stored. Absent: the stored text."
    )
    update_instructions: UpdateInstructions | None = Field(
        None, description="Instructions for every new text; absent: the stored ones."
    )
    when_to_update: UpdateInstructions | None = Field(
        None, description="When this prompt should change; absent: the stored text."
    )
    label: Label | None = Field(
        None,
        description="The version to improve; absent: production, else the newest version.",
    )
    version: Annotated[VersionNumber, Number] | None = Field(
        None, description="The version to improve, by its number."
    )

    @model_validator(mode="after")
    def _is_one_text(self) -> Self:
        given = [name for name in ("text", "label", "version") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"has {given[0]} and {given[1]}; send one of them")
        return self


class OptimizerOptions(Schema):
    """Settings of the optimizer, with LangMem's names."""

    max_reflection_steps: Steps | None = Field(
        None, description=f"At most this many; absent: {DEFAULT_MAX_REFLECTION_STEPS}."
    )
    min_reflection_steps: OptionalSteps | None = Field(
        None, description=f"At least this many; absent: {DEFAULT_MIN_REFLECTION_STEPS}."
    )
    gradient_prompt: Instructions | None = Field(
        None, description="Asks what went wrong, instead of memoryd's own text; kind gradient."
    )
    metaprompt: Instructions | None = Field(
        None, description="Asks for the new text, instead of memoryd's own text."
    )

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        config = self.to_config()
        if config.min_reflection_steps > config.max_reflection_steps:
            raise ValueError(
                f"has min_reflection_steps {config.min_reflection_steps}, which is more than "
                f"max_reflection_steps {config.max_reflection_steps}; lower the first"
            )
        return self

    def to_config(self) -> OptimizerConfig:
        """Return the options with all defaults."""
        return OptimizerConfig(**self.model_dump(exclude_none=True))


class FeedbackInput(BaseModel):
    """Feedback on a conversation; any further members are shown to the model, too."""

    model_config = ConfigDict(extra="allow")

    score: Real | None = Field(None, description="On any scale; more is better.")
    comment: Instructions | None = Field(None, description="In words.")
    edited_answer: Instructions | None = Field(
        None, description="The answer that should have been given."
    )

    @model_validator(mode="after")
    def _can_be_stored(self) -> Self:
        check_storable(self.model_dump(), "$")
        return self

    def to_feedback(self) -> Feedback:
        """Return the feedback as optimizers take it."""
        more: dict[str, Any] | None = self.model_extra or None
        return Feedback(self.score, self.comment, self.edited_answer, more)


class TrajectoryInput(Schema):
    """A conversation that was held with the prompts, and the feedback on it."""

    messages: (
        Annotated[list[ConversationMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None
    ) = Field(None, description="The conversation.")
    thread_id: ThreadId | None = Field(None, description="A thread, instead of messages.")
    first: Position | None = Field(
        None, description="Position in the thread of the first message to read; absent: 0."
    )
    last: Position | None = Field(
        None, description="Position of the last one; absent: the newest message."
    )
    feedback: FeedbackInput | None = Field(None, description="Feedback on the conversation.")

    @model_validator(mode="after")
    def _is_one_conversation(self) -> Self:
        if (self.messages is None) == (self.thread_id is None):
            raise ValueError("needs either messages or thread_id; send one of them")
        if self.messages is not None and (self.first is not None or self.last is not None):
            raise ValueError("has positions, which are a thread's; send a part of the messages")
        if self.last is not None and self.last < (self.first or 0):
            raise ValueError("has a last position before the first; exchange them")
        return self


class EvaluationCase(Schema):
    """A conversation that waits for an answer, and a description of a good one."""

    messages: list[ConversationMessage] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="From the user's first message to the one to answer; the prompt is the "
        "system text.",
    )
    expected: Expected = Field(
        description="A description of a good answer, which the judge compares by."
    )
    variables: (
        Annotated[
            dict[PlaceholderName, Instructions],
            Field(max_length=MAX_VARIABLES, title="PromptVariables"),
        ]
        | None
    ) = Field(None, description="The values of the prompt's variables in this case.")
    prompt: PromptName | None = Field(
        None, description="The prompt that the case is about; absent: all prompts."
    )

    @field_validator("variables")
    @classmethod
    def _can_be_stored(cls, variables: dict[str, str] | None) -> dict[str, str] | None:
        check_storable(variables, "$")
        return variables


class EvaluationRequest(Schema):
    """Cases that decide whether a new text is better."""

    cases: Annotated[list[EvaluationCase], Field(min_length=1, max_length=MAX_CASES)] = Field(
        description="Each is answered with the old and with the new text."
    )
    model: ModelName | None = Field(
        None,
        description="Answers the cases: the model that the prompt is for; absent: the server's.",
    )
    judge: ModelName | None = Field(None, description="Compares the answers; absent: the server's.")
    margin: Annotated[Real, Field(ge=0, le=1)] | None = Field(
        None,
        description="The share of all cases by which wins have to exceed losses; absent: 0.1.",
    )
    promote: Flag | None = Field(
        None, description="Point production to a new text that passes; absent: true."
    )


class OptimizePrompt(Schema):
    """Prompts to improve, and the conversations to improve them by."""

    body_limit = CONVERSATION

    prompt: PromptToOptimize | None = Field(None, description="The only prompt.")
    prompts: (
        Annotated[list[PromptToOptimize], Field(min_length=1, max_length=MAX_PROMPTS)] | None
    ) = Field(None, description="Several: only those that the conversations concern are improved.")
    kind: OptimizerKind | None = Field(
        None, description="How the new text is found; absent: gradient."
    )
    config: OptimizerOptions | None = Field(None, description="Settings of the kind.")
    model: ModelName | None = Field(
        None, description="Improves the prompts; absent: the server's MEMORYD_LLM."
    )
    trajectories: Annotated[
        list[Annotated[TrajectoryInput, BeforeValidator(_no_list)]],
        Field(max_length=MAX_TRAJECTORIES),
    ] = Field(description="Empty: no change is warranted, and no model is asked.")
    evaluation: EvaluationRequest | None = Field(
        None, description="The gate in front of production; absent: new texts are only candidates."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.prompt is None) == (self.prompts is None):
            raise ValueError("needs either prompt or prompts; send one of them")
        names = [prompt.name for prompt in self.all_prompts]
        if again := {name for name in names if names.count(name) > 1}:
            raise ValueError(f'has two prompts called "{min(again)}"; give each another name')
        return self

    @property
    def all_prompts(self) -> list[PromptToOptimize]:
        """The prompts to improve, one or several."""
        return [self.prompt] if self.prompt is not None else self.prompts or []
