import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, convert_to_messages
from langchain_core.messages.utils import count_tokens_approximately
from typing_extensions import override

from app.providers.llm import Completion, Request, TokenUsage
from app.threads.summary_budget import (
    Budget,
    Message,
    RunningSummary,
    approximate_tokens,
    count_one,
    plan_shortening,
    to_entries,
)
from app.threads.summary_task import write_summary

pytestmark = pytest.mark.slow  # each waits for workers or models

with warnings.catch_warnings(action="ignore"):  # it imports what LangGraph calls outdated
    from langmem.short_term import RunningSummary as LangMemSummary  # type: ignore[import-untyped]
    from langmem.short_term import summarize_messages

EMPTY = RunningSummary("", (), None)
FIRST = "First summary of the conversation."
SECOND = "Updated summary including new messages."


@dataclass(frozen=True)
class Limits:
    total: int
    summary: int = 1
    threshold: int | None = None
    approximate: bool = False

    @property
    def budget(self) -> Budget:
        counter = approximate_tokens if self.approximate else count_one
        threshold = self.total if self.threshold is None else self.threshold
        return Budget(self.total, threshold, self.summary, counter)


@dataclass(frozen=True)
class Outcome:
    covered: frozenset[str]
    last: str | None
    messages: list[tuple[str | None, str]]
    calls: int
    told: str


class ScriptedModel(FakeMessagesListChatModel):
    asked: list[Any] = []  # noqa: RUF012  # pydantic copies it for each model

    @override
    def invoke(self, input: Any, *args: Any, **kwargs: Any) -> AIMessage:
        self.asked.append(input)
        return super().invoke(input, *args, **kwargs)


def through_langmem(
    messages: list[Message], limits: Limits, reply: str = FIRST, before: Outcome | None = None
) -> Outcome:
    model = ScriptedModel(responses=[AIMessage(content=reply)])
    running = before and LangMemSummary(FIRST, set(before.covered), before.last)
    with warnings.catch_warnings(action="ignore"):  # where it cannot make the input short enough
        result = summarize_messages(
            convert_to_messages(messages),
            running_summary=running if before and before.covered else None,
            model=model,
            max_tokens=limits.total,
            max_tokens_before_summary=limits.threshold,
            max_summary_tokens=limits.summary,
            token_counter=count_tokens_approximately if limits.approximate else _length,
        )
    summary = result.running_summary
    return Outcome(
        frozenset(summary.summarized_message_ids if summary else ()),
        summary.last_summarized_message_id if summary else None,
        [(_own_id(m.id, messages), str(m.content)) for m in result.messages],
        len(model.asked),
        "\n".join(str(message.content) for asked in model.asked for message in asked),
    )


async def through_memoryd(
    messages: list[Message], limits: Limits, reply: str = FIRST, before: Outcome | None = None
) -> Outcome:
    asked: list[Request] = []

    async def ask(request: Request, _purpose: str) -> Completion:
        asked.append(request)
        return Completion(reply, (), "end", TokenUsage(1, 1, 0, None), "scripted")

    running = None
    if before and before.covered:
        running = RunningSummary(FIRST, tuple(sorted(before.covered)), before.last)
    found = plan_shortening(to_entries(messages, limits.budget.counter), running, limits.budget)
    if found.replaced:
        turns = [entry.turn for entry in found.read]
        text = await write_summary(ask, turns, running.text if running else None, None, 256)
        running = (running or EMPTY).extended(text, found.replaced)
    return Outcome(
        frozenset(running.message_ids if running else ()),
        running.last_id if running else None,
        [(_own_id(m.get("id"), messages), m["content"]) for m in found.result(running)],
        len(asked),
        "\n".join(message.text for request in asked for message in request.messages),
    )


def _length(messages: Any) -> int:
    return len(messages)


def _own_id(message_id: str | None, messages: list[Message]) -> str | None:
    """Return the id of a message that was sent; LangMem's summary message has none."""
    return message_id if message_id in {message.get("id") for message in messages} else None


def same(ours: Outcome, theirs: Outcome) -> bool:
    return (ours.covered, ours.last, ours.messages, ours.calls) == (
        (theirs.covered, theirs.last, theirs.messages, theirs.calls)
    )


def exchange(number: int) -> list[Message]:
    return [
        {"role": "user", "content": f"Message {number}"},
        {"role": "assistant", "content": f"Response {number}"},
    ]


def numbered(messages: list[Message], start: int = 1) -> list[Message]:
    return [{**message, "id": str(i)} for i, message in enumerate(messages, start)]


LATEST = {"role": "user", "content": "Latest message"}
PROMPT = {"role": "system", "content": "You are a helpful assistant.", "id": "prompt"}
FOUR = numbered([*(m for i in range(1, 5) for m in exchange(i)), LATEST])
THREE = FOUR[:6] + numbered([LATEST], 7)
SOME_EMPTY = [{**m, "content": "" if m["id"] in {"1", "4"} else m["content"]} for m in FOUR]
LONG = numbered([*(m for i in range(20) for m in exchange(i)), LATEST])
WITH_TOOLS = numbered(
    [
        {"role": "user", "content": "Message 1"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"name": "tool_1", "id": "a", "args": {"arg1": "value1"}},
                {"name": "tool_2", "id": "b", "args": {"arg1": "value1"}},
            ],
        },
        {"role": "tool", "content": "Result 1", "tool_call_id": "a", "name": "tool_1"},
        {"role": "tool", "content": "Result 2", "tool_call_id": "b", "name": "tool_2"},
        {"role": "assistant", "content": "Response 1"},
        {"role": "user", "content": "Message 2"},
    ]
)

SCENARIOS = {
    "empty input": ([], Limits(10), 0),
    "only a system message": ([PROMPT], Limits(10), 0),
    "no summarization needed": (FOUR[:3], Limits(10), 0),
    "summarize first time": (FOUR, Limits(6), 6),
    "max tokens before summary": (FOUR, Limits(6, threshold=8), 8),
    "with system message": ([PROMPT, *FOUR], Limits(6), 6),
    "approximate token counter": (SOME_EMPTY, Limits(50, 10, approximate=True), 8),
    "large number of messages": (LONG, Limits(22, 0), 22),
    "last ai with tool calls": (WITH_TOOLS, Limits(6, threshold=2), 4),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_summing_up_for_the_first_time_is_as_in_langmem(scenario: str) -> None:
    messages, limits, summarized = SCENARIOS[scenario]
    ours = await through_memoryd(messages, limits)
    assert same(ours, through_langmem(messages, limits))
    assert len(ours.covered) == summarized


NEW = numbered(
    [
        {"role": "assistant", "content": "Response to latest"},
        *(message for i in (4, 5, 6) for message in exchange(i)),
        LATEST,
    ],
    8,
)
APPROXIMATE = Limits(45, 15, approximate=True)


def sent_back(first: Outcome) -> list[Message]:
    """Return the result for three exchanges as LangGraph keeps it, which names every message."""
    return [{"role": "system", "content": first.messages[0][1], "id": "summary"}, THREE[-1]]


@pytest.mark.parametrize(
    ("limits", "sends"),
    [(Limits(6), "everything"), (Limits(6), "the result"), (APPROXIMATE, "everything")],
)
async def test_going_on_with_new_messages_is_as_in_langmem(limits: Limits, sends: str) -> None:
    first = through_langmem(THREE, limits)
    messages = [*(THREE if sends == "everything" else sent_back(first)), *NEW]
    ours = await through_memoryd(messages, limits, SECOND, first)
    assert same(ours, through_langmem(messages, limits, SECOND, first))
    assert len(ours.covered) == 12
    assert ours.messages[0][1].endswith(SECOND)
    assert [message_id for message_id, _ in ours.messages[1:]] == ["13", "14", "15"]


words = st.text("abc ", max_size=40)
rounds = st.lists(
    st.one_of(
        st.builds(lambda text: [{"role": "user", "content": text}], words),
        st.builds(lambda text: [{"role": "assistant", "content": text}], words),
        st.builds(
            lambda text, result: [
                {
                    "role": "assistant",
                    "content": text,
                    "tool_calls": [{"name": "look", "args": {"for": result}, "id": "call"}],
                },
                {"role": "tool", "content": result, "tool_call_id": "call"},
            ],
            words,
            words,
        ),
    ),
    max_size=10,
)


@given(rounds, st.sampled_from([None, "Ada"]))
def test_tokens_are_counted_as_langchains_approximate_counter_does(
    said: list[list[Message]], name: str | None
) -> None:
    messages = [{**message, "name": name} for part in said for message in part]
    entries = to_entries(messages, approximate_tokens)
    assert [entry.cost for entry in entries] == [
        count_tokens_approximately([message]) for message in convert_to_messages(messages)
    ]
