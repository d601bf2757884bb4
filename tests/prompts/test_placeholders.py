import json
from datetime import date
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.prompts.optimize.render import render_placeholder_rule
from app.prompts.placeholders import find_placeholder_problem

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
def test_a_text_that_stays_is_no_problem(text: str) -> None:
    assert find_placeholder_problem(text, text) is None


@given(plain, st.sampled_from(VARIABLES), plain)
def test_a_variable_must_neither_go_nor_come(before: str, variable: str, after: str) -> None:
    with_it, without = before + variable + after, before + after
    name = variable.strip("{}")
    assert name in (find_placeholder_problem(with_it, without) or "")
    assert name in (find_placeholder_problem(without, with_it) or "")


@given(template(VARIABLES), plain)
def test_variables_may_move_and_be_repeated(text: str, more: str) -> None:
    assert find_placeholder_problem(text, more + text + more + text) is None


@given(plain, json_text, plain)
def test_json_may_come_go_and_change(before: str, value: str, after: str) -> None:
    assert find_placeholder_problem(before + value, before + value + after) is None
    assert find_placeholder_problem(before + after, before + value + after) is None
    assert find_placeholder_problem(before + value + after, before + after) is None


@given(template([*FIELDS, "{{", "}}"]), template([*FIELDS, "{{", "}}", '{"a": 1}', "{", "}", "{}"]))
def test_what_could_be_formatted_still_can(old: str, new: str) -> None:
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
    ("old", "new", "said"),
    [
        ("Hi {a} {b}", "Hi", "the new prompt lacks {a}, {b}, which a program fills in"),
        ("Hi", "Hi {a}", "the new prompt has {a}, which no program fills in"),
        ("Hi {a}", "Hi {{a}}", "the new prompt lacks {a}, which a program fills in"),
        ("Hi {{a}}", "Hi {a}", "the new prompt lacks {{a}}, which a program fills in"),
        ("Hi {a:>4}", "Hi {a:>5}", "the new prompt lacks {a:>4}, which a program fills in"),
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
def test_a_problem_is_told_to_be_corrected(old: str, new: str, said: str) -> None:
    assert find_placeholder_problem(old, new) == said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Hi {{ user.name }}", "Hi {{user.name}}!"),  # Mustache does not mind
        ('Answer {"city": {city}}', 'Answer {"city": {city}, "unit": "°C"}'),
        ("Answer {key:value}", "Answer {key: value}"),
        (r"Find \d{3}", r"Find \d{3,5} or \w{2}"),
        ("if (a) { return }", "if (a) { return 1 }"),
        ("Hi {a}", 'Hi {a}, answer {{"b": 1}}'),
        ("About {a}: {}", "About {a}, {a}: {}"),
        ('Hi {a}, answer {{"b": 1}}', "Hi {a}"),
        ("Open {", "Open { and } and {}"),
    ],
)
def test_braces_that_are_only_braces_are_no_problem(old: str, new: str) -> None:
    assert find_placeholder_problem(old, new) is None


@pytest.mark.parametrize("text", ["{" * 100_000, "{a" * 50_000, "{{" + " " * 100_000])
def test_braces_without_end_are_read_in_no_time(text: str) -> None:
    assert find_placeholder_problem(text, text + "!") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Hi", {"The prompt has no variables", "All other braces are ordinary"}),
        ("Hi {a} {{b}}", {"in the place of {a}, {{b}}.", "that is only a brace is doubled"}),
        ("Hi {a:.2f}", {"in the place of {a:.2f}.", "that is only a brace is doubled"}),
        ('{"x": {a}}', {"in the place of {a}.", "All other braces are ordinary"}),
        ('{"x": 1}', {"The prompt has no variables", "All other braces are ordinary"}),
    ],
)
def test_a_model_is_told_before_it_errs(text: str, told: set[str]) -> None:
    assert all(words in render_placeholder_rule(text) for words in told)


def test_a_format_string_with_nothing_to_fill_in_is_only_text() -> None:
    assert "ordinary characters" in render_placeholder_rule("{{ and }}")
