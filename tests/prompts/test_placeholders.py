import json
from datetime import date
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.prompts.texts import find_placeholder_problem, list_variables, render_prompt

VARIABLES = ["{name}", "{{city}}", "{user.id}", "{{{raw}}}", "{größe}"]
FIELDS = ["{name}", "{price:.2f}", "{0}", "{user!r:>10}", "{day:%Y-%m-%d}", "{ratio:{width}.3%}"]

plain = st.text(st.characters(exclude_characters="{}"), max_size=20)
json_text = st.dictionaries(
    st.sampled_from(["a", "a b", "{", "ü"]),
    st.none() | st.integers() | st.lists(st.booleans()),
    min_size=1,
).map(json.dumps)


def template(parts: list[str]) -> st.SearchStrategy[str]:
    """Texts of the parts, in any order, and of text between them."""
    return st.lists(st.sampled_from(parts) | plain, max_size=8).map("".join)


@given(st.text() | template([*VARIABLES, *FIELDS, "{", "}", "{}"]))
def test_an_unchanged_text_is_accepted(text: str) -> None:
    assert find_placeholder_problem(text, text) is None


@given(plain, st.sampled_from(VARIABLES), plain)
def test_variables_may_be_moved_and_repeated_but_not_lost_or_added(
    before: str, variable: str, after: str
) -> None:
    with_it, without = before + variable + after, before + after
    name = variable.strip("{}")
    assert name in (find_placeholder_problem(with_it, without) or "")
    assert name in (find_placeholder_problem(without, with_it) or "")
    assert find_placeholder_problem(with_it, after + with_it + before + with_it) is None


@given(plain, json_text, plain)
def test_json_may_come_go_and_change(before: str, value: str, after: str) -> None:
    assert find_placeholder_problem(before + value, before + value + after) is None
    assert find_placeholder_problem(before + after, before + value + after) is None
    assert find_placeholder_problem(before + value + after, before + after) is None


@given(template([*FIELDS, "{{", "}}"]), template([*FIELDS, "{{", "}}", '{"a": 1}', "{", "}", "{}"]))
def test_a_format_string_stays_one(old: str, new: str) -> None:
    values = {
        "name": "Ana",
        "price": 3.0,
        "user": 7,
        "ratio": 0.5,
        "width": 8,
        "day": date(2026, 5, 4),
    }
    has_fields = any(field is not None for _, field, _, _ in Formatter().parse(old))
    if has_fields and find_placeholder_problem(old, new) is None:
        old.format("nought", **values)
        new.format("nought", **values)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Hi {a} {b}", "Hi", "the new prompt lacks {a}, {b}, which a program fills in"),
        ("Hi", "Hi {a}", "the new prompt has {a}, which no program fills in"),
        ("Hi {a}", "Hi {{a}}", "the new prompt lacks {a}, which a program fills in"),
        ("Hi {a}", "Hi {a} {b:>5}", "the new prompt has {b:>5}, which no program fills in"),
        ("Sum up: {}", "Sum up", "the new prompt lacks {}, which a program fills in"),
        (
            "Sum up: {}",
            "Sum up: {} {}",
            "fields without a name are filled in in order, so there must be as many, in that order",
        ),
        (
            "Hi {a}",
            'Hi {a}, answer {"b": 1}',
            "the prompt is a format string, and the new one is not: a brace that is only a brace "
            "must be doubled there",
        ),
    ],
)
def test_a_problem_is_described_for_the_model(old: str, new: str, problem: str) -> None:
    assert find_placeholder_problem(old, new) == problem


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Hi {{ user.name }}", "Hi {{user.name}}!"),  # Mustache does not mind
        ('Answer {"city": {city}}', 'Answer {"city": {city}, "unit": "°C"}'),
        ("Answer {key:value}", "Answer {key: value}"),
        ("Hi {a}", 'Hi {a}, answer {{"b": 1}}'),
        ("About {a}: {}", "About {a}, {a}: {}"),
        ('Hi {a}, answer {{"b": 1}}', "Hi {a}"),
    ],
)
def test_literal_braces_are_accepted(old: str, new: str) -> None:
    assert find_placeholder_problem(old, new) is None


def test_endless_braces_are_read_quickly() -> None:
    for text in ("{" * 100_000, "{a" * 50_000, "{{" + " " * 100_000):
        assert find_placeholder_problem(text, text + "!") is None


VALUES = {"name": "Ana {x}", "user.city": "Rome", "x": "1", "x[a b]": "2"}


@pytest.mark.parametrize(
    ("text", "names", "result"),
    [
        ("Hi {name}!", ["name"], "Hi Ana {x}!"),
        ("{name}, {name} of {user.city}", ["name", "user.city"], "Ana {x}, Ana {x} of Rome"),
        ('{x}: write {{"a": 1}}', ["x"], '1: write {"a": 1}'),
        ("{x:>10} {x!r}", ["x"], "1 1"),
        ("Hi {{name}} of {{ user.city }}", ["name", "user.city"], "Hi Ana {x} of Rome"),
        ("{{{x}}}", ["x"], "{1}"),
        ('{name}: {"a": {"b": {x}}}', ["name", "x"], 'Ana {x}: {"a": {"b": 1}}'),
        ('Write {"a": 1} or {}', [], 'Write {"a": 1} or {}'),
        ("{x}: {}, {0[a]!r:>4} or {{}}", ["x"], "1: {}, {0[a]!r:>4} or {}"),
        ("{user.city}: {x[a b]}", ["user.city", "x[a b]"], "Rome: 2"),
    ],
)
def test_variables_are_filled_in_and_all_else_stays(
    text: str, names: list[str], result: str
) -> None:
    assert list_variables(text) == names
    assert render_prompt(text, VALUES, like=text) == result


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ("Be brief.", "Be brief, as in {price:.2f}.", "Be brief, as in {price:.2f}."),
        ('{x}, write {"a": 1}', "{x}, write {{y!r}}", "1, write {{y!r}}"),
        ("{{x}}, write {", "{{x}}, write {}", "1, write {}"),
    ],
)
def test_a_new_text_is_filled_in_like_the_old_one(old: str, new: str, result: str) -> None:
    assert find_placeholder_problem(old, new) is None
    assert render_prompt(new, VALUES, like=old) == result


braces = st.lists(
    st.sampled_from(["{", "}", "a", "{a}", "{b!r}", "{a:.2f}", "{0}", " ", '"', ":"])
).map("".join)


@given(braces, braces)
def test_every_accepted_text_can_be_filled_in(old: str, new: str) -> None:
    if find_placeholder_problem(old, new) is None:
        values = dict.fromkeys(list_variables(old), "v")
        assert isinstance(render_prompt(new, values, like=old), str)
