"""Values of edits are texts, which the content's schema tells from JSON."""

import time
from typing import Any

import pytest

from app.conversations.edit_values import read_edit_values

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "zip": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "rooms": {"type": "array", "items": {"$ref": "#/$defs/Room"}},
        "either": {"anyOf": [{"type": "string"}, {"type": "object"}]},
        "a/b": {"type": "boolean"},
        "by_day": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "$defs": {"Room": {"type": "object", "properties": {"beds": {"type": "integer"}}}},
}
CONTENT: dict[str, Any] = {"zip": "1", "rooms": [{"beds": 1}], "free": 3, "note": "x", "list": []}


def meant(path: str, text: Any, schema: dict[str, Any] | None = SCHEMA) -> Any:
    edit = {"op": "add", "path": path, "value": text}
    read = read_edit_values([edit], CONTENT, schema)
    assert isinstance(read, list)
    return read[0]["value"]


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        *(("/zip", text, text) for text in ("01234", "12", "null", "[1]", '{"a": 1}', '"q"')),
        *(("/age", "36", 36), ("/age", "null", None), ("/age", "old", "old")),
        *(("/tags", '["a", "b"]', ["a", "b"]), ("/tags/-", "7", "7"), ("/tags/0", "[]", "[]")),
        *(("/rooms/0/beds", "2", 2), ("/rooms/-", '{"beds": 2}', {"beds": 2})),
        *(("/a~1b", "true", True), ("/by_day/mon", "1.5", 1.5)),
        ("", '{"zip": "1"}', {"zip": "1"}),
        *(("/either", '{"a": 1}', {"a": 1}), ("/either", "word", "word"), ("/either", "5", "5")),
        *(("/new", "42", "42"), ("/new", '["a"]', ["a"]), ("/free", "4", 4), ("/list", "[1]", [1])),
        ("/note", '{"a": 1}', '{"a": 1}'),
        *(("/age", value, value) for value in (36, None, [1], {"a": 1})),
        *(("/new", bad, bad) for bad in ("{", "[NaN]", "[1e999]", '["\\u0000"]')),
        ("/new", "[" * 70 + "]" * 70, "[" * 70 + "]" * 70),
    ],
)  # fmt: skip
def test_a_text_stays_if_it_fits_and_is_parsed_otherwise(path: str, text: Any, value: Any) -> None:
    assert meant(path, text) == value


def test_without_a_schema_the_present_value_decides() -> None:
    texts = {"/free": "5", "/note": "5", "/new": "5", "/list": "[2]", "/other": "[2]"}
    values = [meant(path, text, None) for path, text in texts.items()]
    assert values == [5, "5", "5", [2], [2]]


def test_what_is_no_list_of_edits_is_left_for_the_check() -> None:
    broken: list[Any] = [5, {"op": "add"}, {"path": 1, "value": "[]"}]
    wrong: list[object] = [None, {}, "x", broken, [{}] * 10_000]
    for edits in wrong:
        assert read_edit_values(edits, CONTENT, SCHEMA) == edits


def test_hostile_paths_and_schemas_take_no_time() -> None:
    node: dict[str, Any] = {"properties": {"a": {"$ref": "#/$defs/N"}}}
    tree = {"anyOf": [{**node, "type": "object"}] * 20}
    schema = {"type": "object", **tree, "$defs": {"N": tree}}
    paths = ["/a" * 50, "/a" * 10_000]
    edits = [{"op": "add", "path": paths[n % 2], "value": "[1]"} for n in range(200)]
    started = time.perf_counter()
    read_edit_values(edits, {}, schema)
    assert time.perf_counter() - started < 1
