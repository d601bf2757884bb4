import json
import time
from dataclasses import replace
from typing import Any

import pytest

from app.conversations.secret_scan import redact_secrets
from tests.support.extraction import Memories
from tests.support.scripted_model import calls, insert

KEY = "sk-ant-" + "api03-Zq7" * 4
SECRETS: list[tuple[str, str]] = [
    (f"Use {KEY}, please.", "Use [redacted: API key], please."),
    ("id " + "AKIA" + "Q7" * 8, "id [redacted: API key]"),
    ("ghp_" + "a1B2" * 9, "[redacted: API key]"),
    ("OPENAI_API_KEY=abc123def", "OPENAI_API_KEY=[redacted: password]"),
    ("Mein Passwort ist Katze2020!", "Mein Passwort ist [redacted: password]"),
    ("My password is «Tr0ub4dor", "My password is [redacted: password]"),
    ("redis://ana:s3cr!t@db:1/x", "redis://ana:[redacted: password]@db:1/x"),
    (f"eyJ{'hb' * 9}.eyJ{'zd' * 9}.{'x' * 40}!", "[redacted: token]!"),
    (
        "-----BEGIN EC PRIVATE KEY-----\nab/+=\n-----END EC PRIVATE KEY-----.",
        "[redacted: private key].",
    ),
    ("-----BEGIN PRIVATE KEY-----\\n" + "A" * 64 + " cut off", "[redacted: private key] cut off"),
    ("5555 5555 5555 4444 and 378282246310005", "[redacted: card number] and " * 2),
]
HARMLESS = """
The password is important, and its reset is at 10am. The API key is in the vault2 folder.
Call +49 170 1234567890; ISBN 978-3-16-148410-0; order 4111111111111112; at 1760000000000000.
sk-learn-is-a-library-for-python; https://host.example:8080/a@b; db://user:{password}@host/x
-----BEGIN PRIVATE KEY----- begins a key. 9a0364b9e99bb480dd25e1f0284c8555abcdef12
a3f5c2e1-0d4b-4c8e-9f1a-2b3c4d5e6f70
"""


@pytest.mark.parametrize(("text", "redacted"), SECRETS)
def test_secrets_are_replaced_by_their_kind(text: str, redacted: str) -> None:
    found, count = redact_secrets(text)
    assert found == redacted.removesuffix(" and ")
    assert count == redacted.count("[")
    assert redact_secrets(found) == (found, 0)


def test_texts_without_secrets_stay() -> None:
    assert redact_secrets(HARMLESS) == (HARMLESS, 0)


@pytest.mark.parametrize(
    "part",
    [
        "-----BEGIN PRIVATE KEY-----",
        "eyJ-",
        "eyJaaaaaaaaaaa.",
        "sk-a",
        "4 ",
        "://a",
        "password: ",
        "A",
    ],
)
def test_a_search_takes_time_in_proportion_to_the_text(part: str) -> None:
    began = time.monotonic()
    redact_secrets(part * (200_000 // len(part)))
    assert time.monotonic() - began < 1, "quadratic, it would take minutes"


def with_secrets(memories: Memories, mode: str) -> Memories:
    settings = memories.resources.settings.model_copy(update={"secrets": mode})
    return Memories(replace(memories.resources, settings=settings))


@pytest.mark.parametrize("mode", ["redact", "refuse", "allow"])
async def test_secrets_are_stored_only_if_the_setting_allows_it(
    memories: Memories, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    memories = with_secrets(memories, mode)
    talk = [["user", f"My key is {KEY}."], ["user", "I live in Faro."]]
    for manager in ({"strategy": "verbatim"}, {}):
        memories.model.script.append(
            calls(insert(f"Ana's key is {KEY}."), insert("Ana lives in Faro."))
        )
        result = await memories.extract(talk, manager_config=manager)
        stored = 1 if mode == "refuse" else 2
        assert result["counts"]["inserted"] == stored
        counted = {"redact": {"redacted": 1, "refused": 0}, "refuse": {"redacted": 0, "refused": 1}}
        assert result.get("secrets") == counted.get(mode)
        assert (KEY in json.dumps(result)) is False
    texts = " ".join(row["value"] for row in await memories.stored())
    assert texts.count(KEY) == (2 if mode == "allow" else 0)
    assert texts.count("[redacted: API key]") == (2 if mode == "redact" else 0)
    assert texts.count("Faro") == 2
    assert KEY not in caplog.text


async def test_questions_are_scanned_too(memories: Memories) -> None:
    asked = [f"Whose key is {KEY}?"]
    memories.model.script.append(calls(insert("Ana has a key.", questions=asked)))
    result = await memories.extract()
    assert result["secrets"] == {"redacted": 1, "refused": 0}
    passages = [row["text"] for row in await memories.rows("SELECT text FROM passages")]
    assert any("[redacted: API key]" in text for text in passages)
    assert KEY not in "".join(passages)


async def test_returned_memories_and_rejected_calls_are_scanned_too(memories: Memories) -> None:
    wrong: tuple[str, dict[str, Any]] = ("insert_memory", {"content": {"x": KEY}})
    memories.model.respond = lambda _: _reply(wrong)
    result = await memories.extract([["user", "Hi."]], manager_config={}, namespace=None)
    assert "[redacted: API key]" in json.dumps(result["memories"])
    assert KEY not in json.dumps(result)


async def _reply(wrong: tuple[str, dict[str, Any]]) -> Any:
    return calls(insert(f"Ana's key is {KEY}."), wrong)
