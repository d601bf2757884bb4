"""Checking content against clients' schemas: correct, and within a budget."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator, RegexOptions
from pydantic import BaseModel, Field

from app.conversations.schema_assertions import MAX_CHECKS, Budget, TooManyChecksError
from app.conversations.schema_compiler import Node
from app.conversations.schema_validator import (
    Validator,
    ValidatorCache,
    check_object_schema,
    validator_of,
)

SECONDS = 0.25
"""Maximum seconds of the processor for a whole budget; a fast one takes about 0.05."""

NAMES = ("a", "b", "ab")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, 0.5, 1.0, -1.5]),
    st.sampled_from(["", "a", "ab", "b1"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
sizes = st.integers(0, 2)
patterns = st.sampled_from(["^a", "b$", "[0-9]", r"\d", "a|b", "^.{1,2}$"])
types = st.sampled_from(["null", "boolean", "object", "array", "string", "number", "integer"])
references = st.sampled_from(["#/$defs/one", "#/$defs/two"]).map(lambda ref: {"$ref": ref})


def keywords_over(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=2)
    named = st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": st.one_of(types, st.lists(types, min_size=1, max_size=3, unique=True)),
        "enum": st.lists(values, min_size=1, max_size=3),
        "const": values,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "minLength": sizes,
        "maxLength": sizes,
        "pattern": patterns,
        "minItems": sizes,
        "maxItems": sizes,
        "uniqueItems": st.booleans(),
        "minProperties": sizes,
        "maxProperties": sizes,
        "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
        "dependentRequired": st.just({"a": ["b"]}),
        "properties": named,
        "patternProperties": st.dictionaries(patterns, inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "items": inner,
        "prefixItems": several,
        "contains": inner,
        "minContains": sizes,
        "maxContains": sizes,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "dependentSchemas": named,
        "$ref": references.map(lambda found: found["$ref"]),
    }
    members = [st.tuples(st.just(name), value) for name, value in keywords.items()]
    return st.lists(st.one_of(members), min_size=1, max_size=4).map(dict)


schemas = st.recursive(
    st.one_of(st.booleans(), references, keywords_over(st.booleans())),
    keywords_over,
    max_leaves=6,
)
documents = st.builds(
    lambda schema, one, two: {
        **(schema if isinstance(schema, dict) else {"allOf": [schema]}),
        "type": "object",
        "$defs": {"one": one, "two": two},
    },
    schemas,
    schemas,
    schemas,
)


def accepted(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        return check_object_schema(schema)
    except ValueError as error:
        assert "runs in circles" in str(error)  # noqa: PT017
        reject()


@given(documents, st.lists(st.dictionaries(st.sampled_from(NAMES), values), max_size=4))
def test_validation_agrees_with_the_reference_implementation(
    schema: dict[str, Any], contents: list[dict[str, Any]]
) -> None:
    schema = accepted(schema)
    reference = Draft202012Validator(schema, pattern_options=RegexOptions())
    for content in contents:
        is_valid = reference.is_valid(content)
        assert validator_of(schema).is_valid(content) is is_valid
        assert bool(validator_of(schema).faults(content)) is not is_valid


def nested(depth: int, name: str = "a") -> dict[str, Any]:
    content: dict[str, Any] = {}
    for _ in range(depth):
        content = {name: content}
    return content


def schema_of(node: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "allOf": [{"$ref": "#/$defs/n"}], "$defs": {"n": node}}


N = {"$ref": "#/$defs/n"}
TWICE = [N, N]
DOUBLING: dict[str, dict[str, Any]] = {
    "allOf": {"properties": {"a": {"allOf": TWICE}}, "required": ["a"]},
    "anyOf": {"properties": {"a": {"anyOf": TWICE}}, "required": ["a"]},
    "oneOf": {"properties": {"a": {"oneOf": [N, {"allOf": TWICE}]}}, "required": ["a"]},
    "not": {"properties": {"a": {"not": N, "if": N}}},
    "if": {"properties": {"a": {"if": N, "then": N, "else": N}}},
    "if false": {"properties": {"a": {"if": {"not": N}, "then": N, "else": N}}, "required": ["a"]},
    "dependentSchemas": {
        "dependentSchemas": {"a": {"properties": {"a": N}}},
        "properties": {"a": N},
    },
    "patternProperties": {"patternProperties": {"a": N, "^a": N, "a$": N}},
    "properties and patterns": {"properties": {"a": N}, "patternProperties": {"a": N}},
    "branches": {
        "anyOf": [
            {"properties": {"a": N, "kind": {"const": kind}}, "required": ["kind"]}
            for kind in "xyz"
        ]
    },
    "names": {"propertyNames": {"allOf": TWICE}, "properties": {"a": {"allOf": TWICE}}},
}


@pytest.mark.parametrize("node", DOUBLING.values(), ids=DOUBLING)
def test_a_schema_that_doubles_per_level_is_checked_once_a_level(node: dict[str, Any]) -> None:
    validator = validator_of(check_object_schema(schema_of(node)))
    budget, started = Budget(), time.process_time()
    validator.is_valid(nested(50), budget)
    validator.faults(nested(50), budget)
    assert budget.spent < 5_000
    assert time.process_time() - started < SECONDS


def test_deep_lists_and_chains_of_references_stay_within_limits() -> None:
    node = {"items": {"allOf": TWICE}, "contains": N, "prefixItems": [{"anyOf": TWICE}]}
    content: Any = []
    for _ in range(30):
        content = [content, content]
    budget = Budget()
    assert validator_of(check_object_schema(schema_of(node))).is_valid({"a": content}, budget)
    assert budget.spent < 5_000
    links = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}", "title": "x"} for n in range(600)}
    chain = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/d0"}},
        "$defs": {**links, "d600": {"type": "string"}},
    }
    with pytest.raises(TooManyChecksError, match="160 levels"):
        validator_of(check_object_schema(chain)).is_valid({"a": "x"})


WIDE: dict[str, tuple[dict[str, Any], Any]] = {
    "enum": ({"items": {"enum": list(range(5_000))}}, ["x"] * 16_000),
    "unique": (
        {"allOf": [{"uniqueItems": True, "title": str(n)} for n in range(300)]},
        list(range(10_000)),
    ),
    "required": (
        {"items": {"required": [f"p{n}" for n in range(2_500)]}},
        [{f"p{n}": 0 for n in range(5)} for _ in range(1_500)],
    ),
    "patterns": (
        {"patternProperties": {f"[ab]*a[ab]{{{n}}}[^ab]": False for n in range(30, 60)}},
        {"ab" * n: 0 for n in range(200)},
    ),
    "pattern": (
        {"items": {"allOf": [{"pattern": f"[ab]*a[ab]{{{n}}}[^ab]"} for n in range(80, 90)]}},
        ["ab" * 3_000] * 10,
    ),
    "not": ({"not": {"allOf": [{"minProperties": 0, "title": str(n)} for n in range(600)]}}, {}),
    "contains": (
        {"allOf": [{"contains": {"const": str(n)}, "minContains": 0} for n in range(500)]},
        [str(n) for n in range(9_000)],
    ),
    "names": (
        {"allOf": [{"propertyNames": {"minLength": n % 7}} for n in range(600)]},
        {f"p{n}": 0 for n in range(5_000)},
    ),
    "errors": (
        {"items": {"anyOf": [{"const": str(n)} for n in range(1_000)]}},
        ["x" * 10] * 6_000,
    ),
}


@pytest.mark.parametrize(("part", "value"), WIDE.values(), ids=WIDE)
def test_wide_schemas_and_contents_stay_within_the_budget(part: dict[str, Any], value: Any) -> None:
    schema = check_object_schema({"type": "object", "properties": {"x": part}})
    content = json.loads(json.dumps({"x": value}))  # no two values are one object
    validator = validator_of(schema)
    started = time.process_time()
    try:
        validator.faults(content)
    except TooManyChecksError as error:
        assert f"more than {MAX_CHECKS:,} checks" in str(error)  # noqa: PT017
    assert time.process_time() - started < SECONDS


@given(documents, values)
def test_no_accepted_schema_takes_more_than_its_budget(schema: dict[str, Any], value: Any) -> None:
    validator, budget = validator_of(accepted(schema)), Budget()
    content = {"a": [value] * 20, "b": nested(20, "ab"), "ab": {"a": value, "b": [value]}}
    started = time.process_time()
    validator.faults(content, budget)
    assert budget.spent < MAX_CHECKS
    assert time.process_time() - started < SECONDS


class Leaf(BaseModel):
    kind: Literal["leaf"]
    value: float


class Sum(BaseModel):
    kind: Literal["sum"]
    left: "Leaf | Sum" = Field(discriminator="kind")
    right: "Leaf | Sum" = Field(discriminator="kind")


def formula(depth: int) -> dict[str, Any]:
    if depth == 0:
        return {"kind": "leaf", "value": 1}
    return {"kind": "sum", "left": formula(depth - 1), "right": formula(depth - 1)}


def test_a_recursive_union_of_pydantic_is_accepted_and_cheap() -> None:
    content = formula(9)
    Sum.model_validate(content)
    schema = {**Sum.model_json_schema(), "type": "object"}  # pydantic leaves it to $ref
    validator, budget = validator_of(check_object_schema(schema)), Budget()
    assert validator.faults(content, budget) == []
    assert budget.spent < MAX_CHECKS / 2
    assert validator.faults({"kind": "sum"})


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"unevaluatedProperties": False}, 'holds "unevaluatedProperties"; use "additionalP'),
        ({"pattern": "a" * 257}, "has a pattern of 257 characters; use at most 256"),
        ({"pattern": r"\S" * 21}, "more than 20 escapes"),
        ({"pattern": "((a{100}){100}){100}"}, "compiles to more than 256 KiB"),
        ({"pattern": "(?=a)"}, "looks around"),
        ({"patternProperties": {"(a": {}}}, 'has the pattern "(a"'),
        ({"allOf": [{"pattern": "a" * 200 + str(n)} for n in range(10)]}, "1,000 characters"),
        ({"allOf": [{"pattern": rf"^\w{n}.{{99}}$"} for n in range(3)]}, "more than 512 KiB"),
        ({"allOf": [False] * 2_001}, "more than 2,000 sub-schemas"),
    ],
)
def test_schemas_that_are_expensive_to_check_are_refused(
    part: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=r"^(holds|has) ") as caught:
        check_object_schema({"type": "object", "properties": {"x": part}})
    assert problem in str(caught.value)


def test_properties_may_have_the_names_of_refused_keywords() -> None:
    properties = {"unevaluatedItems": {"type": "string"}, "$id": {"const": "$ref"}, "$ref": {}}
    schema = check_object_schema({"type": "object", "properties": properties})
    assert validator_of(schema).is_valid({"unevaluatedItems": "x", "$id": "$ref"})


@pytest.mark.parametrize(
    ("schema", "content", "faults"),
    [
        (
            {"required": ["a", "b"]},
            {},
            ['"a" is a required property', '"b" is a required property'],
        ),
        (
            {"additionalProperties": False},
            {"a": 1, "b": 2},
            ["Additional properties are not allowed ('a', 'b' were unexpected)"],
        ),
        (
            {"properties": {"a": {"items": {"enum": [1, "x", None]}}}},
            {"a": [1, 2]},
            ['.a[1] 2 is not one of 1, "x" or null'],
        ),
        (
            {"properties": {"a": {"anyOf": [{"type": "null"}, {"minLength": 2}]}}},
            {"a": "x"},
            [".a \"x\" is not valid under any of the schemas listed in 'anyOf'"],
        ),
        (
            {"propertyNames": {"maxLength": 1}},
            {"ab": 1},
            ["the name \"ab\" does not fit the schema in 'propertyNames'"],
        ),
        (
            {"properties": {"a": {"allOf": [{"$ref": "#/$defs/n"}] * 2}}, "$defs": {"n": False}},
            {"a": 1},
            [".a False schema does not allow 1"],
        ),
        (
            {"additionalProperties": {"minimum": 3}},
            dict.fromkeys("abcdefg", 1),
            [f".{name} 1 is less than the minimum of 3" for name in "abcde"],
        ),
    ],
)
def test_faults_name_the_place_and_the_problem(
    schema: dict[str, Any], content: Any, faults: list[str]
) -> None:
    found = validator_of(check_object_schema({"type": "object", **schema})).faults(content)
    described = [f"{fault.place} {fault.message}".strip() for fault in found]
    assert described == faults


def test_validators_are_cached_within_a_limit_of_memory() -> None:
    compiled: list[str] = []

    def compile_schema(schema: str) -> Validator:
        compiled.append(schema)
        return Validator(Node(), 40)

    cache = ValidatorCache(compile_schema, max_bytes=100)
    for schema in "abacbc":
        cache.get(schema)
    assert (compiled, cache.bytes) == (["a", "b", "c", "b"], 80)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(cache.get, "abcdefgh" * 50))
    assert cache.bytes == 80
    patterns = {"type": "object", "patternProperties": {"^a": {}, "^b": {}}}
    assert validator_of(check_object_schema(patterns)).bytes > 2 * 131_072
