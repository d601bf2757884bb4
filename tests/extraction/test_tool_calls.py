import copy
import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conversations.kinds import MEMORY, Kind
from app.conversations.memories import (
    BadContentError,
    Edit,
    LLMTask,
    Memory,
    Rights,
    apply_edits,
    check_content,
)
from app.extraction.prompt import build_tools
from app.extraction.tool_calls import BadCallError, Draft, ToolCallExecutor
from app.providers.llm import ToolCall
from app.schemas import parse_date
from tests.extraction.make_examples import RELATION
from tests.support.scripted_model import (
    ALL_ROOTS,
    delete,
    delete_edit,
    insert,
    insert_edit,
    memory,
    outlines,
    task,
    update,
    update_edit,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
EDITS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "replace", "remove", "append"])},
        optional={
            "path": st.sampled_from(["", "/", "/content", "/list/0", "/list/-", "/list/9", "/a/b"])
            | st.text(),
            "value": JSON,
        },
    ),
    max_size=4,
)


def execute(
    name: str,
    arguments: dict[str, Any] | None,
    given_task: LLMTask | None = None,
    *,
    last: bool = False,
) -> tuple[Any, ...]:
    chosen = given_task or task(memory("m1", "Ana lives in Porto."))
    draft = Draft(chosen.existing)
    offered = [tool.name for tool in build_tools(chosen, draft.memories, first_step=False)]
    ToolCallExecutor(chosen, draft).execute(ToolCall("1", name, arguments, ""), offered, last=last)
    return outlines(draft.edits())


def edit_call(given: Any) -> tuple[str, dict[str, Any]]:
    return "update_memory", {"id": "m1", "edits": given}


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("insert_memory", None, "the arguments are not a JSON object"),
        ("remember", {}, "there is no tool 'remember'; use insert_memory, update_memory"),
        ("insert_", {}, "there is no tool 'insert_'"),
        ("insert_profile", {}, "there is no tool 'insert_profile'"),
        ("insert_memory", {}, "content is missing"),
        ("insert_memory", {"content": "Ana"}, 'content must be an object, not "Ana"'),
        ("insert_memory", {"content": {}}, '"content" is a required property'),
        ("insert_memory", {"content": {"content": 5}}, "content.content: 5 is not of type"),
        ("insert_memory", {"content": {"content": "a", "b": 1}}, "'b' was unexpected"),
        (*insert("a\x00b"), "memory.content.content contains U+0000"),
        (*insert("\ud800"), "contains U+D800"),
        (*insert("a", importance=-0.1), "importance must be from 0 to 1, not -0.1"),
        (*insert("a", importance=1.01), "importance must be from 0 to 1"),
        (*insert("a", importance=float("nan")), "importance must be from 0 to 1, not nan"),
        (*insert("a", importance=True), "importance must be a number"),
        (*insert("a", importance="so-so"), "importance must be a number"),
        (*insert("a", valid_from="last year"), "valid_from must be a date such as"),
        (*insert("a", valid_from="2026-13"), "valid_from must be a date"),
        (*insert("a", valid_from="0000"), "valid_from must be a date"),
        (*insert("a", valid_from=1_770_000_000), "valid_from must be a date"),
        (*insert("a", valid_from={}), "valid_from must be a date"),
        ("update_memory", {"id": "m1"}, "edits are missing"),
        ("update_memory", {"id": "m1", "content": {"content": "Faro"}}, "edits are missing"),
        ("update_memory", {"edits": []}, "there is no memory with the id null; there are m1"),
        ("update_memory", {"id": ["m1"], "edits": []}, "there is no memory with the id"),
        (*update("m2", "a"), 'there is no memory with the id "m2"; there are m1'),
        (*delete("Ana"), 'there is no memory with the id "Ana"'),
        (*edit_call({}), "edits must be a list"),
        (*edit_call(["a"]), "edit 1: op must be one of add, replace"),
        (
            *edit_call([{"op": "move", "from": "/content", "path": "/b"}]),
            "edit 1: op must be one of",
        ),
        (
            *edit_call([{"op": "replace", "path": "/text", "value": "a"}]),
            "edit 1 (replace '/text') does not apply: can't replace a non-existent object 'text'. "
            'Memory m1 is unchanged; its content is {"content": "Ana lives in Porto."}',
        ),
        (
            *edit_call([{"op": "add", "path": "content", "value": "a"}]),
            "Location must start with /",
        ),
        (*edit_call([{"op": "add", "path": "/content"}]), "does not contain a 'value' member"),
        (*edit_call([{"op": "remove", "path": "/content"}]), '"content" is a required property'),
        (*edit_call([{"op": "replace", "path": "", "value": "a"}]), 'must be an object, not "a"'),
    ],
)
def test_bad_calls_fail_with_a_reason(
    name: str, arguments: dict[str, Any] | None, reason: str
) -> None:
    with pytest.raises(BadCallError) as raised:
        execute(name, arguments)
    assert reason in str(raised.value)


@pytest.mark.parametrize("name", ["content", "edits"])
def test_nested_arguments_may_be_json_text(name: str) -> None:
    tool, arguments = insert("Ana lives in Faro.") if name == "content" else update("m1", "Faro")
    as_text = {**arguments, name: json.dumps(arguments[name])}
    assert execute(tool, as_text) == execute(tool, arguments)
    for text in ("{", "[" * 100_000, "null", '"a"', "1e999"):
        with pytest.raises(BadCallError, match=f"{name} must be"):
            execute(tool, {**arguments, name: text})


def test_edits_without_the_right_are_refused() -> None:
    for rights, call in (
        (Rights(inserts=False), insert("a")),
        (Rights(updates=False), update("m1", "a")),
        (Rights(deletes=False), delete("m1")),
    ):
        with pytest.raises(BadCallError, match=f"there is no tool '{call[0]}'"):
            execute(*call, task(memory("m1", "a"), rights=rights))


@pytest.mark.parametrize(
    ("given_moment", "moment"),
    [
        ("2026", "2026"),
        (2026, "2026"),
        ("2026-05", "2026-05"),
        ("2026-05-03", "2026-05-03"),
        ("2026-05-03T10:00:00+02:00", "2026-05-03T08:00:00+00:00"),
        ("2026-05-03 10:00", "2026-05-03T10:00:00+00:00"),
        ("", None),
        (None, None),
    ],
)
def test_dates_may_be_as_exact_as_is_known(
    given_moment: str | int | None, moment: str | None
) -> None:
    (change,) = execute(*insert("a", valid_from=given_moment))
    assert change.valid_from == (moment and parse_date(moment))


@pytest.mark.parametrize(
    ("call", "edit"),
    [
        (insert("a", importance=None), insert_edit("m2", "memory", {"content": "a"}, None)),
        (
            insert("a", importance="0.5", message_ids=["1", "7", None, "1", 1]),
            insert_edit("m2", "memory", {"content": "a"}, 0.5, message_ids=("a",)),
        ),
        (
            insert("a", message_ids="1"),
            insert_edit("m2", "memory", {"content": "a"}, 0.5, message_ids=("a",)),
        ),
        (
            ("update_memory", {"id": "m1", "importance": 1}),
            update_edit("m1", "memory", {"content": "Ana lives in Porto."}, importance=1.0),
        ),
        (("update_memory", {"id": "m1", "edits": []}), None),
        *(
            (("delete_memory", {"id": "m1", "reason": reason}), delete_edit("m1"))
            for reason in (None, 5, "", " \x00 ")
        ),
        *((("no_change", arguments), None) for arguments in (None, {}, {"reason": 5})),
    ],
)
def test_details_are_optional_and_read_leniently(
    call: tuple[str, dict[str, Any] | None], edit: Edit | None
) -> None:
    assert execute(*call) == (() if edit is None else (edit,))


def test_in_the_last_attempt_wrong_details_are_left_out() -> None:
    for wrong in ({"importance": "so-so"}, {"importance": 3}, {"valid_from": "last week"}):
        name, arguments = insert("a", **wrong)
        right = {key: value for key, value in arguments.items() if key not in wrong}
        assert execute(name, arguments, last=True) == execute(name, right)
    assert execute(*insert("a\ud83d\x00"), last=True) == execute(*insert("a\ufffd\ufffd"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("Very high", 1.0), ("medium", 0.5), (" low ", 0.2), ("7/10", 0.7), ("3 of 5", 0.6)),
        *((9, 0.9), (75, 0.75), ("90%", 0.9), ("n/a", None), ("null", None), ("0.3", 0.3)),
    ],
)
def test_an_importance_may_be_in_words_or_on_another_scale(
    given: object, meant: float | None
) -> None:
    assert execute(*insert("a", importance=given)) == execute(*insert("a", importance=meant))


def test_a_detail_may_say_that_it_is_unknown_and_ids_may_be_one_text() -> None:
    plain = execute(*insert("a"))
    for unknown in ("unknown", "None", "N/A", " null "):
        assert execute(*insert("a", valid_from=unknown)) == plain
    listed = execute(*insert("a", message_ids=["1"]))
    for ids in ("1", 1, "[1]", "message 1, 9", '["1"]'):
        assert execute(*insert("a", message_ids=ids)) == listed


@pytest.mark.parametrize(
    ("content", "path", "value", "after"),
    [
        ({"a": "Ana sings."}, "/a", "She learned it.", {"a": "Ana sings. She learned it."}),
        ({"a": "Ana sings"}, "/a", ", loudly", {"a": "Ana sings, loudly"}),
        ({"a": "アナは歌う。"}, "/a", "大声で。", {"a": "アナは歌う。大声で。"}),
        ({"a": ""}, "/a", "Ana", {"a": "Ana"}),
        ({"a": {"b": ["x"]}}, "/a/b", "y", {"a": {"b": ["x", "y"]}}),
        ({"a": 1}, "/a", "y", "append adds to a text or to a list"),
        ({"a": "x"}, "/a", 1, "append adds to a text or to a list"),
        ({"a": "x"}, "/b", "y", "does not apply"),
    ],
)
def test_append_adds_to_a_text_or_a_list(content: Any, path: str, value: Any, after: Any) -> None:
    edits = [{"op": "append", "path": path, "value": value}]
    if isinstance(after, dict):
        assert apply_edits(content, edits) == after
        return
    with pytest.raises(BadContentError, match=after):
        apply_edits(content, edits)


def test_a_deleted_memory_may_name_the_one_that_covers_it() -> None:
    given = task(memory("m1", "Ana sings."), memory("m2", "Ana sings and dances."))
    arguments = {"id": "m1", "reason": "the same", "covered_by": "m2"}
    draft = Draft(given.existing)
    executor = ToolCallExecutor(given, draft)
    executor.execute(ToolCall("1", "delete_memory", arguments, ""), ["delete_memory"])
    covering_edit, edit = draft.edits()
    assert covering_edit.sources == (given.existing[0],)
    assert edit.reason == "the same (covered by m2)"
    for covering in ("m1", "m3", 2):
        wrong = ToolCall("2", "delete_memory", {"id": "m2", "covered_by": covering}, "")
        with pytest.raises(BadCallError, match="must be another memory that is kept"):
            executor.execute(wrong, ["delete_memory"])


def test_calls_on_one_memory_take_effect_in_the_order_given() -> None:
    given_task = task(memory("m1", "Ana lives in Porto."))
    draft = Draft(given_task.existing)
    executor = ToolCallExecutor(given_task, draft)
    offered = [tool.name for tool in build_tools(given_task, draft.memories, first_step=True)]

    def call(name: str, arguments: dict[str, Any]) -> str:
        return executor.execute(ToolCall("1", name, arguments, ""), offered)

    assert call(*update("m1", "Ana lives in Lisbon.")) == "Memory m1 updated."
    assert call(*update("m1", "Ana lives in Faro.", importance=0.8)) == "Memory m1 updated."
    faro = update_edit("m1", "memory", {"content": "Ana lives in Faro."}, 0.8)
    assert outlines(draft.edits()) == (faro,)
    assert call(*delete("m1")) == "Memory m1 deleted."
    assert outlines(draft.edits()) == (delete_edit("m1", "wrong"),)
    for late in (update("m1", "Ana lives in Porto."), delete("m1")):
        with pytest.raises(BadCallError, match="memory m1 was deleted before"):
            call(*late)


def test_the_schema_of_a_kind_is_checked_quickly_and_reasons_are_short() -> None:
    relation = {"subject": {"name": "Ana"}, "predicate": "lives in", "object": {"name": "Porto"}}
    assert check_content(relation, RELATION.schema) == relation
    with pytest.raises(BadContentError, match=r'content\.object\.is_a: "city" is not one of'):
        check_content({**relation, "object": {"name": "Porto", "is_a": "city"}}, RELATION.schema)
    with pytest.raises(BadContentError, match=r"content\.a: .* does not match"):
        check_content({"a": "a" * 5_000 + "!"}, {"properties": {"a": {"pattern": "^(a+)+$"}}})
    with pytest.raises(BadContentError, match=r'x… is not one of "a"$') as raised:
        check_content({"a": "x" * 5_000}, {"properties": {"a": {"enum": ["a"]}}})
    assert len(str(raised.value)) < 500


def test_too_many_and_hostile_edits_are_refused() -> None:
    edits = [{"op": "add", "path": "/list/-", "value": n} for n in range(20_000)]
    content = {"list": list(range(10_000))}
    with pytest.raises(BadContentError, match="20,000 edits; one update takes at most 200"):
        apply_edits(content, edits)
    started = time.perf_counter()
    assert apply_edits(content, edits[:200])["list"][10_000:] == list(range(200))
    assert time.perf_counter() - started < 0.5
    assert len(content["list"]) == 10_000
    deep: Any = 0
    for _ in range(900):
        deep = [deep]
    with pytest.raises(BadContentError, match="deeper than 64 levels"):
        apply_edits({}, [{"op": "add", "path": "/a", "value": deep}])
    with pytest.raises(BadContentError, match="does not apply"):
        apply_edits({"a": []}, [{"op": "add", "path": f"/a/{'9' * 5_000}", "value": 1}])


@given(edits=st.one_of(EDITS, JSON))
def test_edits_apply_or_are_refused_and_never_change_their_input(edits: Any) -> None:
    content = {"content": "Ana", "list": [1, {"a": 2}]}
    before, sent = copy.deepcopy(content), repr(edits)
    with suppress(BadContentError):
        apply_edits(content, edits)
    assert content == before
    assert repr(edits) == sent


@given(
    name=st.sampled_from(
        ["insert_memory", "insert_free", "update_memory", "delete_memory", "done"]
    ),
    arguments=st.dictionaries(
        st.sampled_from(
            ["id", "content", "edits", "importance", "valid_from", "message_ids", "reason"]
        ),
        JSON | EDITS | st.sampled_from(["m1", "2026-05", "9999-12-31T23:59:59-14:00"]),
    ),
)
def test_any_arguments_are_executed_or_refused(name: str, arguments: dict[str, Any]) -> None:
    free = Kind("free", "Anything.", {"type": "object"})
    given_task = task(memory("m1", "a"), kinds=[MEMORY, free], rights=ALL_ROOTS)
    try:
        changes = execute(name, arguments, given_task)
    except BadCallError:
        return
    for change in changes:
        if change.action != "delete":
            json.dumps(change.content, allow_nan=False, ensure_ascii=False).encode()
            assert change.importance is None or 0 <= change.importance <= 1


BEFORE = [
    memory("m1", "a", importance=0.5),
    memory("m2", "b", valid_from=parse_date("2026-01")),
]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "update", "update", "delete"]),
        st.integers(0, 9),
        st.sampled_from("abc"),
        st.sampled_from([None, 0.5, 1.0]),
        st.lists(st.sampled_from("xyz"), max_size=2).map(tuple),
    ),
    max_size=12,
)


def state(memories: list[Memory]) -> dict[str, tuple[Any, ...]]:
    return {
        known.id: (known.kind, known.content, known.importance, known.valid_from)
        for known in memories
    }


def replayed(changes: tuple[Edit, ...]) -> dict[str, tuple[Any, ...]]:
    fresh = Draft(BEFORE)
    for change in changes:
        fresh.apply(change)
    return state(fresh.memories)


@given(ACTIONS)
def test_merged_edits_have_the_effect_of_all_of_them(actions: list[tuple[Any, ...]]) -> None:
    draft = Draft(BEFORE)
    for action, number, text, importance, messages in actions:
        content = {"content": text}
        ids = [known.id for known in draft.memories]
        chosen = ids[number % len(ids)] if ids else ""
        if action == "insert" or not ids:
            draft.apply(insert_edit(draft.new_id(), "memory", content, importance, None, messages))
        elif action == "update":
            draft.apply(update_edit(chosen, "memory", content, importance, None, messages))
        else:
            draft.apply(delete_edit(chosen))
    changes = draft.edits()
    assert replayed(changes) == state(draft.memories)
    ids = [change.memory_id for change in changes]
    assert len(ids) == len(set(ids))
    before = state(BEFORE)
    for change in changes:
        assert (change.action == "insert") == (change.memory_id not in before)
        if change.action == "update":
            is_said_again = bool(change.message_ids)
            assert is_said_again or (
                state(draft.memories)[change.memory_id] != before[change.memory_id]
            )


def test_a_merged_insert_has_all_messages_and_a_new_id() -> None:
    draft = Draft([memory("m9", "a"), memory("m03", "b"), memory("other", "c")])
    assert [draft.new_id(), draft.new_id()] == ["m10", "m11"]
    draft.apply(insert_edit("m10", "memory", {"content": "a"}, 0.5, None, ("x",)))
    draft.apply(update_edit("m10", "memory", {"content": "b"}, None, None, ("y", "x")))
    inserted = insert_edit("m10", "memory", {"content": "b"}, 0.5, None, ("x", "y"))
    assert outlines(draft.edits()) == (inserted,)
    draft = Draft([replace(BEFORE[0], content={"n": 1})])
    draft.apply(update_edit("m1", "memory", {"n": True}))  # which is not 1
    assert outlines(draft.edits()) == (update_edit("m1", "memory", {"n": True}, 0.5),)
