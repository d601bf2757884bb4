# ruff: noqa: RUF001 (other scripts have letters that look like Latin ones)
import pytest

from app.indexing.terms import LANGUAGES, VERSION, Vocabulary


def terms(text: str, language: str | None = None) -> list[str]:
    return list(Vocabulary(language).of_passage(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INV-2024-0093", ["inv-2024-0093", "inv", "2024", "0093"]),
        ("ann@example.com", ["ann@example.com", "ann", "exampl", "com"]),
        ("v2.1.3", ["v2.1.3", "v2", "2.1.3"]),
        ("$1,299.00", ["1,299.00", "299", "00", "1299.00", "1299"]),
        ("+49 170 1234567", ["49", "170", "1234567", "491701234567"]),
        ("snake_case", ["snake_case", "snake", "case"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("__init__", ["init"]),
        ("/etc/hosts.txt", ["etc/hosts.txt", "etc", "host", "txt"]),
        ("https://x.io/ab?cd=7", ["https://x.io/ab?cd=7", "https", "io", "ab", "cd", "x.io"]),
        ("2023-05-08", ["2023-05-08", "2023", "05", "08", "20230508"]),
        ("1:56 p.m.", ["1:56", "56", "pm"]),
        ("550e8400-e29b", ["550e8400-e29b", "550e8400", "e29b"]),
        ("0xdeadbeef", ["0xdeadbeef"]),
        ("C++, C# (.NET).", ["c++", "c#", ".net", "net"]),
        ("C++11", ["c", "11"]),
        (r"C:\temp\new.txt", [r"c:\temp\new.txt", "temp", "new", "txt"]),
        (r"Q:\nname? A:\nBob", ["q", "name", "bob"]),
        ("Donau\u00addampf co\u2010op", ["donaudampf", "co-op", "co", "op"]),
        (" \n--- ___ \u0301\u02bc\u02bcs", []),
        ("👩🏽\u200d💻 ok🇩🇪☕\ufe0f", ["👩", "💻", "ok", "🇩🇪", "☕"]),
        (
            "https://www.x-y.org/in-use/b.html",
            [
                *("https://www.x-y.org/in-use/b.html", "https", "www", "org", "use", "html"),
                *("www.x-y.org", "x-y.org", "in-use", "b.html"),
            ],
        ),
        ("x" * 1000, ["x" * 64]),
        ("the U.S. army", ["us", "armi"]),
        ("ＩＮＶ－７７", ["inv-77", "inv", "77"]),
    ],
)
def test_identifiers_and_numbers_are_terms_whole_and_in_parts(
    text: str, expected: list[str]
) -> None:
    assert terms(text) == expected


def test_apostrophes_end_a_name_or_make_a_function_word() -> None:
    assert terms("Caroline's dogs\u2019 bowls don't, they\u2019ve won't") == [
        "carolin",
        "dog",
        "bowl",
    ]
    assert terms("O'Brien") == ["o'brien", "brien"]
    assert terms("l'amour d'une femme", "french") == ["amour", "femm"]


def test_json_escapes_are_not_part_of_words() -> None:
    text = r'{"text": "first\nsecond\t\"third\"", "path": "C:\\temp\\new.txt"}'
    assert terms(text) == [
        *("text", "first", "second", "third", "path"),
        *(r"c:\temp\new.txt", "temp", "new", "txt"),
    ]


def test_diacritics_make_no_difference() -> None:
    assert terms("café naïve Zoë") == terms("cafe naive Zoe") == ["cafe", "naiv", "zoe"]
    assert terms("café crème", "french") == terms("cafe creme", "french") == ["caf", "crem"]
    assert terms("straße mueller", "german") == terms("STRASSE Müller", "german")
    assert terms("Häuser Köche", "german") == terms("Hauser Koche", "german")
    assert terms("ёлка") == terms("елка")
    assert terms("İstanbul") == terms("istanbul")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Der Hund und die Katzen schlafen", ["hund", "katz", "schlaf"]),
        ("Les chats dorment dans la maison", ["chat", "dorment", "maison"]),
        ("Los gatos duermen en la casa", ["gat", "duerm", "cas"]),
        ("I gatti dormono nella casa", ["gatt", "dorm", "cas"]),
        ("Os gatos dormem na minha casa", ["gat", "dorm", "cas"]),
        ("De katten slapen in het huis", ["kat", "slaap", "huis"]),
        ("Katterna sover och drömmer inte", ["katt", "sov", "dromm"]),
        ("Hun har hunde og nogle katte", ["hund", "kat"]),
        ("Kattene sover og drømmer ikke nå", ["katt", "sov", "dromm"]),
        ("Kissat nukkuvat ja minä luen", ["kis", "nukkuv", "luen"]),
        ("Kediler için bir ev", ["kedi", "ev"]),
        ("Koty śpią w moim domu, ponieważ pada", ["kot", "spia", "dom", "pad"]),
        ("Кошки спят в доме", ["кошк", "спят", "дом"]),
        ("Οι γάτες κοιμούνται", ["οι", "γατ", "κοιμ"]),
        ("الكتاب الجديد", ["كتاب", "جديد"]),
        ("हिन्दी किताबें", ["हिन्द", "किताब"]),
    ],
)
def test_a_text_is_stemmed_in_its_language(text: str, expected: list[str]) -> None:
    assert terms(text) == expected
    assert VERSION == 2  # raise it when an entry above changes, for instance with a new stemmer


def test_function_words_count_only_in_their_language() -> None:
    assert "die" in terms("die hard in war")
    assert "die" not in terms("Die Pflanzen sind nicht mehr grün")


def test_names_do_not_make_english_text_foreign() -> None:
    assert terms("Oscar de la Renta dresses") == ["oscar", "de", "la", "renta", "dress"]
    assert "paint" in terms("Vincent van Gogh paintings")


def test_words_of_another_script_are_stemmed_in_its_language() -> None:
    assert terms("The кошки and the 猫 of Anna") == ["кошк", "猫", "anna"]
    assert terms("кошки cats", "russian") == ["кошк", "cat"]


def test_scripts_without_spaces_become_pairs_and_single_ideographs() -> None:
    assert terms("小猫睡觉") == ["小猫", "猫睡", "睡觉", "小", "猫", "睡", "觉"]
    assert terms("iPhoneを買った") == ["iphon", "phone", "を買", "買っ", "った", "買"]
    assert terms("ｶﾀｶﾅ") == ["カタ", "タカ", "カナ"]
    assert terms("고양이") == ["고양", "양이", "고", "양", "이"]
    assert terms("แมว") == ["แม", "มว"]
    assert terms("2024年5月") == ["2024", "年", "5", "月"]


def test_an_unknown_language_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="german"):
        Vocabulary("klingon")
    assert {"english", "german", "russian", "tamil"} <= set(LANGUAGES)
