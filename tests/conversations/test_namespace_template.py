import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.conversations.namespace_template import (
    MissingVariableError,
    UnknownVariableError,
    check_template,
    fill_template,
)
from app.errors import InvalidRequestError
from app.namespaces import check_labels

NAMES = ["a", "b", "user_id"]

values = st.one_of(
    st.text(max_size=6),
    st.text(alphabet="ab-{}:. ", max_size=5),
    st.text(alphabet="x", min_size=100, max_size=130),
)
literals = st.text(alphabet="ab-{}: ", max_size=3).map(
    lambda text: text.replace("{", "{{").replace("}", "}}")
)
labels = st.lists(
    st.one_of(literals, st.sampled_from(NAMES).map(lambda name: f"{{{name}}}")),
    min_size=1,
    max_size=5,
).map("".join)
templates = st.lists(labels, min_size=1, max_size=3)
assignments = st.fixed_dictionaries(dict.fromkeys(NAMES, values))


def usable(template: list[str]) -> bool:
    try:
        check_template(template)
    except ValueError:
        return False
    return True


def used(template: list[str]) -> set[str]:
    bare = [label.replace("{{", "").replace("}}", "") for label in template]
    return {name for name in NAMES if any(f"{{{name}}}" in label for label in bare)}


def placed(template: list[str], given_values: dict[str, str]) -> list[str] | None:
    """Return the namespace, or None where the values were refused in the documented way."""
    try:
        return fill_template(template, given_values)
    except InvalidRequestError as error:
        if not error.members["errors"][0]["field"].startswith("variables."):
            raise
        return None


@pytest.mark.parametrize(
    ("template", "variables", "namespace"),
    [
        (["users", "alice"], {}, ["users", "alice"]),
        (["users", "{id}"], {"id": "alice"}, ["users", "alice"]),
        (["user-{id}"], {"id": "alice"}, ["user-alice"]),
        (["{id}-notes"], {"id": "alice"}, ["alice-notes"]),
        (["{a}-{b}"], {"a": "1", "b": "2-3"}, ["1-2-3"]),
        (["{a}", "{b}", "{a}"], {"a": "1", "b": "2"}, ["1", "2", "1"]),
        (["{{id}}"], {}, ["{id}"]),
        (["{{{id}}}"], {"id": "alice"}, ["{alice}"]),
        (["{id}"], {"id": "{id}"}, ["{id}"]),
        (["{id}"], {"id": "a.b/c é 🦊"}, ["a.b/c é 🦊"]),
        ([], {}, []),
    ],
)
def test_variables_are_filled_in_anywhere_in_a_label(
    template: list[str], variables: dict[str, str], namespace: list[str]
) -> None:
    assert fill_template(template, variables) == namespace


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(UnknownVariableError) as caught:
        fill_template(["{user_id}"], {"user_id": "alice", "userid": "bob"})
    assert 'no variable "userid": the namespace has only user_id' in caught.value.detail
    with pytest.raises(UnknownVariableError, match="has no variables"):
        fill_template(["users"], {"user_id": "alice"})


@pytest.mark.parametrize(
    ("template", "variables"),
    [
        (["user-{id}"], {"id": ""}),
        (["user-{id}"], {"id": " \t"}),
        (["{id}"], {"id": "a\x00b"}),
        (["{id}"], {"id": "a\x1fb"}),
        (["{id}"], {"id": "\ud800"}),
        (["x", "{id}"], {"id": "i" * 129}),
        (["{id}-{b}"], {"id": "x-y", "b": "z"}),
        (["{id}--{b}"], {"id": "x-", "b": "z"}),
    ],
)
def test_values_that_give_no_namespace_of_their_own_are_refused(
    template: list[str], variables: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        fill_template(template, variables)
    assert caught.value.members["errors"][0]["field"] == "variables.id"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (["{id"], 'label 0 has a single "{"'),
        (["users", "id}"], 'label 1 has a single "}"'),
        (["{}"], 'single "{"'),
        (["{1st}"], 'single "{"'),
        (["{a b}"], 'single "{"'),
        (["{a}{b}"], "two variables side by side"),
        ([""], "label 0 is empty"),
        (["users", "a\x00"], "label 1 contains U+0000"),
        (["x" * 128 + "{id}"], "label 0 has 129 characters"),
        (["x"] * 17, "has 17 labels"),
    ],
)
def test_templates_that_can_never_be_a_namespace_are_refused(
    template: list[str], problem: str
) -> None:
    with pytest.raises(ValueError, match="label") as caught:
        check_template(template)
    assert problem in str(caught.value)


@given(templates.filter(usable), assignments, assignments)
def test_a_namespace_can_be_stored_and_no_other_values_share_it(
    template: list[str], ones: dict[str, str], others: dict[str, str]
) -> None:
    one = {name: ones[name] for name in used(template)}
    other = {name: others[name] for name in used(template)}
    first, second = placed(template, one), placed(template, other)
    if first is not None:
        check_labels(first)
        assert len(first) == len(template)
        assert first != second or one == other


@given(templates.filter(usable).filter(used), assignments, st.data())
def test_a_missing_variable_is_named(
    template: list[str], given_values: dict[str, str], data: st.DataObject
) -> None:
    names = used(template)
    missing = data.draw(st.sampled_from(sorted(names)))
    with pytest.raises(MissingVariableError, match=f'"{missing}"') as caught:
        fill_template(template, {name: given_values[name] for name in names - {missing}})
    assert caught.value.members["errors"][0]["field"] == f"variables.{missing}"
