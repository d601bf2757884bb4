"""Texts of keys, and their stored hashes."""

import hashlib
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from app.auth.access import ALL_GRANTED, ApiKey, Token
from app.auth.service import KeyService
from app.db.database import Database
from app.namespaces import ALL_ROOTS

NOW = datetime(2026, 1, 1, tzinfo=UTC)

nearly_tokens = st.from_regex(r"mk_?[0-9a-fg]{0,14}_?[\w-]{0,10}\s?")


def stored(token: Token) -> ApiKey:
    return ApiKey(token.id, "", token.secret_hash, ALL_ROOTS, ALL_GRANTED, NOW, None, None)


def test_generated_keys_differ_and_are_long() -> None:
    tokens = [Token.generate() for _ in range(1000)]
    assert len({token.id for token in tokens}) == 1000
    assert len({token.secret for token in tokens}) == 1000
    assert {len(token.secret) for token in tokens} == {43}, "256 bits in base64"
    assert [Token.parse(str(token)) for token in tokens] == tokens


@given(st.one_of(st.text(), st.text(alphabet="mk_0af-"), nearly_tokens))
def test_any_text_is_a_key_or_none(text: str) -> None:
    token = Token.parse(text)
    if token is not None:
        assert str(token) == text
        assert len(token.secret_hash) == 32
        assert token.id.isalnum()


def test_other_texts_are_not_keys() -> None:
    texts = ["", "mk", "mk_", "mk_ab", "mk_ab_", "mk__secret", "MK_ab_secret", "mk_AB_secret"]
    texts += ["mk_ab_secret ", "mk_ab_secret\n", "mk_ab_s\x00", "mk_ab\x00_s", "mk_ab_ключ"]
    texts += ["mk_" + "a" * 33 + "_s", "mk_ab_" + "s" * 129, "lsv2_pt_0123456789_abcdef"]
    assert [text for text in texts if Token.parse(text)] == []


def test_a_secret_may_contain_the_separator() -> None:
    token = Token.parse("mk_ab_c_d-_e")
    assert token == Token("ab", "c_d-_e")


def test_only_the_secret_opens() -> None:
    token = Token.generate()
    key = stored(token)
    assert key.opens_for(token)
    assert "compare_digest" in ApiKey.opens_for.__code__.co_names, "in constant time"
    assert not key.opens_for(Token(token.id, token.secret[:-1]))
    assert not key.opens_for(Token(token.id, token.secret + "A"))
    assert not key.opens_for(Token.generate())


async def test_only_a_hash_of_the_secret_is_stored(keys: KeyService, database: Database) -> None:
    token = await keys.create("a", root=[], grants=ALL_GRANTED, expires_at=None)
    async with database.connection(ALL_ROOTS) as connection:
        row = await connection.fetchrow("SELECT k.*, k::text AS everything FROM api_keys k")
    assert row is not None
    assert row["secret_hash"] == hashlib.sha256(token.secret.encode()).digest()
    assert token.secret not in row["everything"]


def test_a_key_does_not_show_its_secret() -> None:
    token = Token.generate()
    assert token.secret not in repr(token)
    assert token.secret not in repr(stored(token))
    assert stored(token).access().actor == f"mk_{token.id}"
