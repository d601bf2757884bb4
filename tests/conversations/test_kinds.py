from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import meta
from pydantic import BaseModel, ValidationError

from app.conversations.json_schema.assertions import Budget
from app.conversations.json_schema.subset import MAX_BYTES, check_object_schema
from app.conversations.json_schema.validator import validator_of
from app.conversations.kinds import (
    BUILT_IN,
    EPISODE,
    MEMORY,
    PROFILE,
    TRIPLE,
    MemoryKind,
    find_kind,
)
from app.conversations.types import Kind
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


def problems_of(**config: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        ManagerConfig.model_validate(config)
    return [(".".join(map(str, e["loc"])), e["msg"]) for e in caught.value.errors()]


@pytest.mark.parametrize("kind", BUILT_IN.values(), ids=lambda kind: kind.name)
def test_built_in_kinds_would_be_accepted_from_a_client(kind: Kind) -> None:
    assert check_object_schema(kind.schema) is kind.schema
    described = MemoryKind.model_validate({"name": kind.name, "schema": kind.schema})
    assert described.to_kind().schema == kind.schema
    assert len(kind.description) > 80


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (MEMORY, {"content": "Alice likes ramen."}),
        (PROFILE, {}),
        (PROFILE, {"name": "Alice", "interests": ["ramen"], "shoe_size": 39}),
        (EPISODE, {"observation": "o", "thoughts": "t", "action": "a", "result": "r"}),
        (TRIPLE, {"subject": "Alice", "predicate": "works for", "object": "ACME"}),
        (TRIPLE, {"subject": "A", "predicate": "p", "object": "B", "context": "since 2020"}),
    ],
)
def test_built_in_kinds_take_the_content_they_are_for(kind: Kind, content: dict[str, Any]) -> None:
    assert validator_of(kind.schema).is_valid(content)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (MEMORY, {}),
        (MEMORY, {"content": ""}),
        (MEMORY, {"content": 1}),
        (MEMORY, {"content": "x", "mood": "good"}),
        (PROFILE, {"interests": "ramen"}),
        (EPISODE, {"observation": "o", "thoughts": "t", "action": "a"}),
        (TRIPLE, {"subject": "Alice", "predicate": "likes"}),
    ],
)
def test_built_in_kinds_refuse_other_content(kind: Kind, content: dict[str, Any]) -> None:
    assert not validator_of(kind.schema).is_valid(content)


def test_only_the_profile_is_a_single_document() -> None:
    assert [kind.name for kind in BUILT_IN.values() if kind.singleton] == ["profile"]


def test_names_stand_for_built_in_kinds_and_nothing_for_memory() -> None:
    kinds = [{"name": "triple"}, {"name": "note", "schema": NOTE}, {"name": "profile"}]
    config = ManagerConfig.model_validate({"kinds": kinds})
    assert config.resolve_kinds() == (TRIPLE, Kind("note", "", NOTE), PROFILE)
    assert ManagerConfig().resolve_kinds() == (MEMORY,)


def test_a_built_in_kind_may_have_another_description_and_not_be_single() -> None:
    kind = MemoryKind.model_validate(
        {"name": "profile", "description": "Pets.", "singleton": False}
    )
    assert kind.to_kind() == replace(PROFILE, description="Pets.", singleton=False)


def test_a_kind_of_ones_own_may_take_the_place_of_a_built_in_one() -> None:
    config = ManagerConfig.model_validate({"kinds": [{"name": "memory", "schema": NOTE}]})
    assert config.resolve_kinds() == (Kind("memory", "", NOTE),)


def test_a_schema_of_pydantic_is_a_kind_and_describes_itself() -> None:
    kind = MemoryKind.model_validate({"name": "Trip", "schema": Trip.model_json_schema()}).to_kind()
    assert kind.description == "A journey that the user made or plans."
    validator = validator_of(kind.schema)
    assert validator.is_valid({"to": {"name": "Rome"}, "stops": [{"name": "Pisa"}]})
    assert not validator.is_valid({"to": {"name": "Rome"}, "stops": [{}]})


def test_content_is_of_the_first_kind_that_allows_it() -> None:
    note = Kind("note", "", NOTE)
    assert find_kind({"text": "x"}, [MEMORY, note, PROFILE], Budget()) == "note"
    assert find_kind({"content": "x"}, [MEMORY, note], Budget()) == "memory"
    assert find_kind({"other": "x"}, [MEMORY, note], Budget()) is None


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({}, 'give it "type": "object"'),
        ({"type": "array"}, 'give it "type": "object"'),
        ({"type": ["object", "null"]}, 'give it "type": "object"'),
        ({"$ref": "#/$defs/A", "$defs": {"A": NOTE}}, 'give it "type": "object"'),
        ({"type": "object", "required": "text"}, 'required: "text" is not of type "array"'),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, "properties.a.type: "),
        (
            {"type": "object", "properties": {"a": {"pattern": "("}}},
            'has the pattern "("',
        ),
        ({"type": "object", "properties": []}, 'properties: [] is not of type "object"'),
        ({**NOTE, "$schema": "http://json-schema.org/draft-07/schema#"}, "another dialect"),
        ({**NOTE, "$schema": 7}, "another dialect"),
        ({**NOTE, "$id": "https://example.com/note"}, 'holds "$id"'),
        ({**NOTE, "$defs": {"a": {"$anchor": "x"}}}, 'holds "$anchor"'),
        ({**NOTE, "allOf": [{"$dynamicRef": "#x"}]}, 'holds "$dynamicRef"'),
        ({**NOTE, "allOf": [{"$ref": "https://example.com/a"}]}, 'refers to "https://example'),
        ({**NOTE, "allOf": [{"$ref": "file:///etc/passwd"}]}, 'refers to "file:///'),
        ({**NOTE, "allOf": [{"$ref": "other.json#/$defs/a"}]}, 'refers to "other.json'),
        ({**NOTE, "allOf": [{"$ref": "#"}]}, 'refers to "#"'),
        ({**NOTE, "allOf": [{"$ref": "#/properties/text"}]}, 'refers to "#/properties/text"'),
        ({**NOTE, "allOf": [{"$ref": "#/$defs/nothing"}]}, 'refers to "#/$defs/nothing"'),
        ({**NOTE, "allOf": [{"$ref": "#/$defs/a/not"}], "$defs": {"a": {"not": {}}}}, "refers"),
        ({**NOTE, "allOf": [{"$ref": "x"}], "$defs": {"x": {}}}, 'refers to "x"'),
        ({**NOTE, "allOf": [{"$ref": "#/$defs/a%20b"}], "$defs": {"a%20b": {}}}, "refers to"),
        ({**NOTE, "description": "x" * MAX_BYTES}, "use at most 32,768"),
    ],
)
def test_a_schema_that_is_no_schema_of_an_object_is_refused(
    schema: dict[str, Any], problem: str
) -> None:
    [(field, message)] = problems_of(kinds=[{"name": "memory"}, {"name": "note", "schema": schema}])
    assert field == "kinds.1.schema"
    assert problem in message


@pytest.mark.parametrize(
    "definitions",
    [
        {"a": {"$ref": "#/$defs/a"}},
        {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}},
        {"a": {"anyOf": [{"type": "null"}, {"not": {"$ref": "#/$defs/a"}}]}},
        {"a": {"if": {"$ref": "#/$defs/a"}}},
        {"a": {"dependentSchemas": {"x": {"$ref": "#/$defs/a"}}}},
    ],
)
def test_a_schema_that_runs_in_circles_is_refused(
    definitions: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="runs in circles"):
        check_object_schema({"type": "object", "$defs": definitions})


def test_a_schema_may_contain_itself_one_level_down() -> None:
    tree: dict[str, Any] = {
        "type": "object",
        "properties": {"root": {"$ref": "#/$defs/Node"}},
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
            }
        },
    }
    validator = validator_of(check_object_schema(tree))
    assert validator.is_valid({"root": {"children": [{"children": []}, {}]}})
    assert not validator.is_valid({"root": {"children": [{"children": 1}]}})


def test_members_may_be_called_like_keywords() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}, "not": {}},
    }
    assert validator_of(check_object_schema(schema)).is_valid({"$ref": "x"})


@pytest.mark.parametrize(
    ("kinds", "field", "problem"),
    [
        ([], "kinds", "at least 1 item"),
        ([{"name": "memory"}] * 21, "kinds", "at most 20 items"),
        (
            [{"name": "memories"}],
            "kinds.0",
            '"memories" is no built-in kind; those are memory, profile',
        ),
        ([{"name": "Memory"}], "kinds.0", '"Memory" is no built-in kind'),
        (["memory"], "kinds.0", "valid dictionary"),
        ([None], "kinds.0", "valid dictionary"),
        ([{"name": "memory"}] * 2, "kinds", 'names "memory" twice'),
        ([{"name": "memory"}, {"name": "MEMORY", "schema": NOTE}], "kinds", 'names "MEMORY" twice'),
        ([{"schema": NOTE}], "kinds.0.name", "Field required"),
        (
            [{"name": f"n{n}", "schema": {**NOTE, "title": "x" * 25_000}} for n in range(3)],
            "kinds",
            "hold schemas of 75,291 bytes of JSON; use at most 65,536",
        ),
        (
            [{"name": f"n{n}", "schema": {**NOTE, "allOf": PATTERNS}} for n in range(3)],
            "kinds",
            "hold patterns of 2,400 characters; use at most 2,000",
        ),
        ([{"name": "note"}], "kinds.0", "A kind of your own has a schema"),
        ([{"name": "note", "schema": []}], "kinds.0.schema", "valid dictionary"),
        ([{"name": "1note", "schema": NOTE}], "kinds.0.name", "a letter first"),
        ([{"name": "no te", "schema": NOTE}], "kinds.0.name", "a letter first"),
        ([{"name": "note\n", "schema": NOTE}], "kinds.0.name", "a letter first"),
        ([{"name": "n" * 57, "schema": NOTE}], "kinds.0.name", "a letter first"),
        ([{"name": "done", "schema": NOTE}], "kinds.0.name", "reserved for a tool"),
        ([{"name": "Update_Memory", "schema": NOTE}], "kinds.0.name", "reserved for a tool"),
        ([{"name": "note", "schema": NOTE, "singleton": "yes"}], "kinds.0.singleton", "boolean"),
        ([{"name": "note", "schema": NOTE, "singel": True}], "kinds.0.singel", "not permitted"),
        ([{"name": "note", "schema": NOTE, "description": "\x00"}], "kinds.0.description", "U+0"),
        (
            [{"name": "note", "schema": {**NOTE, "title": "\x00"}}],
            "kinds.0.schema",
            "$.title contains U+0000",
        ),
    ],
)
def test_wrong_kinds_are_named(kinds: Any, field: str, problem: str) -> None:
    [(named, message)] = problems_of(kinds=kinds)
    assert named == field
    assert problem in message


def test_the_first_document_has_to_fit_the_first_kind() -> None:
    config = ManagerConfig.model_validate(
        {"kinds": [{"name": "profile"}], "default": {"interests": []}}
    )
    assert config.default == {"interests": []}
    [(field, message)] = problems_of(
        kinds=[{"name": "triple"}, {"name": "memory"}], default={"content": "x"}
    )
    assert field == "default"
    assert 'does not fit the kind "triple"' in message


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
