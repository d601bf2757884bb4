"""Requests and responses of the prompts routes."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from app.conversations.fields import match_pattern
from app.db.pages import Page
from app.json_values import check_storable_text
from app.prompts import types
from app.prompts.texts import unified_diff
from app.prompts.types import (
    MAX_ANALYSIS_CHARACTERS,
    MAX_LABELS,
    MAX_TEXT_CHARACTERS,
    MAX_VERSION,
    PromptState,
    PromptSummary,
    check_text,
)
from app.schemas import CLEAN, CONFIGURATION, Number, Schema, Timestamp

MAX_INSTRUCTIONS_CHARACTERS = 20_000
MAX_PAGE = 200
MAX_VERSIONS_PAGE = 100
DEFAULT_PAGE = 100
DEFAULT_VERSIONS_PAGE = 50

PROMPT_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
LABEL = r"^[0-9]*[A-Za-z._-][A-Za-z0-9._-]*$"
"""Not only digits: those are a version's number."""
MAX_LABEL_CHARACTERS = 64
VERSION_OR_LABEL = r"^[A-Za-z0-9._-]{1,64}$"


PromptName = Annotated[
    str,
    Field(json_schema_extra={"pattern": PROMPT_NAME}, examples=["support"]),
    match_pattern(
        PROMPT_NAME, 'a name of 1 to 128 letters, digits, ".", "_" and "-", beginning with no dot'
    ),
]
Cursor = Annotated[
    str,
    Field(json_schema_extra={"pattern": PROMPT_NAME}),
    match_pattern(PROMPT_NAME, "a next_cursor; send the one of the page before, or none"),
]
PromptText = Annotated[
    str,
    Field(
        json_schema_extra={
            "minLength": 1,
            "maxLength": MAX_TEXT_CHARACTERS,
            "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$",
        }
    ),
    AfterValidator(check_text),
]
UpdateInstructions = Annotated[
    str,
    Field(max_length=MAX_INSTRUCTIONS_CHARACTERS, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]
Analysis = Annotated[
    str,
    Field(max_length=MAX_ANALYSIS_CHARACTERS, json_schema_extra=CLEAN),
    AfterValidator(check_storable_text),
]
Label = Annotated[
    str,
    Field(max_length=MAX_LABEL_CHARACTERS, json_schema_extra={"pattern": LABEL}),
    match_pattern(LABEL, 'a label of letters, digits, ".", "_" and "-", and not only of digits'),
]
VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSION)]
VersionOrLabel = Annotated[
    str,
    Field(json_schema_extra={"pattern": VERSION_OR_LABEL}),
    match_pattern(VERSION_OR_LABEL, "a version's number or a label"),
]


def _label_or_version(version: int | None, info: ValidationInfo, label: str) -> int | None:
    if version is not None and info.data.get(label) is not None:
        raise ValueError(f"is given in addition to {label}; send one of them")
    return version


class PutPrompt(Schema):
    """A prompt's whole next state."""

    body_limit = CONFIGURATION

    text: PromptText = Field(description="The prompt. The newest version's text adds no version.")
    update_instructions: UpdateInstructions | None = Field(
        None, description="Instructions for every rewrite of the text."
    )
    when_to_update: UpdateInstructions | None = Field(
        None, description="In which cases an optimizer should rewrite this prompt, and not another."
    )
    labels: Annotated[list[Label], Field(max_length=MAX_LABELS)] | None = Field(
        None,
        description="Labels to point to this text; absent: production if the prompt is new, "
        "otherwise none.",
    )
    analysis: Analysis | None = Field(
        None, description="Why the text is as it is; stored with the version that it adds."
    )

    def to_state(self) -> PromptState:
        """Return the state to write."""
        return PromptState(
            text=self.text,
            update_instructions=self.update_instructions,
            when_to_update=self.when_to_update,
            labels=self.labels,
            analysis=self.analysis,
        )


class ReadPrompt(Schema):
    """Which version to read; neither label nor version: the newest."""

    label: Label | None = Field(None, description="The version that this label points to.")
    version: VersionNumber | None = Field(None, description="The version of this number.")

    @field_validator("version")
    @classmethod
    def _one_of_both(cls, version: int | None, info: ValidationInfo) -> int | None:
        return _label_or_version(version, info, "label")


class PromotePrompt(Schema):
    """Which version to point a label to."""

    from_label: Label | None = Field(
        None, description="The version that this label points to; absent, as version: candidate."
    )
    version: Annotated[VersionNumber, Number] | None = Field(
        None, description="The version of this number."
    )
    label: Label | None = Field(None, description="The label to move; absent: production.")

    @field_validator("version")
    @classmethod
    def _one_of_both(cls, version: int | None, info: ValidationInfo) -> int | None:
        return _label_or_version(version, info, "from_label")


class RollbackPrompt(Schema):
    """Which label to move back."""

    label: Label | None = Field(None, description="Absent: production.")


class ListPrompts(Schema):
    """Which prompts to list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] | None = Field(
        None, description="At most this many; absent: 100."
    )
    cursor: Cursor | None = Field(None, description="next_cursor of the page before.")


class ListVersions(Schema):
    """Which versions of a prompt to list."""

    limit: Annotated[int, Field(ge=1, le=MAX_VERSIONS_PAGE)] | None = Field(
        None, description="At most this many; absent: 50."
    )
    cursor: VersionNumber | None = Field(None, description="next_cursor of the page before.")


class DiffPrompt(Schema):
    """Which two versions to compare."""

    old: VersionOrLabel | None = Field(
        None, alias="from", description="A version's number, or a label; absent: production."
    )
    new: VersionOrLabel | None = Field(
        None,
        alias="to",
        description="A version's number, or a label; absent: candidate, or the newest version "
        "if there is no candidate.",
    )


class _Record(BaseModel):
    """A response that has the fields of a record."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def of(cls, record: object) -> Self:
        """Return a record as clients see it."""
        return cls.model_validate(record)


class Prompt(_Record):
    """A prompt, with one of its versions."""

    name: str = Field(description="The prompt's name.")
    version: int = Field(description="The version's number, counted from 1.")
    text: str = Field(description="The version's text.")
    labels: list[str] = Field(description="The labels that point to this version, by name.")
    update_instructions: str | None = Field(
        description="Instructions for every rewrite of the text."
    )
    when_to_update: str | None = Field(description="When an optimizer should rewrite the text.")
    based_on: int | None = Field(description="Number of the version that this one improves.")
    analysis: str | None = Field(description="Why the text is as it is.")
    actor: str = Field(description="The key that wrote the version, and the job if it was one.")
    created_at: Timestamp = Field(description="When the version was written.")
    updated_at: Timestamp = Field(description="When the prompt was last changed in any way.")


class ListedPrompt(_Record):
    """A prompt in a list, without its text."""

    name: str = Field(description="The prompt's name.")
    newest_version: int = Field(description="Number of its newest version.")
    labels: dict[str, int] = Field(description="Each label, with the version it points to.")
    update_instructions: str | None = Field(
        description="Instructions for every rewrite of the text."
    )
    when_to_update: str | None = Field(description="When an optimizer should rewrite the text.")
    created_at: Timestamp = Field(description="When the prompt was first written.")
    updated_at: Timestamp = Field(description="When the prompt was last changed in any way.")


class PromptList(BaseModel):
    """A page of prompts, by name."""

    prompts: list[ListedPrompt] = Field(description="In the order of their names.")
    next_cursor: str | None = Field(description="Send it as cursor for the next page; null: last.")

    @classmethod
    def of(cls, page: Page[PromptSummary]) -> Self:
        """Return a page as clients see it."""
        return cls(
            prompts=[ListedPrompt.of(prompt) for prompt in page.items],
            next_cursor=page.next_cursor(lambda last: last.name),
        )


class PromptVersion(_Record):
    """A version in a list, without its text."""

    version: int = Field(description="Its number, counted from 1.")
    characters: int = Field(description="Length of its text.")
    labels: list[str] = Field(description="The labels that point to it, by name.")
    based_on: int | None = Field(description="Number of the version that this one improves.")
    analysis: str | None = Field(description="Why the text is as it is.")
    actor: str = Field(description="The key that wrote it, and the job if it was one.")
    created_at: Timestamp = Field(description="When it was written.")


class PromptVersionList(BaseModel):
    """A page of a prompt's versions, newest first."""

    versions: list[PromptVersion] = Field(description="Newest first.")
    next_cursor: int | None = Field(description="Send it as cursor for the next page; null: last.")

    @classmethod
    def of(cls, page: Page[types.PromptVersion]) -> Self:
        """Return a page as clients see it."""
        return cls(
            versions=[PromptVersion.of(version) for version in page.items],
            next_cursor=page.next_cursor(lambda last: last.version),
        )


class PromptDiff(BaseModel):
    """The differences between two versions of a prompt."""

    name: str = Field(description="The prompt's name.")
    from_version: int = Field(description="Number of the first version.")
    to_version: int = Field(description="Number of the version that is compared with it.")
    diff: str = Field(description="In unified format, by lines; empty: the texts are the same.")

    @classmethod
    def of(cls, old: types.Prompt, new: types.Prompt) -> Self:
        """Compare two versions; takes up to a second, so call it in a thread."""
        names = [f"{prompt.name} (version {prompt.version})" for prompt in (old, new)]
        return cls(
            name=new.name,
            from_version=old.version,
            to_version=new.version,
            diff=unified_diff(old.text, new.text, *names),
        )
