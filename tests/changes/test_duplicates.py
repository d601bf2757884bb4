from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.changes.duplicates import (
    LEAST_COSINE,
    Candidate,
    fingerprint,
    is_near_duplicate,
    normalized_wording,
)
from app.providers.local_embedder import LocalEmbedder

EXACTLY_THE_SAME = [
    ("The user likes tea.", "the user likes tea"),
    ("Likes tea", "  Likes\n tea !"),
    ("Lives in the café on Main St.", "Lives in the cafe\u0301 on Main St"),
    ("Born in \uff11\uff19\uff18\uff15", "Born in 1985"),
    ("Prefers “dark mode”", 'prefers "dark mode".'),
    ("Der Nutzer trinkt gern Tee.", "der Nutzer trinkt gern Tee"),
    ("Ist gegen Nüsse allergisch", "ist gegen nu\u0308sse allergisch."),
    ("用户喜欢喝茶。", "用户喜欢喝茶"),
    ("用户出生于\uff11985年", "用户出生于1985年。"),
    ("コーヒーが好きです。", "ｺｰﾋｰが好きです"),
    ("東京に住んでいる", "東京に住んでいる。"),
]
NEARLY_THE_SAME = [
    ("The user likes tea.", "User likes tea"),
    ("User is a vegetarian", "User is vegetarian"),
    ("Works as a nurse in Leeds", "works as nurse in Leeds."),
    ("The user doesn't eat meat", "The user does not eat meat."),
    ("User can't swim", "User cannot swim"),
    ("User can\u2019t swim", "user can not swim"),
    ("The user won't fly", "User will not fly"),
    ("The user has an allergy to peanuts", "User has an allergy to peanuts."),
    ("Sisters: Anna, Maria, and Eva", "Sisters: Anna, Maria and Eva"),
    ("The user plays the piano", "The user plays piano"),
    ("Has the flu. The doctor is Dr Lee", "Has flu. Doctor is Dr Lee"),
    (
        "User's favourite colour is the blue of the sea",
        "User's favourite colour is blue of the sea",
    ),
    ("The user isn't available on Mondays", "User is not available on Mondays"),
    ("The project starts in May 2025", "Project starts in May 2025"),
]
NOT_THE_SAME = [
    # negations
    ("User likes tea", "User does not like tea"),
    ("User eats meat", "User eats no meat"),
    ("User has never been to Rome", "User has been to Rome"),
    ("Works with Anna", "Works without Anna"),
    ("User can swim", "User can't swim"),
    ("Is happy at work", "Is unhappy at work"),
    ("User trinkt Kaffee", "User trinkt keinen Kaffee"),
    ("用户喜欢喝茶", "用户不喜欢喝茶"),
    ("コーヒーが好きです", "コーヒーが好きではない"),
    # numbers and dates
    ("User has 2 children", "User has 3 children"),
    ("User has two children", "User has three children"),
    ("Born on 5 May 1985", "Born on 6 May 1985"),
    ("Flight on 2025-03-04", "Flight on 2025-04-03"),
    ("Weighs 70.5 kg", "Weighs 705 kg"),
    ("Temperature is -5", "Temperature is 5"),
    ("Owes $5", "Owes €5"),
    ("The garden has 10² metres", "The garden has 102 metres"),
    ("Is 6' tall", 'Is 6" tall'),
    ("Pays 5% interest", "Pays 5 interest"),
    ("用户有2个孩子", "用户有3个孩子"),
    # names
    ("Lives in Berlin", "Lives in Bern"),
    ("Alice likes Bob", "Bob likes Alice"),
    ("Programs in C", "Programs in C#"),
    ("Programs in C++", "Programs in C"),
    ("Has hepatitis A and a cold", "Has hepatitis and a cold"),
    ("Blood type is A positive", "Blood type is positive"),
    ("Was infected with vitamin A deficiency", "Was infected with vitamin deficiency"),
    ("Watched The Who in London", "Watched Who in London"),
    ("Likes “The Office”", "Likes the office"),
    ("Sisters: Anna Maria and Eva", "Sisters: Anna, Maria and Eva"),
    ("住在北京", "住在南京"),
    ("東京に住んでいる", "京都に住んでいる"),
    # words that stems and function words hide
    ("User lives in Paris", "User lived in Paris"),
    ("User is a teacher", "User was a teacher"),
    ("Moved to Berlin", "Moved from Berlin"),
    ("Has a dog", "Has dogs"),
    ("Studies the universe", "Studies the university"),
    ("Works for an organ", "Works for an organization"),
    ("User likes his job", "User likes her job"),
    ("User wants a dog", "User wants the dog"),
    ("Has a few friends", "Has few friends"),
    ("Speaks a little French", "Speaks little French"),
    ("Arrives before noon", "Arrives after noon"),
    ("User is married", "User is married?"),
    ("User should call him", "User should be called by him"),
    ("All of the team agree", "Some of the team agree"),
    ("Only Anna drinks coffee", "Anna only drinks coffee"),
    ("Der Nutzer mag Maße", "Der Nutzer mag Masse"),
    ("Den Mann beißt der Hund", "Der Mann beißt den Hund"),
    ("Ist schon in Berlin", "Ist schön in Berlin"),
    ("他的猫叫米米", "她的猫叫米米"),
    ("猫が好き", "猫も好き"),
]
MISSED = [  # the same in other words: a line more
    ("User likes tea", "User enjoys drinking tea"),
    ("Moved on 5 May 2023", "Moved on May 5, 2023"),
    ("Likes hiking and reading", "Likes reading and hiking"),
]


TEA = {"content": "Likes tea"}
DOG_CAT = {"first": "a dog", "second": "cat"}


def memory(text: str) -> dict[str, Any]:
    return {"content": text}


def are_near(a: str, b: str) -> bool:
    return is_near_duplicate(Candidate("memory", memory(a)), Candidate("memory", memory(b)))


@pytest.mark.parametrize(("a", "b"), EXACTLY_THE_SAME)
def test_contents_that_differ_only_in_form_have_one_fingerprint(a: str, b: str) -> None:
    assert fingerprint(memory(a)) == fingerprint(memory(b))
    assert are_near(a, b)


@pytest.mark.parametrize(("a", "b"), NEARLY_THE_SAME)
def test_articles_contractions_and_commas_make_near_duplicates(a: str, b: str) -> None:
    assert fingerprint(memory(a)) != fingerprint(memory(b))
    assert are_near(a, b)
    assert are_near(b, a)


@pytest.mark.parametrize(("a", "b"), NOT_THE_SAME + MISSED)
def test_contents_that_differ_in_a_word_are_never_duplicates(a: str, b: str) -> None:
    assert fingerprint(memory(a)) != fingerprint(memory(b))
    assert not are_near(a, b)
    assert not are_near(b, a)


def test_the_order_of_lists_counts_and_that_of_keys_does_not() -> None:
    assert fingerprint({"a": 1, "b": {"c": "X", "d": []}}) == fingerprint(
        {"b": {"d": [], "c": "x"}, "a": 1}
    )
    assert fingerprint({"a": ["x", "y"]}) != fingerprint({"a": ["y", "x"]})


def test_values_of_other_types_differ() -> None:
    values: list[tuple[object, object]] = [(1, "1"), (1, True), (0, None), (None, ""), (1, 2)]
    for a, b in [*values, ([], {}), (["x"], "x")]:
        assert fingerprint({"a": a}) != fingerprint({"a": b})
        assert not is_near_duplicate(Candidate("m", {"a": a}), Candidate("m", {"a": b}))


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        (Candidate("memory", TEA), Candidate("episode", TEA), False),
        (Candidate("memory", TEA), Candidate(None, TEA), False),
        (Candidate("memory", TEA), Candidate("Memory", TEA), True),
        (
            Candidate("m", {"content": "The tea"}),
            Candidate("m", {"content": "tea", "b": ""}),
            False,
        ),
        (Candidate("m", DOG_CAT), Candidate("m", {"second": "the cat", "first": "dog"}), True),
        (Candidate("m", DOG_CAT), Candidate("m", {"first": "the dog", "second": "cat"}), False),
        (Candidate("m", {"content": "!"}), Candidate("m", {"content": "..."}), False),
    ],
)
def test_kinds_and_fields_are_compared_one_by_one(a: Candidate, b: Candidate, near: bool) -> None:
    assert is_near_duplicate(a, b) == near


@given(st.text(), st.text())
def test_texts_are_near_only_with_the_same_wording(a: str, b: str) -> None:
    if are_near(a, b):
        assert normalized_wording(memory(a)) == normalized_wording(memory(b)) or fingerprint(
            memory(a)
        ) == fingerprint(memory(b))


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_every_content_is_near_itself(content: dict[str, Any]) -> None:
    assert is_near_duplicate(
        Candidate(None, content), Candidate(None, dict(reversed(content.items())))
    )


@pytest.mark.slow
async def test_vectors_of_near_duplicates_reach_the_least_cosine(tmp_path: Path) -> None:
    embedder = LocalEmbedder(tmp_path)
    vectors = await embedder.embed([text for pair in NEARLY_THE_SAME for text in pair])
    await embedder.aclose()
    compared = list(zip(NEARLY_THE_SAME, vectors[::2], vectors[1::2], strict=True))
    assert min(float(a @ b) for _, a, b in compared) >= LEAST_COSINE
    assert all(
        is_near_duplicate(Candidate("m", memory(a), first), Candidate("m", memory(b), second))
        for (a, b), first, second in compared
    )


def test_vectors_that_are_far_apart_prevent_a_merge() -> None:
    up, right = np.array([0, 1], np.float32), np.array([1, 0], np.float32)
    a, b = memory("The user likes tea"), memory("User likes tea")
    assert not is_near_duplicate(Candidate("m", a, up), Candidate("m", b, right))
    assert is_near_duplicate(Candidate("m", a, up), Candidate("m", b, up))
    assert is_near_duplicate(Candidate("m", a, up), Candidate("m", b))
    assert is_near_duplicate(Candidate("m", a, up), Candidate("m", a, right))  # exactly the same
