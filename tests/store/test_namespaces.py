"""Namespaces: labels in, stored text out, prefixes as ranges."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from app.namespaces import (
    InvalidNamespaceError,
    check_labels,
    from_stored,
    parse_labels,
    stored_range,
    to_stored,
)

label = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r"),
    min_size=1,
    max_size=20,
)
labels = st.lists(label, max_size=4)


@given(labels)
def test_stored_form_is_reversible(namespace: list[str]) -> None:
    check_labels(namespace)
    assert from_stored(to_stored(namespace)) == namespace


@given(prefix=labels, namespace=labels, below=st.booleans())
def test_a_range_holds_exactly_the_namespaces_below_its_prefix(
    prefix: list[str], namespace: list[str], below: bool
) -> None:
    namespace = prefix + namespace if below else namespace
    scope = stored_range(to_stored(prefix))
    stored = to_stored(namespace).encode()
    inside = scope.low.encode() <= stored < scope.high.encode()
    assert inside == (namespace[: len(prefix)] == prefix)


@given(labels)
def test_json_arrays_parse_to_their_labels(namespace: list[str]) -> None:
    assert parse_labels(json.dumps(namespace)) == namespace


@given(st.lists(label.filter(lambda text: "." not in text and text[0] != "["), max_size=6))
def test_dotted_text_parses_to_its_labels(namespace: list[str]) -> None:
    assert parse_labels(".".join(namespace)) == namespace
    assert parse_labels(".".join(["[draft]", *namespace])) == ["[draft]", *namespace]


@given(st.text())
def test_any_text_parses_to_legal_labels_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidNamespaceError):
        check_labels(parse_labels(text))
