import asyncio
from typing import Any

import pytest

from app.auth.access import ALL_GRANTED, Access, Grant, Verb
from app.auth.errors import ForbiddenError
from app.db import Database
from app.errors import InvalidRequestError
from app.namespaces import to_stored
from app.prompts.errors import (
    PromptLabelNotFoundError,
    PromptNotFoundError,
    PromptVersionNotFoundError,
)
from app.prompts.schemas import CANDIDATE, PRODUCTION, PutPrompt, ReadPrompt
from app.prompts.service import PromptService
from app.store.preconditions import UNCONDITIONAL

ACME = Access("mk_1", to_stored(["acme"]), ALL_GRANTED)
JOB = Access("mk_1 job_7", ACME.root, (Grant((), frozenset({Verb.WRITE, Verb.READ})),))


async def put(prompts: PromptService, text: str, name: str = "p", **more: Any) -> int:
    body = PutPrompt.model_validate({"text": text, **more})
    row, _ = await prompts.put(ACME, name, body, UNCONDITIONAL)
    return int(row["version"])


async def read(prompts: PromptService, name: str = "p", **query: Any) -> Any:
    return await prompts.get(ACME, name, ReadPrompt.model_validate(query))


async def add(prompts: PromptService, database: Database, text: str, **more: Any) -> int:
    based_on, analysis = more.get("based_on"), more.get("analysis")
    async with database.transaction(ACME.root) as connection:
        return await prompts.add_version(
            connection, JOB, "p", text, based_on=based_on, analysis=analysis
        )


async def test_a_job_adds_a_candidate_and_promotes_it_in_one_transaction(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "Be brief.", update_instructions="Keep it short.")
    async with database.transaction(ACME.root) as connection:
        number = await prompts.add_version(
            connection, JOB, "p", "Be very brief.", based_on=1, analysis="Users wait."
        )
        await prompts.promote(connection, ACME, "p", version=number)
        seen = await prompts.read(connection, JOB, "p", label=PRODUCTION)
        assert seen["text"] == "Be very brief."
    row = await read(prompts, label=CANDIDATE)
    assert dict(row) | {"updated_at": None, "created_at": None} == {
        "name": "p",
        "revision": 3,
        "newest": 2,
        "update_instructions": "Keep it short.",
        "when_to_update": None,
        "version": 2,
        "text": "Be very brief.",
        "based_on": 1,
        "analysis": "Users wait.",
        "actor": "mk_1 job_7",
        "labels": ["candidate", "production"],
        "updated_at": None,
        "created_at": None,
    }


async def test_what_a_job_did_is_undone_with_its_transaction(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "Be brief.")
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(ACME.root) as connection:
            await prompts.add_version(connection, JOB, "p", "No.", based_on=1, analysis=None)
            raise ZeroDivisionError
    row = await read(prompts)
    assert (row["version"], row["revision"], row["labels"]) == (1, 1, ["production"])


async def test_the_newest_text_is_not_added_again_but_becomes_the_candidate(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "Be brief.")
    assert await add(prompts, database, "Be brief.") == 1
    assert (await read(prompts))["labels"] == ["candidate", "production"]
    assert (await read(prompts))["revision"] == 2
    assert await add(prompts, database, "Be brief.") == 1
    assert (await read(prompts))["revision"] == 2


@pytest.mark.parametrize("text", ["", " \n", "a\x00", "\ud800", "x" * 200_001])
async def test_a_job_cannot_store_what_no_prompt_can_be(
    prompts: PromptService, database: Database, text: str
) -> None:
    await put(prompts, "Be brief.")
    with pytest.raises(InvalidRequestError):
        await add(prompts, database, text)
    assert (await read(prompts))["version"] == 1


async def test_jobs_need_a_prompt_a_version_and_the_rights(
    prompts: PromptService, database: Database
) -> None:
    with pytest.raises(PromptNotFoundError):
        await add(prompts, database, "Be brief.")
    await put(prompts, "Be brief.")
    stranger = Access("mk_2", ACME.root, (Grant(("users",), frozenset(Verb)),))
    async with database.transaction(ACME.root) as connection:
        with pytest.raises(PromptVersionNotFoundError, match=r"no version 2; it has only version 1"):
            await prompts.promote(connection, ACME, "p", version=2)
        with pytest.raises(PromptLabelNotFoundError, match=r"it has production \(version 1\)"):
            await prompts.read(connection, JOB, "p", label=CANDIDATE)
        with pytest.raises(ForbiddenError):
            await prompts.promote(connection, JOB, "p", version=1)
        with pytest.raises(ForbiddenError):
            await prompts.add_version(connection, stranger, "p", "x", based_on=1, analysis=None)
        assert (await prompts.read(connection, stranger, "p"))["version"] == 1


async def test_versions_added_at_once_get_numbers_of_their_own(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "0")
    numbers = await asyncio.gather(*(add(prompts, database, f"text {n}") for n in range(8)))
    assert sorted(numbers) == list(range(2, 10))
    assert (await read(prompts))["revision"] == 9
