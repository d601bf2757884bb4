"""Prompts as the program handles them, their errors, and the inputs and outcomes of optimizers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol, Self, TypeAlias

from app.conversations.messages import Turn
from app.errors import ConflictError, NotFoundError
from app.json_values import check_storable_text, replace_unstorable

PRODUCTION, CANDIDATE = "production", "candidate"

MAX_TEXT_CHARACTERS = 200_000
MAX_ANALYSIS_CHARACTERS = 50_000
MAX_LABELS = 50
MAX_VERSION = 2**31 - 1

OptimizerKind: TypeAlias = Literal["gradient", "metaprompt", "prompt_memory"]

DEFAULT_MAX_REFLECTION_STEPS = 5
DEFAULT_MIN_REFLECTION_STEPS = 1

NO_CONVERSATIONS = "there are no conversations to improve it by"

OPTIONS: Mapping[OptimizerKind, frozenset[str]] = {
    "gradient": frozenset(
        {"max_reflection_steps", "min_reflection_steps", "gradient_prompt", "metaprompt"}
    ),
    "metaprompt": frozenset({"max_reflection_steps", "min_reflection_steps", "metaprompt"}),
    "prompt_memory": frozenset(),
}
"""The settings that each kind takes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with one of its versions, and the labels that point to this version."""

    name: str
    revision: int
    newest: int
    update_instructions: str | None
    when_to_update: str | None
    updated_at: datetime
    version: int
    text: str
    based_on: int | None
    analysis: str | None
    actor: str
    created_at: datetime
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class PromptState:
    """A prompt's whole next state; without `labels`, production points to a new prompt."""

    text: str
    update_instructions: str | None = None
    when_to_update: str | None = None
    labels: Sequence[str] | None = None
    analysis: str | None = None


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """A prompt in a list, without its text; `labels` maps each label to its version."""

    name: str
    newest_version: int
    update_instructions: str | None
    when_to_update: str | None
    created_at: datetime
    updated_at: datetime
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PromptVersion:
    """A version in a list, without its text."""

    version: int
    characters: int
    based_on: int | None
    analysis: str | None
    actor: str
    created_at: datetime
    labels: Sequence[str]


def check_text(text: str) -> str:
    """Return a prompt's text; raises ValueError if it is empty, too long, or cannot be stored."""
    if not text.strip():
        raise ValueError("is empty; a prompt has a text")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters; use at most {MAX_TEXT_CHARACTERS:,}")
    return check_storable_text(text)


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Settings of the kinds "gradient" and "metaprompt", with LangMem's names and defaults.

    The two texts replace our own requests to the model; None keeps those.
    """

    max_reflection_steps: int = DEFAULT_MAX_REFLECTION_STEPS
    min_reflection_steps: int = DEFAULT_MIN_REFLECTION_STEPS
    gradient_prompt: str | None = None
    metaprompt: str | None = None


@dataclass(frozen=True, slots=True)
class TargetPrompt:
    """A prompt to improve; `when_to_update` says which feedback concerns it.

    If it was chosen from several, `others` are the rest, and `choice_reason` says why.
    """

    name: str
    text: str
    update_instructions: str | None = None
    when_to_update: str | None = None
    others: Sequence["TargetPrompt"] = ()
    choice_reason: str | None = None

    def among(self, prompts: Sequence["TargetPrompt"], reason: str) -> "TargetPrompt":
        """Return the prompt as one that was chosen from several for a reason."""
        others = [other for other in prompts if other.name != self.name]
        return replace(self, others=others, choice_reason=reason)


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback on a conversation; `more` holds any further members that the client sent."""

    score: float | None = None
    comment: str | None = None
    edited_answer: str | None = None
    more: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A conversation that was held with the prompts, and the feedback on it."""

    turns: Sequence[Turn]
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class Optimization:
    """Outcome for one prompt.

    `text` is the improved prompt. It is None if nothing changes; then `outcome` says whether no
    change was warranted or one was rejected, and `reason` says why.
    """

    outcome: Literal["improved", "not_warranted", "rejected"]
    text: str | None
    analysis: str
    reason: str | None = None

    @classmethod
    def of(cls, prompt: TargetPrompt, text: str | None, analysis: str) -> Self:
        """Return the outcome of a new text; `text` is None if the model wrote none."""
        analysis = analysis[:MAX_ANALYSIS_CHARACTERS]
        if text is None:
            return cls("not_warranted", None, analysis, "the model recommends no change")
        if text.strip() == prompt.text.strip():
            return cls("not_warranted", None, analysis, "the model left the prompt as it is")
        return cls("improved", text, analysis)

    @classmethod
    def without_conversations(cls) -> Self:
        """Return the outcome if there are no conversations."""
        return cls("not_warranted", None, "", NO_CONVERSATIONS)

    @classmethod
    def rejected(cls, reason: str, analysis: str = "") -> Self:
        """Return the outcome if the model gave no usable answer."""
        analysis = analysis[:MAX_ANALYSIS_CHARACTERS]
        return cls("rejected", None, analysis, replace_unstorable(reason))


class Optimizer(Protocol):
    """Improves one prompt with a model, using the trajectories."""

    async def optimize(
        self, prompt: TargetPrompt, trajectories: Sequence[Trajectory]
    ) -> Optimization:
        """Return the outcome for a prompt; raises the errors of asking the model."""
        ...


class PromptNotFoundError(NotFoundError):
    """There is no such prompt under the key's root."""

    code = "prompt_not_found"
    title = "Prompt not found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f'There is no prompt "{name}". GET /v1/prompts lists them, '
            "PUT /v1/prompts/{name} creates one."
        )


class PromptVersionNotFoundError(NotFoundError):
    """The prompt never had that version."""

    code = "prompt_version_not_found"
    title = "Prompt version not found"

    def __init__(self, name: str, version: int, newest: int) -> None:
        has = "only version 1" if newest == 1 else f"versions 1 to {newest}"
        super().__init__(f'The prompt "{name}" has no version {version}; it has {has}.')


class PromptLabelNotFoundError(NotFoundError):
    """No version of the prompt has that label."""

    code = "prompt_label_not_found"
    title = "Prompt label not found"

    def __init__(self, name: str, label: str, known: Mapping[str, int]) -> None:
        labels = ", ".join(f"{known_label} (version {known[known_label]})" for known_label in known)
        super().__init__(
            f'The prompt "{name}" has no label "{label}"; it has {labels or "none"}. '
            "Name another label or a version; POST /v1/prompts/{name}/promote sets labels."
        )


class NothingToRollBackError(ConflictError):
    """The label has never pointed to another version."""

    code = "nothing_to_roll_back"
    title = "Nothing to roll back"

    def __init__(self, name: str, label: str, version: int) -> None:
        super().__init__(
            f'The label "{label}" of the prompt "{name}" points to version {version}, and has no '
            "previous version. Promote the version that you want."
        )


class TooManyLabelsError(ConflictError):
    """The prompt has the maximum number of labels."""

    code = "too_many_labels"
    title = "Too many labels"

    def __init__(self, name: str, maximum: int) -> None:
        super().__init__(
            f'The prompt "{name}" would have more than {maximum} labels of your own. '
            "Delete one with DELETE /v1/prompts/{name}/labels/{label}."
        )
