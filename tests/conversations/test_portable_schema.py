"""Schemas are rewritten for providers without a change of their meaning."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from app.conversations.portable_schema import MAX_BYTES, portable_schema

JSON = dict[str, Any]

TYPES = ["string", "integer", "number", "boolean", "null", "array", "object"]
NAMES = st.sampled_from(["a", "b", "kind"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 4)
    | st.sampled_from([0.5, 1.0, 2.5, "", "a", "bb", "abc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
OWN_KEYWORDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "string": {"minLength": st.integers(0, 3), "maxLength": st.integers(0, 3)},
    "number": {
        "minimum": st.sampled_from([0, 1.5]),
        "maximum": st.integers(0, 3),
        "exclusiveMinimum": st.sampled_from([0, 0.5, 1]),
        "exclusiveMaximum": st.integers(1, 4),
    },
    "array": {"minItems": st.integers(0, 2), "uniqueItems": st.booleans()},
    "object": {
        "required": st.lists(NAMES, max_size=2, unique=True),
        "maxProperties": st.integers(0, 2),
    },
}
KEYWORDS = {name: value for own in OWN_KEYWORDS.values() for name, value in own.items()}
NOTES = {"description": st.just("A note."), "default": VALUES, "title": st.just("Title")}


def nodes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = {
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "additionalProperties": inner,
        "items": inner,
        "prefixItems": st.lists(inner, min_size=1, max_size=2),
        **{name: st.lists(inner, min_size=1, max_size=3) for name in ("anyOf", "oneOf", "allOf")},
        **dict.fromkeys(("not", "if", "then", "else", "contains"), inner),
    }
    typed = {
        "type": st.sampled_from(TYPES)
        | st.lists(st.sampled_from(TYPES), min_size=1, max_size=4, unique=True)
    }
    some = {**KEYWORDS, **members, **NOTES}
    listed = {"enum": st.lists(VALUES, min_size=1, max_size=5)}
    return (
        st.fixed_dictionaries(typed, optional=some)
        | st.fixed_dictionaries(listed, optional={**typed, **KEYWORDS, **NOTES})
        | st.fixed_dictionaries({"const": VALUES}, optional={**typed, **NOTES})
        | st.fixed_dictionaries({"anyOf": members["anyOf"]}, optional=NOTES)
    )


LEAVES: st.SearchStrategy[Any] = (
    st.booleans()
    | st.just({})
    | st.sampled_from([{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B", "description": "B"}])
    | nodes(st.booleans())
)
PARTS = st.recursive(LEAVES, nodes, max_leaves=8)
DEFINITIONS = st.fixed_dictionaries(
    {"A": nodes(st.booleans() | nodes(st.booleans())), "B": nodes(st.just({"$ref": "#/$defs/A"}))}
)


@settings(max_examples=60, deadline=None)
@given(parts=PARTS, definitions=DEFINITIONS, values=st.lists(VALUES, min_size=1, max_size=10))
def test_the_same_values_fit(parts: Any, definitions: JSON, values: list[Any]) -> None:
    schema = {"type": "object", "properties": {"x": parts}, "$defs": definitions}
    written = portable_schema(schema)
    before, after = Draft202012Validator(schema), Draft202012Validator(written)
    for value in values:
        content = {"x": value}
        assert before.is_valid(content) == after.is_valid(content), (schema, written, value)


def portable(part: Any, **definitions: Any) -> Any:
    """Return the rewritten form of a member."""
    schema = {"type": "object", "properties": {"x": part}, "$defs": definitions}
    return portable_schema(schema)["properties"]["x"]


def ranges(*bounds: tuple[float, float]) -> list[JSON]:
    return [{"type": "integer", "minimum": least, "maximum": most} for least, most in bounds]


TEXT, NULL = {"type": "string"}, {"type": "null"}
TAGGED = [
    {"type": "object", "properties": {"is": {"const": name}}, "required": ["is"]} for name in "ab"
]


@pytest.mark.parametrize(
    ("part", "written"),
    [
        ({"type": ["string", "null"], "minLength": 1, "description": "A city."},
         {"anyOf": [{"type": "string", "minLength": 1, "description": "A city."}, NULL]}),
        ({"type": ["null", "string"], "default": None}, {"anyOf": [NULL, TEXT]}),
        ({"anyOf": [TEXT, NULL], "title": "T"}, {"anyOf": [{**TEXT, "title": "T"}, NULL]}),
        ({"type": ["string"]}, TEXT),
        ({"enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"enum": ["a", None]}, {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]}),
        ({"enum": ["", "a"]},
         {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "string", "maxLength": 0}]}),
        ({"const": 7, "description": "N"}, {"description": "N", **ranges((7, 7))[0]}),
        ({"enum": [1, 2, 3, 9]}, {"anyOf": ranges((1, 3), (9, 9))}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}),
        ({"$ref": "#/$defs/Place", "description": "Home."}, {**TEXT, "description": "Home."}),
        ({"allOf": [{"$ref": "#/$defs/Place"}], "default": None}, {**TEXT, "default": None}),
        ({"items": {"$ref": "#/$defs/Place"}}, {"type": "array", "items": TEXT}),
        ({"oneOf": [TEXT, {"type": "integer"}]}, {"anyOf": [TEXT, {"type": "integer"}]}),
        ({"type": "object", "additionalProperties": True}, {"type": "object"}),
    ],
)  # fmt: skip
def test_forms_that_providers_refuse_are_rewritten(part: JSON, written: JSON) -> None:
    assert portable(part, Place=TEXT) == written


def test_choices_by_a_tag_are_alternatives_and_others_stay() -> None:
    tags = portable({"oneOf": TAGGED})["anyOf"]
    assert [tag["properties"]["is"]["enum"] for tag in tags] == [["a"], ["b"]]
    assert "oneOf" in portable({"oneOf": [TAGGED[0], {"type": "object"}]})


def test_a_schema_that_cannot_be_written_out_stays_as_it_is() -> None:
    tree: JSON = {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
    many = {f"D{n}": {"anyOf": [{"$ref": f"#/$defs/D{n + 1}"}] * 9} for n in range(9)}
    long = {"type": "string", "description": "x" * (MAX_BYTES // 3)}
    for definitions in ({"Tree": tree}, {**many, "D9": TEXT}, {"Long": long}):
        name = next(iter(definitions))
        members = {key: {"$ref": f"#/$defs/{name}"} for key in ("a", "b", "c")}
        schema = {"type": "object", "properties": members, "$defs": definitions}
        assert portable_schema(schema) == schema
