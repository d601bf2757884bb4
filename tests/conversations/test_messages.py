import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_openai_messages,
    messages_to_dict,
)

from app.conversations.messages import (
    MAX_TOOL_CHARACTERS,
    ConversationMessage,
    InvalidMessageError,
    Turn,
    parse_messages,
    to_turns,
)

JSON = dict[str, Any]

SPOKEN: JSON = {"audio": {"transcript": "a"}}
DATA: JSON = {"media_type": "text/plain", "data": "a"}

CALLING = AIMessage(
    content=[
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "t1", "name": "search", "input": {"q": "ramen"}},
    ],
    tool_calls=[{"id": "t1", "name": "search", "args": {"q": "ramen"}}],
    id="m2",
)
CONVERSATION: list[BaseMessage] = [
    SystemMessage("Be kind."),
    HumanMessage("Where is good ramen?", id="m1", name="Alice"),
    CALLING,
    ToolMessage("Ippudo", tool_call_id="t1", name="search"),
    ChatMessage(content="Thanks!", role="user"),
]
TURNS = [
    Turn("1", "system", "Be kind.", "system"),
    Turn("m1", "Alice", "Where is good ramen?"),
    Turn("m2", "assistant", 'Let me look.\n[calls search({"q": "ramen"})]', "assistant"),
    Turn("4", "search", "Ippudo", "tool"),
    Turn("5", "user", "Thanks!"),
]


def turn(message: Any) -> Turn:
    [only] = turns_of([ConversationMessage.model_validate(message)])
    return only


def turns_of(messages: Sequence[object]) -> list[Turn]:
    turns = to_turns(parse_messages(messages))
    return [replace(turn, source_class=None) for turn in turns]


@pytest.mark.parametrize(
    ("message", "source_class"),
    [
        ({"role": "human", "content": "a"}, "user"),
        ({"role": "assistant", "content": "a"}, "assistant"),
        ({"role": "function", "content": "a"}, "tool"),
        ({"role": "developer", "content": "a"}, None),
        ({"role": "user", "content": [{"type": "tool_result", "content": "a"}]}, "tool"),
        ({"role": "user", "content": ["a", {"type": "input_file", "file_id": "b"}]}, "document"),
        ({"role": "user", "content": ["a", {"type": "image", "source": {}}]}, "user"),
    ],
)
def test_the_class_of_a_message_is_the_lowest_of_its_parts(
    message: dict[str, Any], source_class: str | None
) -> None:
    [only] = to_turns(parse_messages([message]))
    assert only.source_class == source_class


def refused(*messages: Any) -> InvalidMessageError:
    with pytest.raises(InvalidMessageError) as caught:
        turns_of(messages)
    assert caught.value.status == 422
    return caught.value


def test_every_dump_of_langchain_messages_is_read() -> None:
    assert turns_of([message.model_dump() for message in CONVERSATION]) == TURNS
    assert turns_of([dumpd(message) for message in CONVERSATION]) == TURNS
    assert turns_of(messages_to_dict(CONVERSATION)) == TURNS


def test_openai_messages_are_read() -> None:
    openai = convert_to_openai_messages(
        [message for message in CONVERSATION if message.type != "chat"]
    )
    assert isinstance(openai, list)
    assert [(t.speaker, t.role, t.text) for t in turns_of(openai)] == [
        (t.speaker, t.role, t.text) for t in TURNS[:4]
    ]


def test_anthropic_messages_are_read() -> None:
    turns = turns_of(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?", "cache_control": {"type": "eph"}},
                    {"type": "image", "source": {"type": "base64", "data": "iVBOR"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "redacted_thinking", "data": "xyz"},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "A cat"}, {"type": "image"}],
                    },
                    {"type": "tool_result", "tool_use_id": "t2", "content": "A dog"},
                    {"type": "tool_result", "tool_use_id": "t3"},
                    {"type": "document", "source": {}},
                ],
            },
        ]
    )
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "What is this?\n[image]"),
        ("assistant", "[calls look({})]"),
        ("user", "[result: A cat [image]]\n[result: A dog]\n[result: ]\n[document]"),
    ]


@pytest.mark.parametrize(
    ("message", "role", "text"),
    [
        (["user", "hi"], "user", "hi"),
        (["ai", "hi"], "assistant", "hi"),
        ({"role": "developer", "content": "hi"}, "system", "hi"),
        ({"role": "Assistant", "content": "hi"}, "assistant", "hi"),
        ({"type": "message", "role": "user", "content": "hi"}, "user", "hi"),
        ({"type": "AIMessageChunk", "content": "hi"}, "assistant", "hi"),
        ({"type": "human", "content": "hi", "data": {"content": "other"}}, "user", "hi"),
        ({"role": "user", "content": ["hi", {"text": "you"}]}, "user", "hi\nyou"),
        ({"role": "user", "content": [{"type": "input_text", "text": "hi"}]}, "user", "hi"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "user", "[image]"),
        ({"role": "user", "content": []}, "user", ""),
        ({"role": "user", "content": ""}, "user", ""),
        ({"role": "assistant", "content": None, "tool_calls": None}, "assistant", ""),
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}],
            },
            "assistant",
            '[calls f({"a":1})]',
        ),
        (
            {"role": "assistant", "tool_calls": [{"name": "f", "args": {"é": 1}}, {}]},
            "assistant",
            '[calls f({"é": 1})]\n[calls ?({})]',
        ),
    ],
)
def test_a_message_becomes_a_turn(message: Any, role: str, text: str) -> None:
    assert (turn(message).role, turn(message).text) == (role, text)


def test_items_of_openai_responses_are_read() -> None:
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Tea?"}]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c", "name": "buy", "arguments": '{"n": 1}'},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
        {"type": "web_search_call", "id": "w", "status": "completed"},
        {"type": "mcp_call", "name": "add", "arguments": "{}", "output": "3"},
        {"type": "mcp_list_tools", "server_label": "x", "tools": []},
    ]
    turns = turns_of(items)
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "Tea?"),
        ("assistant", ""),
        ("assistant", '[calls buy({"n": 1})]'),
        ("tool", "done"),
        ("assistant", "[calls web_search_call()]"),
        ("assistant", "[calls add({})]\n[result: 3]"),
        ("assistant", ""),
    ]
    again = turns_of([message.members() for message in parse_messages(items)])
    assert [(turn.role, turn.text) for turn in again] == [(t.role, t.text) for t in turns]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": {"type": "text", "text": "a"}}, "a"),
        ({"role": "user", "content": [{"type": "text", "text": {"value": "a"}}]}, "a"),
        ({"role": "assistant", "content": None, "audio": {"id": "x", "transcript": "a"}}, "a"),
        ({"role": "user", "content": [{"type": "input_audio", "transcript": " a "}]}, "a"),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}]}, "a"),
        ({"role": "assistant", "content": "", "additional_kwargs": SPOKEN}, "a"),
        ({"type": "human", "text": "a"}, "a"),
        (
            {"role": "user", "content": [{"type": "document", "source": {"type": "text", **DATA}}]},
            "a",
        ),
        ({"role": "user", "content": [{"type": "text-plain", "text": "a"}]}, "a"),
        ({"role": "model", "parts": {"text": "a"}}, "a"),
        ({"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "a"}]}, "a"),
        (
            {"role": "model", "parts": [{"text": "a"}, {"inlineData": {"data": "eA=="}}]},
            "a\n[inlineData]",
        ),
        (
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"n": 1}}}]},
            '[calls f({"n": 1})]',
        ),
        (
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"n": 1}}}]},
            '[result: {"n": 1}]',
        ),
        (
            {"role": "user", "content": [{"toolUse": {"name": "f", "input": {}}}, {"text": "a"}]},
            "[calls f({})]\na",
        ),
        (
            {"role": "user", "content": [{"toolResult": {"content": [{"text": "a"}]}}]},
            "[result: a]",
        ),
        (
            {
                "role": "assistant",
                "parts": [
                    {"type": "step-start"},
                    {"type": "reasoning", "text": "hm"},
                    {"type": "text", "text": "a"},
                    {"type": "tool-look", "toolCallId": "1", "input": {"q": 1}, "output": {"n": 2}},
                ],
            },
            'a\n[calls look({"q": 1})]\n[result: {"n": 2}]',
        ),
        (
            {
                "role": "tool",
                "content": [
                    {
                        "type": "tool-result",
                        "toolName": "f",
                        "output": {"type": "json", "value": {"n": 1}},
                    }
                ],
            },
            '[result: {"n": 1}]',
        ),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}},
            "[calls f()]",
        ),
    ],
)
def test_content_is_read_in_the_forms_that_people_have(message: JSON, text: str) -> None:
    assert turn(message).text == text


@pytest.mark.parametrize("message", [{"type": "memo", "content": "a"}, {"content": "a"}, "a", 7])
def test_an_unknown_form_is_answered_with_the_accepted_ones(message: Any) -> None:
    detail = refused(message).detail
    for form in ('{"role": "user", "content": "…"}', "Responses", "parts", '"type": "human"'):
        assert form in detail


IMAGE = base64.b64encode(bytes(n * 37 % 251 for n in range(900))).decode()


@pytest.mark.parametrize("data", [IMAGE, f"data:image/png;base64,{IMAGE}"])
def test_encoded_data_in_a_message_becomes_a_mark(data: str) -> None:
    escaped = json.dumps({"shot": data}).replace("/", "\\/")  # as some languages write JSON
    messages: list[JSON] = [
        {"role": "user", "content": f"See ![me]({data}) here."},
        {"role": "user", "content": [{"type": "text", "text": f"See {data} here."}]},
        {"role": "assistant", "tool_calls": [{"name": "f", "args": {"shot": data, "to": "here"}}]},
        {"role": "tool", "content": f"{escaped} here"},
        {"role": "user", "content": [{"type": "tool_result", "content": f"{data} here"}]},
        {"type": "function_call_output", "call_id": "c", "output": {"shot": data, "to": "here"}},
    ]
    for text in (turn(message).text for message in messages):
        assert "characters of encoded data]" in text
        assert "here" in text
        assert len(text) < 100


def test_times_and_ids_may_be_numbers() -> None:
    message = {"role": "user", "content": "a", "created_at": 1_700_000_000, "id": 17}
    assert turn(message).said_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert turn(message).id == "17"
    in_milliseconds = {**message, "created_at": 1_700_000_000_000}
    assert turn(in_milliseconds).said_at == turn(message).said_at
    with pytest.raises(InvalidMessageError, match="created_at"):
        turns_of([{**message, "created_at": 1e30}])


def test_arguments_and_results_of_tools_are_cut_to_a_length() -> None:
    long = "x" * (MAX_TOOL_CHARACTERS + 1234)
    cut = "x" * MAX_TOOL_CHARACTERS + "… (1,234 characters more)"
    assert turn({"role": "tool", "content": long}).text == cut
    assert turn({"role": "user", "content": long}).text == long
    results = {"role": "user", "content": [{"type": "tool_result", "content": long}]}
    assert turn(results).text == f"[result: {cut}]"
    calls = {"role": "assistant", "tool_calls": [{"name": "f", "args": long}]}
    assert turn(calls).text == f"[calls f({cut})]"


def test_ids_names_and_times_are_normalized() -> None:
    given_ids = [None, "1", None, "2'", None, "x"]
    messages = [{"role": "user", "content": "x", "id": given_id} for given_id in given_ids]
    assert [turn.id for turn in turns_of(messages)] == ["1'", "1", "3", "2'", "5", "x"]
    said = turn({"role": "user", "content": "x", "created_at": "2026-01-31T12:00:00+02:00"})
    assert said.said_at == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert turn({"role": "user", "name": "Al\nice  B", "content": "x"}).speaker == "Al ice B"
    assert turn({"role": "user", "name": " ", "content": "x"}).speaker == "user"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, "messages[1].role"),
        ({"content": "x"}, "messages[1].role"),
        ({"role": "alice", "content": "x"}, "messages[1].role"),
        ({"type": "remove", "content": ""}, "messages[1].type"),
        ({"role": 1, "content": "x"}, "messages[1].role"),
        ({"role": "user", "words": "x"}, "messages[1].content"),
        ({"role": "system", "words": "x"}, "messages[1].content"),
        ({"role": "tool", "words": "x"}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": {"type": 5}}, "messages[1].content[0].type"),
        ({"role": "user", "content": [5]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": 5}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": ["text"]}]}, "messages[1].content[0].type"),
        (
            {"role": "user", "content": ["x", {"type": "text", "text": 5}]},
            "messages[1].content[1].text",
        ),
        (
            {"role": "user", "content": [{"type": "tool_result", "content": [5]}]},
            "messages[1].content[0].content[0]",
        ),
        ({"role": "assistant", "tool_calls": [5]}, "messages[1].tool_calls[0]"),
        ({"role": "user", "content": "a\x00b"}, "messages[1]"),
        ({"role": "user", "content": "x", "more": {"a": "\ud800"}}, "messages[1]"),
        ({"role": "user", "content": "x", "id": ""}, "messages[1].id"),
        ({"role": "user", "content": "x", "id": "i" * 513}, "messages[1].id"),
        ({"role": "user", "content": "x", "id": "first"}, "messages[1].id"),
        ({"role": "user", "content": "x", "created_at": "5"}, "messages[1].created_at"),
        (["user", "a", "b"], "messages[1]"),
        ("hello", "messages[1]"),
        (None, "messages[1]"),
    ],
)
def test_an_unreadable_message_is_named(message: Any, field: str) -> None:
    error = refused({"role": "user", "content": "hi", "id": "first"}, message)
    assert [found["field"] for found in error.members["errors"]] == [field]


texts = st.text(max_size=5)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "text", "content", "name", "input", "args", "arguments", "function", "id"]
            ),
            st.one_of(inner, st.sampled_from(["text", "tool_use", "tool_result", "image"])),
            max_size=4,
        ),
    ),
    max_leaves=8,
)
members = st.sampled_from(
    ["role", "type", "content", "id", "name", "created_at", "tool_calls", "lc", "kwargs", "data"]
)
roles = st.sampled_from(["user", "human", "ai", "tool", "system", "nobody"])
messages_like = st.one_of(
    st.dictionaries(members, st.one_of(json_values, roles), max_size=6),
    st.fixed_dictionaries({"role": roles, "content": json_values}),
    st.tuples(roles, json_values).map(list),
    json_values,
)


@given(st.lists(messages_like, max_size=4))
def test_any_messages_are_read_or_refused_as_documented(messages: list[Any]) -> None:
    try:
        turns = turns_of(messages)
    except InvalidMessageError:
        error = refused(*messages)
        assert error.members["errors"][0]["field"].startswith("messages[")
        return
    assert len(turns) == len(messages)
    assert len({turn.id for turn in turns}) == len(turns)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), texts.map(str.strip))))
def test_order_and_words_are_kept(pairs: list[tuple[str, str]]) -> None:
    pairs = [(role, text.replace("\x00", "")) for role, text in pairs]
    messages = [{"role": role, "content": text} for role, text in pairs]
    assert [(turn.role, turn.text) for turn in turns_of(messages)] == [
        (role, text.strip()) for role, text in pairs
    ]
