import pytest

from app.indexing.terms import QueryWord, Vocabulary

ANY_LANGUAGE = Vocabulary()


def words(query: str, language: str | None = None) -> list[str]:
    return [word.word for word in Vocabulary(language).of_query(query)]


def finds(query: str, passage: str, vocabulary: Vocabulary = ANY_LANGUAGE) -> bool:
    terms = vocabulary.of_passage(passage)
    return any(term in terms for word in vocabulary.of_query(query) for term in word.terms)


def test_function_words_are_left_out() -> None:
    assert words("When did Caroline go to the races?") == ["caroline", "go", "races"]
    assert words("Who are they, and what is this?") == []
    assert words("Wo ist die Katze von ihm?") == ["katze"]


def test_a_word_of_a_known_language_has_its_stem_and_the_english_one() -> None:
    assert ANY_LANGUAGE.of_query("Wo sind die Häuser?") == [QueryWord("häuser", ("haus", "hauser"))]
    assert ANY_LANGUAGE.of_query("Where are the houses?") == [QueryWord("houses", ("hous",))]


def test_a_word_alone_may_be_in_any_language() -> None:
    (word,) = ANY_LANGUAGE.of_query("Katzen")
    assert {"katz", "katzen"} <= set(word.terms)
    assert len(word.terms) == len(set(word.terms)) <= 26


def test_a_set_language_gives_one_stem() -> None:
    assert Vocabulary("german").of_query("Katzen") == [QueryWord("katzen", ("katz",))]


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("0093", "the invoice INV-2024-0093 is late"),
        ("inv-2024-0093", "the invoice INV-2024-0093."),
        ("猫", "我们家有两只小猫和一只狗"),
        ("薬はどこ", "薬を飲んだ"),
        ("책", "도서관에서 책을 빌렸다"),
        ("httpserver", "class HTTPServer"),
        ("case", "snakeCase"),
        ("a@b.io", "mail a@b.io!"),
        ("2.1.3", "released v2.1.3"),
        ("c++", "He writes C++."),
        ("net", "a .NET shop"),
        ("2023-05-08", "2023-05-08T13:56:00Z"),
        ("report.pdf", r"C:\home\report.pdf"),
        ("cafe", "le petit café est fermé pour les vacances"),
        ("Café", "where is the cafe"),
        ("preferes", "Ce sont nos gâteaux préférés"),
        ("+491701234567", "call +49 170 123 45 67 now"),
        ("0049-170/123.45.67", "call (0049) 170 1234567"),
        ("4111111111111111", "card 4111 1111 1111 1111"),
        ("DE89370400440532013000", "IBAN: DE89 3704 0044 0532 0130 00."),
        ("1234,50", "it costs $1,234.50"),
        ("1.234.567", "1,234,567 people"),
        ("docs.example.com", "see https://docs.example.com/guide/first-steps#top"),
        ("first-steps", "see https://docs.example.com/guide/first-steps#top"),
        ("🍕", "Kim reacts with 🍕 to plans"),
        ("🇯🇵", "Kim lives in 🇯🇵"),
        ("👍", "all agree 👍🏿"),
        ("کتاب", "او كتاب تازه خرید"),
        ("علي", "علی آمد"),
        ("٣٤٥", "room 345"),
        ("७८९", "नंबर 789"),
        ("जरा", "ज़रा सुनो"),
        ("naive", "na\u200bive"),
    ],
)
def test_a_query_finds_a_passage_that_writes_it_otherwise(query: str, passage: str) -> None:
    assert finds(query, passage)


def test_words_with_the_same_terms_are_one() -> None:
    assert words("The race, the races and the RACE of Mel") == ["race", "mel"]


def test_a_query_has_at_most_32_words() -> None:
    assert words(" ".join(f"n{i}" for i in range(100))) == [f"n{i}" for i in range(32)]
