"""Requests for summaries of conversations, which are the plans of their jobs."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from app.auth.access import Access, Verb
from app.conversations.fields import Instructions, ModelName
from app.conversations.kinds import ObjectSchema
from app.conversations.messages import MAX_MESSAGES, ConversationMessage
from app.errors import InvalidRequestError
from app.jobs.kind import JobPlan
from app.jobs.record import NewJob
from app.jobs.results import SummaryState
from app.namespaces import StoredNamespace
from app.resources import Resources
from app.schemas import CONVERSATION, Number, Schema
from app.store.schemas import MAX_INTEGER
from app.threads.schemas import ThreadId
from app.threads.service import ThreadService
from app.threads.summary_budget import (
    COUNTERS,
    Budget,
    CounterName,
    Entry,
    RunningSummary,
    count_one,
    find_misplaced,
    plan_shortening,
    split_system,
    to_entries,
)

SUMMARY_TOKENS = 256

Tokens = Annotated[int, Field(ge=0, le=MAX_INTEGER), Number]

_ONLY_RUNNING = (
    "running_summary",
    "max_tokens",
    "max_tokens_before_summary",
    "max_summary_tokens",
    "token_counter",
)


def summary_state(running: RunningSummary) -> SummaryState:
    """Present a summary."""
    return SummaryState(
        summary=running.text,
        summarized_message_ids=list(running.message_ids),
        last_summarized_message_id=running.last_id,
    )


def running_summary(state: SummaryState) -> RunningSummary:
    """Return the summary that a client sent."""
    ids = tuple(state.summarized_message_ids)
    return RunningSummary(state.summary, ids, state.last_summarized_message_id)


class SummarizeRequest(Schema, JobPlan):
    """A conversation to summarize, and how."""

    body_limit = CONVERSATION
    job_kind = "summarize"

    mode: Literal["running", "extract"] | None = Field(
        None,
        description="running (default): shorten the conversation to a budget, with a summary in "
        "place of its older messages; extract: record it as one object.",
    )
    messages: Annotated[list[ConversationMessage], Field(max_length=MAX_MESSAGES)] | None = Field(
        None, description="The conversation; with running_summary, every message needs an id."
    )
    thread_id: ThreadId | None = Field(
        None, description="A thread, instead of messages; its running summary is kept with it."
    )
    running_summary: SummaryState | None = Field(
        None,
        description="The summary of an earlier result; messages that it covers may be omitted.",
    )
    model: ModelName | None = Field(
        None,
        description="`PROVIDER:MODEL`, such as `openai:MODEL`; absent: the server's MEMORYD_LLM.",
    )
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INTEGER), Number] | None = Field(
        None, description="Maximum length of the shortened conversation; required in mode running."
    )
    max_tokens_before_summary: Tokens | None = Field(
        None, description="Summarize nothing while the messages are shorter; absent: max_tokens."
    )
    max_summary_tokens: Tokens | None = Field(
        None, description="Room for the summary, less than max_tokens; absent: 256."
    )
    token_counter: CounterName | None = Field(
        None,
        description="approximate (default): about four characters are a token; messages: each "
        "message counts as one, in the limits too.",
    )
    instructions: Instructions | None = Field(
        None, description="Content and wording of the summary; added to memoryd's own instructions."
    )
    json_schema: ObjectSchema | None = Field(
        None,
        alias="schema",
        description="Schema of the record in mode extract; absent: title and summary.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.messages is None) == (self.thread_id is None):
            raise ValueError("needs either messages or thread_id; send one of them")
        if self.is_running:
            self._check_running()
        elif unused := [name for name in _ONLY_RUNNING if getattr(self, name) is not None]:
            raise ValueError(f"has {unused[0]}, which mode extract does not take; leave it out")
        return self

    def _check_running(self) -> None:
        if self.json_schema is not None:
            raise ValueError('has schema, which needs "mode": "extract"; send that, too')
        if self.max_tokens is None:
            raise ValueError("lacks max_tokens, which mode running needs; send it")
        if self.summary_tokens >= self.max_tokens:
            raise ValueError(
                f"has max_tokens {self.max_tokens}, which leave no room for a summary of "
                f"{self.summary_tokens} (max_summary_tokens); raise max_tokens or lower the other"
            )
        if self.running_summary is not None and self.thread_id is not None:
            raise ValueError("has running_summary, but the thread keeps its own; leave it out")

    @override
    def to_json(self) -> Mapping[str, Any]:
        """Return the request as it was sent, so that the validators accept it again."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @property
    def is_running(self) -> bool:
        """Whether to shorten the conversation, instead of recording it as one object."""
        return self.mode != "extract"

    @property
    def summary_tokens(self) -> int:
        """Room for the summary."""
        return SUMMARY_TOKENS if self.max_summary_tokens is None else self.max_summary_tokens

    @property
    def requested_tokens(self) -> int:
        """Length that the model is asked for; the default if messages are counted."""
        return SUMMARY_TOKENS if self.budget.counter is count_one else self.summary_tokens

    @property
    def budget(self) -> Budget:
        """The budget of the shortened conversation."""
        total = self.max_tokens or 0
        before = self.max_tokens_before_summary
        return Budget(
            total=total,
            threshold=total if before is None else before,
            summary=self.summary_tokens,
            counter=COUNTERS[self.token_counter or "approximate"],
        )

    def conversation(self) -> tuple[list[Entry], RunningSummary | None]:
        """Return the messages of the request, and their summary.

        Raises InvalidMessageError, and InvalidRequestError if the two do not match.
        """
        messages = [message.members() for message in self.messages or ()]
        entries = to_entries(messages, self.budget.counter)
        if self.running_summary is None:
            return entries, None
        running = running_summary(self.running_summary)
        _, rest = split_system(entries, running, self.budget)
        _check_ids(rest, {message.get("id") for message in messages}, running)
        return entries, running


def _check_ids(entries: Sequence[Entry], given: set[str | None], running: RunningSummary) -> None:
    """Raise InvalidRequestError unless it is certain which messages the summary covers."""
    if nameless := next((entry for entry in entries if entry.id not in given), None):
        raise InvalidRequestError(
            "With running_summary, every message needs an id, which shows whether the summary "
            f'covers it; "{nameless.turn.text[:40]}" has none. A leading system message may '
            "go without.",
            field="messages",
        )
    if again := find_misplaced(entries, running):
        raise InvalidRequestError(
            f'The message "{again.id}" is covered by running_summary, but comes after the last '
            "one that is; give new messages new ids, and leave those covered in their places.",
            field="messages",
        )


async def plan_summarize(resources: Resources, access: Access, body: SummarizeRequest) -> NewJob:
    """Return the job for a request.

    Raises ForbiddenError, ThreadNotFoundError, InvalidMessageError, InvalidRequestError, and
    LLMNotConfiguredError if the job is certain to need a model.
    """
    namespace: StoredNamespace = access.root
    if body.thread_id is None:
        access.authorize([], Verb.JOBS)
        entries, running = body.conversation()
        needs_model = not body.is_running or bool(
            plan_shortening(entries, running, body.budget).replaced
        )
    else:
        thread = await ThreadService.build(resources).get_readable(access, body.thread_id)
        namespace = thread.namespace
        access.authorize(access.relative(namespace), Verb.JOBS)
        needs_model = not body.is_running
    resources.llms.check(body.model)
    if needs_model:
        resources.llms.get(body.model)
    return body.new_job(namespace, thread_id=body.thread_id)
