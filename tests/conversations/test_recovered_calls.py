"""Calls in the wrong form are recovered if they are clear."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from app.conversations.kinds import MEMORY, Kind
from app.conversations.recovered_calls import recover_calls
from app.extraction.prompt import build_tools
from app.providers.llm import Tool, ToolCall
from tests.support.scripted_model import calls, memory, says, task

PLACE = Kind(
    "place",
    "A place.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "stars": {"type": "integer"}},
        "required": ["city", "stars"],
        "additionalProperties": False,
    },
)
TASK = task(memory("m1", "Bo skis."), kinds=(MEMORY, PLACE))
TOOLS = build_tools(TASK, TASK.existing, first_step=False)

TRAM: dict[str, Any] = {"content": {"content": "Bo takes the tram."}, "importance": 0.4}
OSLO: dict[str, Any] = {"content": {"city": "Oslo", "stars": 4}, "importance": 0.7}
AS_TEXT = json.dumps(TRAM)
NAMED = json.dumps({"name": "insert_memory", "arguments": TRAM})


def read(reply: Any) -> list[tuple[str, Any]]:
    return [(call.name, call.arguments) for call in recover_calls(reply, TOOLS).calls]


@pytest.mark.parametrize(
    "text",
    [
        f"Let me note this.\n\n```json\n{NAMED}\n```\nThat is all.",
        f"```\n[{NAMED}]\n```",
        f"I note:\n{NAMED}\n",
        f"<tool_call>{NAMED}</tool_call>",
        f"<tool_call>\n{NAMED}\n",
        f"[TOOL_CALLS] [{NAMED}]",
        f"[TOOL_CALLS]insert_memory[CALL_ID]a1b2[ARGS]{AS_TEXT}",
        f"<function=insert_memory>{AS_TEXT}</function>",
        f'<|python_tag|>{{"name": "insert_memory", "parameters": {AS_TEXT}}}',
        f"<|tool_call_begin|>functions.insert_memory:0<|tool_call_argument_begin|>{AS_TEXT}",
        f"<|channel|>commentary to=functions.insert_memory <|constrain|>json<|message|>{AS_TEXT}",
        "<\uff5ctool\u2581call\u2581begin\uff5c>function<\uff5ctool\u2581sep\uff5c>insert_memory\n"
        f"```json\n{AS_TEXT}\n```",
        "<tool_call>\n<function=insert_memory>\n<parameter=content>\n"
        f"{json.dumps(TRAM['content'])}\n</parameter>\n<parameter=importance>0.4</parameter>\n"
        "</function>\n</tool_call>",
        f"Thought: worth a note.\nAction: insert_memory\nAction Input: {AS_TEXT}\n",
        '<function_calls><invoke name="insert_memory"><parameter name="content">'
        f'{json.dumps(TRAM["content"])}</parameter><parameter name="importance">0.4</parameter>'
        "</invoke></function_calls>",
        f"[insert_memory(content={TRAM['content']}, importance=0.4)]",
        "```tool_code\nprint(default_api.insert_memory("
        f"content={TRAM['content']}, importance=0.4))\n```",
        f'{{"tool_calls": [{{"type": "function", "function": {NAMED}}}]}}',
        json.dumps({"tool": "default_api.insert_memory", "arguments": AS_TEXT}),
        json.dumps({"insert_memory": TRAM}, indent=1),
        f"```json\n{AS_TEXT}\n```",
        f"~~~json\n{AS_TEXT}\n~~~\nThat is all.",
        f'{{"tool_calls": {NAMED}}}',
        AS_TEXT,
    ],
)  # fmt: skip
def test_a_call_written_as_text_is_a_call(text: str) -> None:
    assert read(says(text)) == [("insert_memory", TRAM)]
    assert recover_calls(says(text), TOOLS).finish_reason == "tools"


def test_several_calls_in_a_text_are_read_in_order() -> None:
    both = [("insert_memory", TRAM), ("insert_place", OSLO)]
    lines = [json.dumps({"name": name, "parameters": arguments}) for name, arguments in both]
    for text in (
        "\n".join(lines),
        "".join(f"<tool_call>{line}</tool_call>\n" for line in lines),
        f"<|python_tag|>{lines[0]}; {lines[1]}",
        f"```json\n{lines[0]}\n```\nand\n```json\n{lines[1]}\n```",
    ):
        assert read(says(text)) == both
    bare = json.dumps([TRAM, {"city": "Oslo", "stars": 4, "importance": 0.7}], indent=2)
    assert read(says(bare)) == both


@pytest.mark.parametrize(
    "text",
    [
        f"One could call {NAMED} here, but nothing is new.",
        f"{NAMED}\nis what an injected message asks for.",
        '```json\n{"name": "format_disk", "arguments": {}}\n```',
        '```json\n{"importance": 0.5}\n```',  # of either kind
        '```json\n{"note": "Bo skis."}\n```',
        f"```json\n{AS_TEXT[:-20]}\n```",
        f"[\n  {AS_TEXT[:-4]}",
        "{}",
        "[]",
        "Nothing {new} [here].",
        "insert_memory(content=open('x'), importance=0.1)",
        "print('Nothing is new.')",
        f"Should I call insert_memory(content={TRAM['content']}, importance=0.4)",
    ],
)
def test_a_text_that_may_mean_something_else_is_no_call(text: str) -> None:
    assert read(says(text)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("functions.insert_memory", "functions.insert_memory:3", "default_api:insert_memory"),
        *("insert_memory<|channel|>analysis", "tools/insert_memory", "Insert-Memory"),
        *(" insert_memory\n", "insertMemory", "mcp__memoryd__insert_memory"),
    ],
)  # fmt: skip
def test_names_lose_what_servers_add_to_them(name: str) -> None:
    assert read(calls((name, TRAM))) == [("insert_memory", TRAM)]


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(AS_TEXT),
        json.dumps(json.dumps(AS_TEXT)),
        AS_TEXT + "</tool_call>",
        AS_TEXT + "\n```\n",
        f"```json\n{AS_TEXT}\n```",
        f"[{AS_TEXT}]",
        f"<|message|>{AS_TEXT}<|call|>",
        json.dumps(TRAM, indent=1) + "}",
        f"\ufeff{AS_TEXT}",
        f"json\n{AS_TEXT}",
        f"~~~json\n{AS_TEXT}\n~~~",
        str(TRAM),
        AS_TEXT[:-1] + ", }",
        json.dumps({"insert_memory": TRAM}),
    ],
)
def test_arguments_in_another_form_are_read(raw: str) -> None:
    assert read(calls(("insert_memory", raw))) == [("insert_memory", TRAM)]


def test_line_breaks_in_a_string_need_no_escape() -> None:
    raw = '{"content": {"content": "Bo\nskis."}, "importance": 0.1}'
    assert read(calls(("insert_memory", raw)))[0][1]["content"] == {"content": "Bo\nskis."}


def test_arguments_of_several_calls_are_several_calls() -> None:
    other = {"content": {"content": "Bo skis in May."}, "importance": 0.1}
    for raw in (AS_TEXT + json.dumps(other), f"{AS_TEXT},\n{json.dumps(other)}"):
        found = recover_calls(calls(("insert_memory", raw)), TOOLS).calls
        assert [call.arguments for call in found] == [TRAM, other]
        assert len({call.id for call in found}) == 2
        assert [json.loads(call.raw) for call in found] == [TRAM, other]


@pytest.mark.parametrize(
    "raw",
    ["", "  ", AS_TEXT[:-9], AS_TEXT + '{"content": {"con', "null", "[1]", "tram", "[" * 9_999],
)  # fmt: skip
def test_arguments_that_may_be_cut_off_are_not_made_up(raw: str) -> None:
    ((name, arguments),) = read(calls(("insert_memory", raw)))
    assert (name, arguments) == ("insert_memory", None if raw.strip() else {})


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("insert_memory", {"content": "Bo takes the tram.", "importance": 0.4}, TRAM),
        ("insert_place", {"city": "Oslo", "stars": 4, "importance": 0.7}, OSLO),
        ("insert_place", {"arguments": OSLO}, OSLO),
        ("insert_place", {"name": "insert_place", "parameters": json.dumps(OSLO)}, OSLO),
        ("insert_place", {"city": "Oslo"}, {"city": "Oslo"}),
        ("insert_place", {**OSLO["content"], "sea": 1}, {**OSLO["content"], "sea": 1}),
    ],
)  # fmt: skip
def test_a_content_in_place_of_the_arguments_is_put_where_it_belongs(
    name: str, given: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert read(calls((name, given))) == [(name, meant)]


def test_results_of_calls_with_the_same_id_can_be_told_from_each_other() -> None:
    reply = calls(("insert_memory", TRAM), ("no_change", {}))
    same = replace(reply, calls=tuple(replace(call, id="x") for call in reply.calls))
    assert len({call.id for call in recover_calls(same, TOOLS).calls}) == 2


def test_members_that_may_be_null_may_be_left_out() -> None:
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    members = {"title": {"type": "string"}, "mood": nullable, "end": {"type": ["string", "null"]}}
    tool = Tool("record", "", {"type": "object", "properties": members, "required": list(members)})
    (found,) = recover_calls(says('{"title": "Oslo"}'), [tool]).calls
    assert (found.name, found.arguments) == ("record", {"title": "Oslo"})


def test_good_replies_and_refusals_stay_as_they_are() -> None:
    good = calls(("insert_memory", TRAM), ("no_change", {}))
    for reply in (good, says(NAMED, "refusal"), says("Hello.")):
        assert recover_calls(reply, TOOLS) is reply
    unknown = recover_calls(calls(("format_disk", "{")), TOOLS).calls
    assert unknown == (ToolCall("call_1", "format_disk", None, "{"),)


@pytest.mark.parametrize(
    "part",
    [
        *("{", "[", '{"a":', "```json\n{", "<tool_call>", "<parameter=a>", "\n{", "to= ", "\n[1]"),
        *("f(", "[]", "Action: a"),
    ],
)  # fmt: skip
def test_hostile_texts_are_read_in_linear_time(part: str) -> None:
    text = (part * 262_144)[:262_144]
    began = time.process_time()
    assert read(says(text)) == []
    read(calls(("insert_memory", text)))
    assert time.process_time() - began < 2
