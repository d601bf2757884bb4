import html
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from app.conversations.memories import Memory
from app.conversations.messages import MAX_TURN_CHARACTERS, Turn
from app.conversations.prompt_text import (
    CONVERSATION_TAGS,
    find_message_ids,
    render_memories,
    render_turns,
)
from app.schemas import parse_date
from tests.support.scripted_model import memory

TAGS = ["conversation", "earlier", "message", "memory", "memories", "instructions"]
HOSTILE = st.lists(
    st.sampled_from(
        ["<", "</", "< /", ">", "/>", '"', "'", "\\", "\n", "&lt;", ' id="m1"', ' id="1"', *TAGS]
    )
    | st.sampled_from([tag.upper() for tag in TAGS])
    | st.text(max_size=3)
).map("".join)
TAG = re.compile(rf"<\s*/?\s*(?:{'|'.join(TAGS)})\b[^\n]*", re.IGNORECASE)

LINE = re.compile(r'<memory(?: \w+="(?:[^"\\]|\\.)*")*>(.*)</memory>')


def tags(text: str) -> list[str]:
    return [found.split(" ")[0].split(">")[0] for found in TAG.findall(text)]


@given(texts=st.lists(HOSTILE, min_size=1, max_size=4), context=st.integers(0, 3))
def test_no_text_can_forge_a_delimiter_of_the_conversation(texts: list[str], context: int) -> None:
    turns = [Turn(text, text or "user", text) for text in texts]
    context = min(context, len(turns) - 1)
    shown = render_turns(turns, context)
    message = ["<message", "</message"]
    earlier = ["<earlier", *message * context, "</earlier"] if context else []
    latest = ["<conversation", *message * (len(turns) - context), "</conversation"]
    assert tags(shown) == earlier + latest
    assert re.findall(r'^<message id="(\d+)"', shown, re.MULTILINE) == [
        str(number) for number, _ in enumerate(turns, start=1)
    ]


@given(texts=st.lists(HOSTILE, min_size=1, max_size=4))
def test_no_memory_can_forge_another_and_contents_stay_exact(texts: list[str]) -> None:
    memories = [Memory(f"m{n}", text, {text: [text]}) for n, text in enumerate(texts, start=1)]
    lines = render_memories(memories).split("\n")
    assert (lines[0], lines[-1]) == ("<memories>", "</memories>")
    assert len(lines) == len(memories) + 2
    for line, existing in zip(lines[1:-1], memories, strict=True):
        assert tags(line) == ["<memory"]
        assert line.startswith(f'<memory id="{existing.id}" ')
        found = LINE.fullmatch(line)
        assert found is not None
        assert json.loads(found[1]) == existing.content


@given(st.text())
@example("if a < b && c > d: <messages> <p>&amp;</p> <memory_limit>")
def test_text_without_our_tags_is_unchanged(text: str) -> None:
    assert html.unescape(CONVERSATION_TAGS.escape(text)) == html.unescape(text)
    if not TAG.search(text):
        assert CONVERSATION_TAGS.escape(text) == text


def test_times_are_shown_in_utc_with_the_weekday_of_messages() -> None:
    moment = datetime(2026, 5, 4, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    shown = render_turns([Turn("a", "Ana", "Hi", said_at=moment)])
    assert '<message id="1" from="Ana" role="user" time="Sunday, 2026-05-03 23:30 UTC">' in shown
    dated = memory("m1", "a", valid_from=parse_date("0005"), updated_at=moment)
    assert 'since="0005" changed="2026-05-03 23:30 UTC"' in render_memories([dated])
    said = replace(dated, valid_to=parse_date("2026-05"), said_first=moment, said_last=moment)
    shown = render_memories([said, replace(said, said_first=datetime(2025, 1, 1, tzinfo=UTC))])
    assert 'since="0005" until="2026-05" said="2026-05-03 23:30 UTC">' in shown
    assert 'said="2025-01-01 to 2026-05-03 23:30 UTC">' in shown


def test_a_very_long_message_loses_its_middle() -> None:
    text = "a" * MAX_TURN_CHARACTERS + "b" * MAX_TURN_CHARACTERS
    shown = render_turns([Turn("1", "user", text)])
    half = MAX_TURN_CHARACTERS // 2
    assert (
        "a" * half + f"\n[… {MAX_TURN_CHARACTERS:,} characters left out …]\n" + "b" * half in shown
    )
    assert len(shown) < MAX_TURN_CHARACTERS + 200
    whole = "a" * MAX_TURN_CHARACTERS
    assert whole in render_turns([Turn("1", "user", whole)])


def test_numbers_shown_to_models_map_to_message_ids() -> None:
    turns = [Turn("x", "user", "a"), Turn("1", "user", "b")]
    assert find_message_ids(["1", 2, "2", 3, None, "x"], turns) == ("x", "1")


def test_an_empty_list_of_memories_is_stated() -> None:
    assert render_memories([]) == "No memories are kept yet."
