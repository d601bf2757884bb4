"""What grants and roots allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth.access import ANONYMOUS, Access, Grant, Verb
from app.auth.errors import ForbiddenError
from app.namespaces import ALL_ROOTS, to_root, to_stored

# Few letters, so that labels are often each other's beginnings.
label = st.text(alphabet="ab ", min_size=1, max_size=3)
path = st.lists(label, max_size=4)
verbs = st.frozensets(st.sampled_from(Verb))
grants = st.builds(Grant, path.map(tuple), verbs)


def is_below(labels: list[str], prefix: list[str]) -> bool:
    return len(labels) >= len(prefix) and all(
        labels[place] == wanted for place, wanted in enumerate(prefix)
    )


@given(st.lists(grants, max_size=3), path, st.sampled_from(Verb))
def test_access_is_the_sum_of_all_grants(
    given_grants: list[Grant], labels: list[str], verb: Verb
) -> None:
    access = Access("mk_1", ALL_ROOTS, tuple(given_grants))
    if any(verb in grant.verbs and is_below(labels, list(grant.prefix)) for grant in given_grants):
        assert access.authorize(labels, verb) == to_stored(labels)
    else:
        with pytest.raises(ForbiddenError):
            access.authorize(labels, verb)


@given(path, path, path)
def test_a_scope_covers_everything_below_it_and_nothing_else(
    root: list[str], prefix: list[str], other: list[str]
) -> None:
    access = Access("mk_1", to_root(root), ANONYMOUS.grants)
    scope = access.scope(prefix, Verb.READ)
    assert (scope.low <= to_stored(other) < scope.high) == is_below(other, root + prefix)


@given(path, path)
def test_a_caller_sees_names_without_its_root(root: list[str], labels: list[str]) -> None:
    access = Access("mk_1", to_root(root), ANONYMOUS.grants)
    stored = access.authorize(labels, Verb.WRITE)
    assert stored.startswith(to_stored(root))
    assert access.relative(stored) == labels


def test_a_prefix_ends_at_a_label() -> None:
    grant = Grant(("users",), frozenset({Verb.READ}))
    assert all(grant.covers(labels, Verb.READ) for labels in (["users"], ["users", "alice"]))
    outside: list[list[str]] = [[], ["user"], ["users2"], ["users "], ["Users"], ["x", "users"]]
    assert not any(grant.covers(labels, Verb.READ) for labels in outside)


def test_a_refusal_names_the_key_the_verb_and_the_namespace() -> None:
    access = Access("mk_1", ALL_ROOTS, (Grant(("users",), frozenset({Verb.READ})),))
    with pytest.raises(ForbiddenError, match=r'mk_1.* read .*\["teams"\]'):
        access.authorize(["teams"], Verb.READ)
    with pytest.raises(ForbiddenError, match="the whole store"):
        access.authorize([], Verb.READ)


@given(st.lists(grants, max_size=3), path, path, st.sampled_from(Verb))
def test_confined_access_keeps_its_grants_below_the_namespace(
    given_grants: list[Grant], base: list[str], labels: list[str], verb: Verb
) -> None:
    access = Access("mk_1", to_root(["root"]), tuple(given_grants))
    confined = access.below(base)
    assert confined.allows(labels, verb) == access.allows([*base, *labels], verb)
    if confined.allows(labels, verb):
        stored = confined.authorize(labels, verb)
        assert stored == access.authorize([*base, *labels], verb)
        assert confined.relative(stored) == labels
