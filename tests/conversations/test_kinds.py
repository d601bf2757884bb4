from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import meta
from pydantic import BaseModel, ValidationError

from app.conversations.kinds import (
    BUILT_IN,
    EPISODE,
    MEMORY,
    PROFILE,
    TRIPLE,
    Kind,
    MemoryKind,
    find_kind,
)
from app.conversations.schema_assertions import Budget
from app.conversations.schema_validator import MAX_SCHEMA_BYTES, check_object_schema, validator_of
from app.managers.schemas import ManagerConfig

NOTE: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
}


PATTERNS: list[dict[str, Any]] = [{"pattern": "a" * 200}] * 2 + [
    {"patternProperties": {"b" * 200: {}}}
] * 2


class Place(BaseModel):
    name: str


class Trip(BaseModel):
    """A journey that the user made or plans."""

    to: Place
    stops: list[Place] = []
    nights: int | None = None


def fields_of(**config: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        ManagerConfig.model_validate(config)
    return [".".join(map(str, error["loc"])) for error in caught.value.errors()]


def test_built_in_kinds_follow_the_rules_for_custom_ones() -> None:
    for kind in BUILT_IN.values():
        assert check_object_schema(kind.schema) is kind.schema
        described = MemoryKind.model_validate({"name": kind.name, "schema": kind.schema})
        assert described.to_kind().schema == kind.schema
    note = Kind("note", "", NOTE)
    assert find_kind({"text": "x"}, [MEMORY, note, PROFILE], Budget()) == "note"
    assert find_kind({"content": "x"}, [MEMORY, note], Budget()) == "memory"
    assert find_kind({"other": "x"}, [MEMORY, note], Budget()) is None


@pytest.mark.parametrize(
    ("kind", "content", "is_valid"),
    [
        (MEMORY, {"content": "Alice likes ramen."}, True),
        (MEMORY, {"content": ""}, False),
        (MEMORY, {"content": 1}, False),
        (MEMORY, {"content": "x", "mood": "good"}, False),
        (PROFILE, {}, True),
        (PROFILE, {"name": "Alice", "interests": ["ramen"], "shoe_size": 39}, True),
        (PROFILE, {"interests": "ramen"}, False),
        (EPISODE, {"observation": "o", "thoughts": "t", "action": "a", "result": "r"}, True),
        (EPISODE, {"observation": "o", "thoughts": "t", "action": "a"}, False),
        (TRIPLE, {"subject": "A", "predicate": "p", "object": "B", "context": "c"}, True),
        (TRIPLE, {"subject": "Alice", "predicate": "likes"}, False),
    ],
)
def test_built_in_kinds_accept_only_their_content(
    kind: Kind, content: dict[str, Any], *, is_valid: bool
) -> None:
    assert validator_of(kind.schema).is_valid(content) is is_valid


def test_names_select_built_in_kinds_unless_they_have_a_schema() -> None:
    kinds: list[dict[str, Any]] = [
        {"name": "triple"},
        {"name": "memory", "schema": NOTE},
        {"name": "profile", "description": "Pets.", "singleton": False},
    ]
    config = ManagerConfig.model_validate({"kinds": kinds})
    assert config.resolve_kinds() == (
        TRIPLE,
        Kind("memory", "", NOTE),
        replace(PROFILE, description="Pets.", singleton=False),
    )
    assert ManagerConfig().resolve_kinds() == (MEMORY,)
    assert [kind.name for kind in BUILT_IN.values() if kind.singleton] == ["profile"]


def test_a_pydantic_schema_describes_its_kind() -> None:
    kind = MemoryKind.model_validate({"name": "Trip", "schema": Trip.model_json_schema()}).to_kind()
    assert kind.description == "A journey that the user made or plans."
    validator = validator_of(kind.schema)
    assert validator.is_valid({"to": {"name": "Rome"}, "stops": [{"name": "Pisa"}]})
    assert not validator.is_valid({"to": {"name": "Rome"}, "stops": [{}]})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"type": ["object", "null"]},
        {"$ref": "#/$defs/A", "$defs": {"A": NOTE}},
        {"type": "object", "required": "text"},
        {"type": "object", "properties": {"a": {"type": "strin"}}},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {**NOTE, "$schema": "http://json-schema.org/draft-07/schema#"},
        {**NOTE, "$schema": 7},
        {**NOTE, "$id": "https://example.com/note"},
        {**NOTE, "$defs": {"a": {"$anchor": "x"}}},
        {**NOTE, "allOf": [{"$dynamicRef": "#x"}]},
        {**NOTE, "allOf": [{"$ref": "https://example.com/a"}]},
        {**NOTE, "allOf": [{"$ref": "file:///etc/passwd"}]},
        {**NOTE, "allOf": [{"$ref": "other.json#/$defs/a"}]},
        {**NOTE, "allOf": [{"$ref": "#"}]},
        {**NOTE, "allOf": [{"$ref": "#/properties/text"}]},
        {**NOTE, "allOf": [{"$ref": "#/$defs/nothing"}]},
        {**NOTE, "allOf": [{"$ref": "#/$defs/a/not"}], "$defs": {"a": {"not": {}}}},
        {**NOTE, "allOf": [{"$ref": "x"}], "$defs": {"x": {}}},
        {**NOTE, "allOf": [{"$ref": "#/$defs/a%20b"}], "$defs": {"a%20b": {}}},
        {**NOTE, "description": "x" * MAX_SCHEMA_BYTES},
    ],
)
def test_an_unusable_schema_is_refused(schema: dict[str, Any]) -> None:
    assert fields_of(kinds=[{"name": "memory"}, {"name": "note", "schema": schema}]) == [
        "kinds.1.schema"
    ]


def test_a_circular_schema_is_refused() -> None:
    definitions: dict[str, Any]
    for definitions in (
        {"a": {"$ref": "#/$defs/a"}},
        {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}},
        {"a": {"anyOf": [{"type": "null"}, {"not": {"$ref": "#/$defs/a"}}]}},
        {"a": {"if": {"$ref": "#/$defs/a"}}},
        {"a": {"dependentSchemas": {"x": {"$ref": "#/$defs/a"}}}},
    ):
        with pytest.raises(ValueError, match="runs in circles"):
            check_object_schema({"type": "object", "$defs": definitions})


@pytest.mark.parametrize(
    ("kinds", "field"),
    [
        ([], "kinds"),
        ([{"name": "memory"}] * 21, "kinds"),
        ([{"name": "memories"}], "kinds.0"),
        ([{"name": "Memory"}], "kinds.0"),
        (["memory"], "kinds.0"),
        ([None], "kinds.0"),
        ([{"name": "memory"}] * 2, "kinds"),
        ([{"name": "memory"}, {"name": "MEMORY", "schema": NOTE}], "kinds"),
        ([{"schema": NOTE}], "kinds.0.name"),
        ([{"name": f"n{n}", "schema": {**NOTE, "title": "x" * 25_000}} for n in range(3)], "kinds"),
        ([{"name": f"n{n}", "schema": {**NOTE, "allOf": PATTERNS}} for n in range(3)], "kinds"),
        ([{"name": "note"}], "kinds.0"),
        ([{"name": "note", "schema": []}], "kinds.0.schema"),
        ([{"name": "1note", "schema": NOTE}], "kinds.0.name"),
        ([{"name": "no te", "schema": NOTE}], "kinds.0.name"),
        ([{"name": "note\n", "schema": NOTE}], "kinds.0.name"),
        ([{"name": "n" * 57, "schema": NOTE}], "kinds.0.name"),
        ([{"name": "done", "schema": NOTE}], "kinds.0.name"),
        ([{"name": "Update_Memory", "schema": NOTE}], "kinds.0.name"),
        ([{"name": "note", "schema": NOTE, "singleton": "yes"}], "kinds.0.singleton"),
        ([{"name": "note", "schema": NOTE, "singel": True}], "kinds.0.singel"),
        ([{"name": "note", "schema": NOTE, "description": "\x00"}], "kinds.0.description"),
        ([{"name": "note", "schema": {**NOTE, "title": "\x00"}}], "kinds.0.schema"),
    ],
)
def test_errors_in_kinds_are_named(kinds: Any, field: str) -> None:
    assert fields_of(kinds=kinds) == [field]


def test_the_default_must_fit_the_first_kind() -> None:
    default: dict[str, Any] = {"interests": []}
    config = ManagerConfig.model_validate({"kinds": [{"name": "profile"}], "default": default})
    assert config.default == default
    kinds = [{"name": "triple"}, {"name": "memory"}]
    assert fields_of(kinds=kinds, default={"content": "x"}) == ["default"]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "properties", "$ref", "$defs", "allOf", "not", "items", "required", "if"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(["properties", "$defs", "allOf", "$ref"]), json_values))
def test_any_object_is_a_usable_schema_or_refused(members: dict[str, Any]) -> None:
    try:
        schema = check_object_schema({"type": "object", **members})
    except ValueError:
        return
    meta.validate(schema)
    validator_of(schema).is_valid({"properties": {}, "not": [1], "items": "x"})
