from dataclasses import replace
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, meta

from app.conversations.kinds import BUILT_IN, EPISODE, MEMORY, PROFILE
from app.conversations.types import LLMTask, Memory, Rights
from app.extraction.prompt import build_tools
from app.providers.llm.base import Tool
from tests.extraction.make_examples import RELATION
from tests.support.scripted_model import memory, task

PRESENT = Memory("m1", "profile", {"name": "Ana"})


def names(given: LLMTask, *, first_step: bool = True) -> list[str]:
    return [tool.name for tool in build_tools(given, given.existing, first_step=first_step)]


def tool(given: LLMTask, name: str) -> Tool:
    offered = build_tools(given, given.existing, first_step=True)
    return next(tool for tool in offered if tool.name == name)


def test_only_what_is_permitted_is_offered() -> None:
    every = task(memory("m1", "a"), kinds=[MEMORY, EPISODE])
    assert names(every) == [
        *("insert_memory", "insert_episode", "update_memory", "delete_memory", "no_change")
    ]
    nothing = replace(every, rights=Rights(inserts=False, updates=False, deletes=False))
    assert names(nothing) == ["no_change"]
    assert names(nothing, first_step=False) == ["no_change", "done"]


def test_without_memories_there_is_nothing_to_update_or_delete() -> None:
    assert names(task()) == ["insert_memory", "no_change"]


@pytest.mark.parametrize("inserts", [True, False])
def test_a_single_kind_is_inserted_once_whatever_is_permitted(inserts: bool) -> None:
    first = task(memory("m1", "a"), kinds=[PROFILE], rights=Rights(inserts=inserts))
    assert names(first) == ["insert_profile", "update_memory", "no_change"]
    assert names(replace(first, existing=[PRESENT])) == ["update_memory", "no_change"]


def test_other_kinds_are_not_inserted_without_the_right() -> None:
    given = task(kinds=[MEMORY, PROFILE], rights=Rights(inserts=False))
    assert names(given) == ["insert_profile", "no_change"]


def test_updates_tell_the_schemas_that_no_insert_tells() -> None:
    beside = task(PRESENT, memory("m2", "a"), kinds=[MEMORY, PROFILE])
    text = tool(beside, "update_memory").description
    assert "The kind profile is a single document" in text
    assert '"preferred_name": {"type": "string"' in text
    assert "The kind memory" not in text
    only_updates = replace(beside, rights=Rights(inserts=False))
    assert "The kind memory: One thing" in tool(only_updates, "update_memory").description


def test_ids_are_those_that_are_shown() -> None:
    given = task(memory("m1", "a"), memory("m7", "b"))
    for name in ("update_memory", "delete_memory"):
        assert tool(given, name).parameters["properties"]["id"]["enum"] == ["m1", "m7"]


def test_definitions_are_where_references_look_for_them() -> None:
    parameters = tool(task(kinds=[RELATION]), "insert_Relation").parameters
    assert "$defs" not in parameters["properties"]["content"]
    validator = Draft202012Validator(parameters)
    ends = {"subject": {"name": "Ana"}, "object": {"name": "Porto"}}
    good: dict[str, Any] = {"content": {**ends, "predicate": "lives in"}, "importance": 0.8}
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "content": {**good["content"], "object": "Porto"}})
    assert "$defs" in RELATION.schema


def test_a_kind_whose_root_is_a_reference_is_offered_as_such() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}, "type": "object"}
    parameters = tool(task(kinds=[replace(MEMORY, schema=schema)]), "insert_memory").parameters
    assert parameters["properties"]["content"]["$ref"] == "#/$defs/A"
    assert parameters["$defs"] == {"A": {"type": "object"}}


def test_every_tool_has_a_text_and_a_valid_schema_of_an_object() -> None:
    given = task(PRESENT, kinds=tuple(BUILT_IN.values()))
    for offered in build_tools(given, given.existing, first_step=False):
        meta.validate(offered.parameters)
        assert offered.parameters["type"] == "object"
        assert offered.description
        assert "$" not in offered.description
