import asyncio
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.db.database import Parameters
from app.store.filter_sql import to_sql
from app.store.filters import InvalidFilterError, parse_filter
from tests.store.filter_model import COLUMNS, Item, matches

ITEM_TYPES = {
    "value": "jsonb[]",
    "key": "text[]",
    "importance": "float8[]",
    "version": "bigint[]",
    "created_at": "timestamptz[]",
    "updated_at": "timestamptz[]",
    "valid_from": "timestamptz[]",
    "valid_to": "timestamptz[]",
    "said_first": "timestamptz[]",
    "said_last": "timestamptz[]",
    "source_class": "text[]",
    "stale": "bool[]",
}


class Evaluator:
    """Asks PostgreSQL which filters match which items, all in one round trip."""

    def __init__(self, runner: asyncio.Runner, connection: asyncpg.Connection) -> None:
        self._runner = runner
        self._connection = connection

    def verdicts(
        self, filters: Sequence[Mapping[str, Any]], items: Sequence[Item]
    ) -> list[list[bool | None]]:
        """One row per item, one verdict per filter."""
        parameters = Parameters()
        arrays = ", ".join(
            parameters.add([column(item, name) for item in items], cast)
            for name, cast in ITEM_TYPES.items()
        )
        conditions = ", ".join(to_sql(parse_filter(raw), parameters) for raw in filters)
        sql = (
            f"SELECT ARRAY[{conditions}] FROM unnest({arrays}) "
            f"WITH ORDINALITY AS i({', '.join(ITEM_TYPES)}, place) ORDER BY i.place"
        )
        rows = self._runner.run(self._connection.fetch(sql, *parameters.values))
        return [row[0] for row in rows]


def column(item: Item, name: str) -> object:
    return json.dumps(item.value) if name == "value" else getattr(item, name)


@pytest.fixture(scope="module")
def postgres(filled_url: str) -> Iterator[Evaluator]:
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(filled_url, statement_cache_size=0))
        try:
            yield Evaluator(runner, connection)
        finally:
            runner.run(connection.close())


def refusal(raw: Any) -> str | None:
    """What the filter is refused with, if it is; a refusal can always be sent to the client."""
    try:
        parse_filter(raw)
    except InvalidFilterError as error:
        orjson.dumps([error.detail, error.members])
        return error.detail
    return None


# (filter, values that match, values that do not)
EXAMPLES: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "numbers compare as numbers": (
        {"score": {"$gte": 10}},
        [{"score": 10}, {"score": 100}, {"score": 10.0}],
        [{"score": 2}, {"score": 9}, {"score": "100"}, {"score": True}, {"score": None}, {}],
    ),
    "huge numbers keep their digits": (
        {"n": {"$gt": 2**53}},
        [{"n": 2**53 + 1}, {"n": 10**400}],
        [{"n": 2**53}, {"n": -(10**400)}],
    ),
    "strings compare by code point": (
        {"s": {"$gt": "Z"}},
        [{"s": "a"}, {"s": "é"}, {"s": "Za"}],
        [{"s": "A"}, {"s": "Z"}, {"s": ""}, {"s": 99}, {"s": ["a"]}, {}],
    ),
    "one is one point nought": ({"n": 1}, [{"n": 1}, {"n": 1.0}], [{"n": True}, {"n": "1"}]),
    "a scalar is not found inside a list": ({"t": "a"}, [{"t": "a"}], [{"t": ["a"]}]),
    "a plain object matches as a subset": (
        {"meta": {"b": 1}},
        [{"meta": {"b": 1, "c": 2}}, {"meta": {"b": 1.0}}],
        [{"meta": {"b": 2}}, {"meta": [{"b": 1}]}, {"meta": 1}, {}],
    ),
    "$eq with an object is exact": (
        {"meta": {"$eq": {"b": 1}}},
        [{"meta": {"b": 1}}],
        [{"meta": {"b": 1, "c": 2}}, {}],
    ),
    "a list is exact": (
        {"t": ["a", "b"]},
        [{"t": ["a", "b"]}],
        [{"t": ["b", "a"]}, {"t": ["a", "b", "c"]}, {"t": "a"}, {}],
    ),
    "null matches null and missing": (
        {"none": None},
        [{"none": None}, {}, []],
        [{"none": 0}, {"none": False}, {"none": ""}, {"none": []}],
    ),
    "$exists tells null from missing": ({"none": {"$exists": True}}, [{"none": None}], [{}]),
    "$ne includes items lacking the field": (
        {"flag": {"$ne": False}},
        [{"flag": True}, {"flag": None}, {"flag": 0}, {}],
        [{"flag": False}],
    ),
    "$contains an element": (
        {"tags": {"$contains": "a"}},
        [{"tags": ["a", "b"]}, {"tags": "cat"}],
        [{"tags": ["cat"]}, {"tags": {"a": 1}}, {"tags": [["a"]]}, {}],
    ),
    "$contains all of a list": (
        {"tags": {"$contains": ["a", "b"]}},
        [{"tags": ["b", "c", "a"]}],
        [{"tags": ["a"]}, {"tags": "ab"}, {}],
    ),
    "$contains an object by subset": (
        {"people": {"$contains": {"name": "Ann"}}},
        [{"people": [{"name": "Ann", "age": 3}]}, {"people": {"name": "Ann"}}],
        [{"people": [{"name": "Bob"}]}, {"people": ["Ann"]}],
    ),
    "$contains is literal and case-sensitive": (
        {"s": {"$contains": "50%_"}},
        [{"s": "a 50%_ b"}],
        [{"s": "50 percent"}, {"s": "500_"}],
    ),
    "a literal dotted key wins over the path": (
        {"user.name": "Ann"},
        [{"user.name": "Ann", "user": {"name": "Bob"}}],
        [{"user.name": "Bob", "user": {"name": "Ann"}}, {"user.name": None}],
    ),
    "a path steps into lists": (
        {"tags.0": "a"},
        [{"tags": ["a", "b"]}, {"tags": {"0": "a"}}],
        [{"tags": ["b", "a"]}, {"tags": []}, {"tags": "a"}],
    ),
}


def test_examples_match_as_documented(postgres: Evaluator) -> None:
    for name, (raw, matching, others) in EXAMPLES.items():
        items = [Item(value) for value in [*matching, *others]]
        expected = [True] * len(matching) + [False] * len(others)
        assert [row[0] for row in postgres.verdicts([raw], items)] == expected, name
        assert [matches(raw, item) for item in items] == expected, name


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEM = Item({"created_at": "never"}, key="notes/Été", importance=0.3, version=7, created_at=NOON)
META_EXAMPLES: list[tuple[dict[str, Any], bool]] = [
    ({"key": {"$contains": "/É"}}, True),
    ({"key": {"$gte": "notes/", "$lt": "notes0"}}, True),
    ({"importance": {"$gt": 0.3}}, False),
    ({"importance": {"$gt": -(10**999)}}, True),
    ({"created_at": "2026-03-01T14:00:00+02:00"}, True),
    ({"created_at": "2026-03-01T12:00:00"}, True),
    ({"created_at": {"$not": {"$gt": "2026-03-01"}}}, False),
    ({"valid_to": None}, True),
    ({"valid_to": {"$exists": True}}, False),
    ({"valid_to": {"$gt": "2026-03-01"}}, False),
    ({"said_last": {"$gt": "2026-03-01"}}, False),
    ({"source_class": {"$ne": "tool"}}, True),
]


def test_columns_are_compared_as_what_they_hold(postgres: Evaluator) -> None:
    for wanted, expected in META_EXAMPLES:
        assert postgres.verdicts([{"$meta": wanted}], [ITEM]) == [[expected]], wanted
        assert matches({"$meta": wanted}, ITEM) is expected, wanted


def nested(depth: int, innermost: Any = ()) -> Any:
    return dict(innermost) if depth == 1 else {"$not": nested(depth - 1, innermost)}


OPERATORS = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $contains, $not"
META = ", ".join(COLUMNS)
REFUSED: list[tuple[Any, str]] = [
    (None, "filter: must be an object"),
    ({"age": {"$gtt": 1}}, f'filter.age.$gtt: unknown operator "$gtt"; use one of {OPERATORS}'),
    ({"$nor": []}, "filter.$nor: unknown operator"),
    ({"a": {"$gt": 1, "b": 2}}, 'filter.a: "b" is not an operator'),
    ({"a": {"b": {"$gt": 1}}}, "filter.a.b.$gt: stands inside a plain object"),
    ({"a": {"$gt": True}}, "filter.a.$gt: must be a number or a string"),
    ({"a": {"$in": "x"}}, "filter.a.$in: must be a list of values"),
    ({"a": {"$exists": 1}}, "filter.a.$exists: must be true or false"),
    ({"a": {"$not": {"$x": 1}}}, "filter.a.$not.$x: unknown operator"),
    ({"$and": []}, "filter.$and: must be a list"),
    ({"$or": [{"a": 1}, 2]}, "filter.$or[1]: must be an object"),
    ({"$not": [{}]}, "filter.$not: must be an object"),
    ({"$meta": 1}, "filter.$meta: must be an object"),
    ({"$meta": {"age": 1}}, f'filter.$meta.age: unknown field "age"; use one of {META}'),
    ({"$meta": {"key": {"a": 1}}}, "filter.$meta.key: "),
    ({"$meta": {"key": {"$contains": ["a"]}}}, "filter.$meta.key.$contains: must be a string"),
    ({"$meta": {"key": {"$in": ["a", 1]}}}, "filter.$meta.key.$in[1]: must be a string"),
    ({"$meta": {"version": {"$contains": 1}}}, "filter.$meta.version.$contains: unknown operator"),
    ({"$meta": {"version": 2**63}}, "filter.$meta.version: must be a whole number"),
    ({"$meta": {"importance": "1"}}, "filter.$meta.importance: must be a number"),
    ({"$meta": {"created_at": "soon"}}, "filter.$meta.created_at: "),
    ({"$meta": {"valid_to": "0001-01-01T00:00+14:00"}}, "filter.$meta.valid_to: "),
    ({"$meta": {"created_at": "\ud800"}}, "filter.$meta.created_at: contains U+D800"),
    ({"a\0": 1}, "filter: has a key with a NUL"),
    ({"a": {"$in": ["b", {"c\0": 1}]}}, "filter.a.$in[1]: has a key with a NUL"),
    ({"a": {"b": ["\udfff"]}}, "filter.a.b[0]: contains U+DFFF"),
    ({"a": {"b": [math.inf]}}, "filter.a.b[0]: is inf"),
    ({"a": 10**1000}, "filter.a: is an integer of more than 1,000 digits"),
    (nested(16, {"a": [1]}), f"filter{'.$not' * 15}.a: is nested deeper than 16 levels"),
    (nested(16, {str(n): n for n in range(6_000)}), "filter: has 6,016 JSON values"),
    (nested(17), f"filter{'.$not' * 16}: is nested deeper than 16 levels"),
    ({"$or": [{"a": n} for n in range(201)]}, "filter: has more than 200 conditions"),
    ({"a": {"$nin": [1] * 1001}}, "filter.a.$nin: "),
    ({"a" * 2001: 1}, "filter.aaa"),
]


def test_a_refusal_names_the_place() -> None:
    for raw, start in REFUSED:
        assert (refusal(raw) or "").startswith(start), start


def test_deepest_and_widest_filters_run(postgres: Evaluator) -> None:
    widest = {"$or": [{"a" + ".b" * n: {"$contains": "x"}} for n in range(200)]}
    deepest = nested(16, {"a": 10**1000 - 1})
    found = postgres.verdicts([nested(16), deepest, widest], [Item({"a": "x"})])
    assert found == [[False, True, True]]


def test_keys_and_values_stay_out_of_the_text() -> None:
    def text(key: str, value: str) -> str:
        conditions = [value, {"$gt": value}, {"$contains": value}, {"$in": [value]}, {key: value}]
        raw = [{f"{prefix}{key}": operand} for operand in conditions for prefix in ("", "a.")]
        return to_sql(parse_filter({"$and": [*raw, {"$meta": {"key": value}}]}), Parameters())

    assert text("k", "v") == text("""k"'); DROP--$1""", """v"'); DROP--$2""")


KEYS = ["a", "b", "a.b", "a.0", "b.-1", "a.0.a", "b. +1", "b.a", "0", "1.a", "", ".", "a.", "é"]
COMMON_KEYS = ["a", "b", "0", "a.b", "a.0", "b.0", "b.a"]
NUMBERS = [0, 1, -1, 1.0, 0.5, 9, 10, 2**53 + 1, float(2**53), 1e23, 10**23, 5e-324, -(10**400)]
TEXTS = ["", "a", "b", "ab", "A", "é", "\uffff", "😀", "%", "10", "9", "null", "'\"\\", "\x01"]
numbers = (
    st.sampled_from(NUMBERS)
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, width=32).filter(math.isfinite)
)
texts = st.sampled_from(TEXTS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
)
scalars = st.none() | st.booleans() | numbers | texts
names = st.sampled_from(["a", "b", "0", "a.b", "a.0"])
# Few and alike, so that what a filter asks for is often what an item holds, or nearly.
FAMILIAR: list[Any] = [
    *[None, True, 1, 1.0, "a", "ab", [], ["a"], ["b", "a"], [["a"], 1], [None], {}, {"a": 1}],
    *[{"a": 1.0, "b": "a"}, {"b": ["a"]}, {"0": "a"}, [{"a": 1}], [{"a": 1, "b": None}, "ab"]],
]
familiar = st.sampled_from(FAMILIAR)
values = familiar | st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
times = st.datetimes(
    datetime(2026, 1, 1),  # noqa: DTZ001 (Hypothesis adds the time zone)
    datetime(2026, 1, 2),  # noqa: DTZ001
    timezones=st.just(UTC),
) | st.just(NOON)
importances = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]) | st.floats(0, 1)
items = st.builds(
    Item,
    st.dictionaries(names, values, min_size=2, max_size=4) | values,
    key=texts,
    importance=st.none() | importances,
    version=st.integers(1, 3),
    created_at=times,
    updated_at=times,
    valid_from=st.none() | times,
    valid_to=st.none() | times,
    said_last=st.none() | times,
    source_class=st.sampled_from([None, "user", "tool"]),
    stale=st.booleans(),
)
comparisons = st.sampled_from(["$gt", "$gte", "$lt", "$lte"])


def operators(
    operands: st.SearchStrategy[Any], ordered: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """One or two operators over the operands a target takes."""
    pair = st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne"]), st.none() | operands),
        st.tuples(comparisons, ordered),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(st.none() | operands, max_size=3)),
        st.tuples(st.just("$exists"), st.booleans()),
    )
    return st.lists(pair, min_size=1, max_size=2).map(dict)


contains = values.map(lambda value: {"$contains": value})
field_operators = operators(values, numbers | texts) | contains
conditions = values | field_operators | (values | field_operators).map(lambda one: {"$not": one})
isotimes = times.map(datetime.isoformat)
dates = isotimes | st.sampled_from(["2025", "2026", "2025-12", "2026-01", "2025-12-31"])
metas = st.fixed_dictionaries(
    {},
    optional={
        "key": texts | operators(texts, texts) | texts.map(lambda text: {"$contains": text}),
        "importance": importances | operators(importances | numbers, importances | numbers),
        "version": operators(st.integers(1, 3), st.integers(1, 3)),
        "created_at": isotimes | operators(isotimes, isotimes),
        "updated_at": operators(isotimes, isotimes),
        "valid_from": st.none() | operators(dates, dates),
        "valid_to": operators(dates, dates).map(lambda one: {"$not": one}),
        "said_last": st.none() | operators(isotimes, isotimes),
        "stale": st.booleans() | st.just({"$ne": True}),
        "source_class": st.none() | st.just("user") | st.just({"$in": ["tool", None]}),
    },
)
filters = st.recursive(
    st.dictionaries(st.sampled_from(COMMON_KEYS) | st.sampled_from(KEYS), conditions, max_size=2)
    | metas.map(lambda meta: {"$meta": meta}),
    lambda inner: (
        inner.map(lambda one: {"$not": one})
        | st.lists(inner, min_size=1, max_size=3).map(lambda many: {"$and": many})
        | st.lists(inner, min_size=1, max_size=3).map(lambda many: {"$or": many})
    ),
    max_leaves=4,
)


@pytest.mark.parametrize("examples", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_postgres_agrees_with_the_model(postgres: Evaluator, examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.lists(filters, min_size=4, max_size=8), st.lists(items, min_size=4, max_size=8))
    def agrees(wanted: list[dict[str, Any]], stored: list[Item]) -> None:
        expected = [[matches(raw, item) for raw in wanted] for item in stored]
        assert postgres.verdicts(wanted, stored) == expected

    agrees()


anything = st.recursive(
    scalars | st.text() | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*OPERATORS.split(", "), "$and", "$or", "$meta", "$x", *COLUMNS, *KEYS])
            | st.text(),
            inner,
            max_size=3,
        )
    ),
)
ODD: list[Any] = [{}, [], None, "", "a", 1, True, [[]], {"a": "x"}, {"a": [{"b": None}]}, {"": {}}]


@settings(max_examples=50)
@given(raw=st.dictionaries(st.text() | st.sampled_from(["$and", "$not", "$meta"]), anything))
def test_any_json_is_refused_or_runs(postgres: Evaluator, raw: dict[str, Any]) -> None:
    refused = refusal(raw)
    if refused is None:
        rows = postgres.verdicts([raw, {"$not": raw}], [Item(value) for value in ODD])
        assert all(sorted(row, key=str) == [False, True] for row in rows)
    else:
        assert refused.startswith("filter")
