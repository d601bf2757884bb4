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
def test_a_namespace_is_found_where_some_grant_reaches(
    given_grants: list[Grant], labels: list[str], verb: Verb
) -> None:
    access = Access("mk_1", ALL_ROOTS, tuple(given_grants))
    allowed = False
    for grant in given_grants:
        if verb in grant.verbs and is_below(labels, list(grant.prefix)):
            allowed = True
    if allowed:
        assert access.authorize(labels, verb) == to_stored(labels)
    else:
        with pytest.raises(ForbiddenError):
            access.authorize(labels, verb)


@given(path, path, path)
def test_a_scope_holds_what_is_below_it_and_nothing_else(
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


@pytest.mark.parametrize(
    ("labels", "covered"),
    [
        ([], False),
        (["user"], False),
        (["users"], True),
        (["users", "alice"], True),
        (["users2"], False),
        (["users "], False),
        (["Users"], False),
        (["x", "users"], False),
    ],
)
def test_a_prefix_ends_at_a_label(labels: list[str], covered: bool) -> None:
    grant = Grant(("users",), frozenset({Verb.READ}))
    assert grant.covers(labels, Verb.READ) is covered
    assert not grant.covers(labels, Verb.WRITE)


def test_what_is_refused_is_named() -> None:
    access = Access("mk_1", ALL_ROOTS, (Grant(("users",), frozenset({Verb.READ})),))
    with pytest.raises(ForbiddenError) as elsewhere:
        access.authorize(["teams"], Verb.READ)
    assert "mk_1" in elsewhere.value.detail
    assert "read" in elsewhere.value.detail
    assert '["teams"]' in elsewhere.value.detail
    with pytest.raises(ForbiddenError, match="the whole store"):
        access.authorize([], Verb.READ)


@given(st.lists(grants, max_size=3), path, path, st.sampled_from(Verb))
def test_one_who_is_confined_may_do_below_what_was_granted_there_and_sees_nothing_else(
    given_grants: list[Grant], base: list[str], labels: list[str], verb: Verb
) -> None:
    access = Access("mk_1", to_root(["root"]), tuple(given_grants))
    confined = access.below(base)
    assert confined.allows(labels, verb) == access.allows([*base, *labels], verb)
    if confined.allows(labels, verb):
        stored = confined.authorize(labels, verb)
        assert stored == access.authorize([*base, *labels], verb)
        assert confined.relative(stored) == labels
