"""Results of jobs by kind, as the OpenAPI document describes them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

from app.schemas import Clean
from app.search.schemas import SearchHit

MAX_SUMMARIZED = 20_000
MAX_SUMMARY_CHARACTERS = 50_000

_Object = Annotated[dict[str, Any], Field(title="Content")]
_MessageId = Annotated[Clean, Field(min_length=1, max_length=512)]
_KIND = Field(description="The job's kind.")

# Separate types, because generated Go clients record variants apart by these alone.
ExtractKind = TypeAliasType("ExtractKind", Annotated[Literal["extract"], _KIND])
ExtractThreadKind = TypeAliasType("ExtractThreadKind", Annotated[Literal["extract_thread"], _KIND])
ConsolidateKind = TypeAliasType("ConsolidateKind", Annotated[Literal["consolidate"], _KIND])
SummarizeKind = TypeAliasType("SummarizeKind", Annotated[Literal["summarize"], _KIND])
OptimizePromptKind = TypeAliasType(
    "OptimizePromptKind", Annotated[Literal["optimize_prompt"], _KIND]
)
SearchKind = TypeAliasType("SearchKind", Annotated[Literal["search"], _KIND])


class ChangeCounts(BaseModel):
    """Numbers of memories that a job inserted, updated, and deleted."""

    inserted: int = Field(description="New memories.")
    updated: int = Field(description="Memories with new content.")
    deleted: int = Field(description="Memories that ended.")


class JobCounts(ChangeCounts):
    """Outcomes for the memories that a job considered."""

    unchanged: int = Field(description="Memories that were left unchanged.")
    rejected: int = Field(description="Changes that a model requested but that were not made.")


class RejectedCall(BaseModel):
    """A change that a model requested but that was not made."""

    tool: str = Field(description="The tool that the model called.")
    reason: str = Field(description="Why the change was not made.")
    arguments: str | None = Field(None, description="The arguments as the model sent them.")


class Review(BaseModel):
    """Why changes need a review, and the decision."""

    reason: str = Field(description="Why the changes are not applied at once.")
    decision: Literal["applied", "discarded"] | None = Field(
        None, description="Absent while the changes wait."
    )
    by: str | None = Field(None, description="The key that decided.")
    at: datetime | None = Field(None, description="When it was decided.")


class UndoCounts(BaseModel):
    """Numbers of changes undone and skipped."""

    undone: int = Field(description="Changes that were undone.")
    skipped: int = Field(description="Changes to items that have changed again since.")


class Undo(BaseModel):
    """Outcome of undoing a job."""

    counts: UndoCounts = Field(description="Changes undone and skipped.")
    by: str = Field(description="The key that undid it.")
    at: datetime = Field(description="Time of the last undo.")


class ReturnedMemory(BaseModel):
    """A memory after an extraction that stores nothing."""

    id: str = Field(description="The id in the request, or a new one.")
    kind: str | None = Field(description="The memory's kind; null: it fits none.")
    content: _Object = Field(description="The content of the memory.")
    importance: float | None = Field(description="The memory's importance, 0 to 1.")
    valid_from: str | None = Field(description="Year, month, day, or time since when it holds.")
    change: Literal["inserted", "updated", "unchanged"] = Field(
        description="The change that the job made to the memory."
    )


class FoundSecrets(BaseModel):
    """Secrets, such as keys and passwords, that were found before anything was stored."""

    redacted: int = Field(description="Secrets that a mark replaces.")
    refused: int = Field(description="Memories and messages that were not stored.")


class _ChangesResult(BaseModel):
    counts: JobCounts = Field(description="How many memories were changed, and how.")
    rejected: list[RejectedCall] = Field(description="Changes that were not made, and why.")
    proposed: ChangeCounts | None = Field(None, description="Changes that wait for a review.")
    review: Review | None = Field(None, description="Present if changes had to be reviewed.")
    undo: Undo | None = Field(None, description="Present if the job was undone.")
    secrets: FoundSecrets | None = Field(
        None, description="Secrets that were found before storing; absent: none."
    )
    model: str | None = Field(None, description="The model that was called.")


class ExtractResult(_ChangesResult):
    """Result of a job of the kind `extract`."""

    kind: ExtractKind
    prompt_version: str | None = Field(None, description="Version of memoryd's instructions.")
    rounds: int | None = Field(
        None, description="Attempts until no concurrent change got in the way."
    )
    memories: list[ReturnedMemory] | None = Field(
        None, description="If nothing is stored: every memory as it is now."
    )
    deleted: list[str] | None = Field(
        None, description="If nothing is stored: ids of the memories that ended."
    )


class ExtractThreadResult(_ChangesResult):
    """Result of a job of the kind `extract_thread`."""

    kind: ExtractThreadKind
    prompt_version: str | None = Field(None, description="Version of memoryd's instructions.")
    rounds: int | None = Field(
        None, description="Attempts until no concurrent change got in the way."
    )
    messages_read: int | None = Field(
        None, description="Messages that memories were extracted from; absent: no model was asked."
    )
    follow_up_job_id: str | None = Field(
        None, description="The job that reads the other pending messages."
    )


class ConsolidateResult(_ChangesResult):
    """Result of a job of the kind `consolidate`."""

    kind: ConsolidateKind
    strategy: Literal["llm", "duplicates"] = Field(description="How memories were merged.")
    compared: int = Field(description="Memories that the job compared.")
    has_more: bool = Field(description="true: changed memories remain for another job.")
    follow_up_job_id: str | None = Field(
        description="The job that continues with the remaining ones."
    )
    batches: int | None = Field(None, description="Groups of memories that were sent to the model.")
    failed_batches: int | None = Field(None, description="Groups that failed.")


class SummaryState(BaseModel):
    """A running summary, in LangMem's format."""

    model_config = ConfigDict(extra="forbid")

    summary: Annotated[Clean, Field(min_length=1, max_length=MAX_SUMMARY_CHARACTERS)] = Field(
        description="The text."
    )
    summarized_message_ids: Annotated[list[_MessageId], Field(max_length=MAX_SUMMARIZED)] = Field(
        description="Messages that it covers."
    )
    last_summarized_message_id: _MessageId | None = Field(
        description="The last one that it covers."
    )


class SummarizeResult(BaseModel):
    """Result of a job of the kind `summarize`."""

    kind: SummarizeKind
    messages: list[Annotated[dict[str, Any], Field(title="Message")]] | None = Field(
        None, description="In mode running: the shortened conversation."
    )
    running_summary: SummaryState | None = Field(
        None, description="In mode running: the summary; null: none was needed."
    )
    summarized: int | None = Field(
        None, description="In mode running: messages that the summary replaced."
    )
    tokens: int | None = Field(
        None, description="In mode running: length of the shortened conversation."
    )
    content: _Object | None = Field(None, description="In mode extract: the object.")


class EvaluationAnswer(BaseModel):
    """A model's answer with a prompt."""

    text: str = Field(description="The text of the answer.")
    problem: str | None = Field(description="Why it is not a complete answer; null: it is one.")


class EvaluationAnswers(BaseModel):
    """The answers to a case with both prompts."""

    old: EvaluationAnswer = Field(description="With the old text.")
    new: EvaluationAnswer = Field(description="With the new text.")


class EvaluationVerdict(BaseModel):
    """A comparison of two answers by the judge."""

    shown_first: Literal["old", "new"] = Field(
        description="The answer that the judge was shown first."
    )
    preferred: Literal["old", "new", "tie"] | None = Field(
        description="The better answer; null: the judge gave no verdict."
    )
    reason: str = Field(description="Why the judge decided so.")
    meets_expected: bool | None = Field(
        description="true: the better answer does all that is expected; in a tie, both do. "
        "null: the judge did not say."
    )


class EvaluationTrial(BaseModel):
    """A case with its answers and the judge's verdicts."""

    outcome: Literal["win", "loss", "tie"] = Field(description="From the new text's view.")
    meets_expected: bool | None = Field(
        description="true: by both verdicts, the winner does all that is expected. null: no answer "
        "won, or the judge did not say."
    )
    answers: EvaluationAnswers = Field(description="With the old and with the new text.")
    verdicts: list[EvaluationVerdict] = Field(description="One for each order of the answers.")


class TestedFailure(BaseModel):
    """A failure that a new text is to prevent."""

    description: str = Field(description="The failure, in the judge's words.")
    cases: list[int] = Field(description="Positions in `cases` of those that test for it.")


class EvaluationCoverage(BaseModel):
    """The failures that a new text is to prevent, and the cases that test for them."""

    failures: list[TestedFailure] = Field(description="As the judge found them in the analysis.")
    tested: int = Field(description="The failures that some case tests for.")
    warning: str | None = Field(description="Says so if at most half of the failures are tested.")


class PromptEvaluation(BaseModel):
    """An evaluation of a prompt's new text on the cases."""

    cases_won: int = Field(description="Cases that the new text won.")
    cases_won_as_expected: int = Field(
        description="Those of them whose answer does all that is expected, by both verdicts."
    )
    cases_lost: int = Field(description="Cases that the old text won.")
    cases_tied: int = Field(description="Cases that neither won.")
    net_win_rate: float = Field(description="Wins minus losses, as a share of all cases.")
    margin: float = Field(description="The share that was required.")
    passed: bool = Field(description="true: the new text passed.")
    cases: list[EvaluationTrial] = Field(description="In the order of the request.")
    coverage: EvaluationCoverage | None = Field(
        description="The failures that the cases test for; null: the judge named none."
    )
    promoted: bool = Field(description="true: production points to the new text.")
    not_promoted_reason: str | None = Field(description="Why it does not; null: it does.")


class OptimizedPrompt(BaseModel):
    """Outcome for one prompt."""

    name: str = Field(description="The prompt's name.")
    outcome: Literal["improved", "not_warranted", "not_chosen", "rejected"] = Field(
        description="improved: there is a new text; otherwise `reason` says why not."
    )
    changed: bool = Field(description="true: the text differs from the old one.")
    text: str = Field(description="The new text, or the old one.")
    analysis: str | None = Field(description="The model's analysis of the conversations.")
    reason: str | None = Field(description="Why nothing was changed or stored.")
    diff: str = Field(description="The changes as a unified diff.")
    based_on: int | None = Field(description="Number of the version it is based on.")
    version: int | None = Field(description="Number of the new version; null: none was stored.")
    labels: list[str] = Field(description="The labels that point to the new version.")
    evaluation: PromptEvaluation | None = Field(description="null: there were no cases.")


class OptimizePromptResult(BaseModel):
    """Result of a job of the kind `optimize_prompt`."""

    kind: OptimizePromptKind
    prompts: list[OptimizedPrompt] = Field(description="In the order of the request.")


class SearchResult(BaseModel):
    """Result of a job of the kind `search`."""

    kind: SearchKind
    queries: list[str] = Field(description="The queries of the searches.")
    items: list[SearchHit] = Field(description="Each item once: pinned ones first, then the best.")
    omitted: int = Field(description="Found items for which the result had no room.")
    model: str | None = Field(description="The model that wrote the queries.")


JobResult = TypeAliasType(
    "JobResult",
    Annotated[
        ExtractResult
        | ExtractThreadResult
        | ConsolidateResult
        | SummarizeResult
        | OptimizePromptResult
        | SearchResult,
        Field(discriminator="kind", description="The result of a job, by its kind."),
    ],
)
"""A named alias, so that generated clients have a name for the type."""
