import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.auth.access import ALL_GRANTED, Access, Grant, Verb
from app.auth.errors import ForbiddenError
from app.db.database import Database
from app.errors import InvalidRequestError, NotFoundError
from app.http.headers import UNCONDITIONAL
from app.namespaces import to_root
from app.prompts.service import PromptService
from app.prompts.types import (
    CANDIDATE,
    PRODUCTION,
    NothingToRollBackError,
    Prompt,
    PromptNotFoundError,
    PromptState,
    PromptVersionNotFoundError,
)

pytestmark = pytest.mark.slow

ACME = Access("mk_1", to_root(["acme"]), ALL_GRANTED)
JOB = Access("mk_1 job_7", ACME.root, (Grant((), frozenset({Verb.WRITE, Verb.READ})),))

Change = tuple[str, str, str, int]

_numbers = itertools.count(1)


async def put(prompts: PromptService, text: str, name: str = "p", **more: Any) -> int:
    prompt, _ = await prompts.put(ACME, name, PromptState(text, **more), UNCONDITIONAL)
    return prompt.version


async def read(prompts: PromptService, name: str = "p", **version: Any) -> Prompt:
    return await prompts.get(ACME, name, **version)


async def add(prompts: PromptService, database: Database, text: str, name: str = "p") -> int:
    async with database.transaction(ACME.root) as connection:
        return await prompts.add_version(connection, JOB, name, text, based_on=None, analysis=None)


async def add_and_promote(
    prompts: PromptService, database: Database, text: str, version: int | None = None
) -> int:
    async with database.transaction(ACME.root) as connection:
        added = await prompts.add_version(connection, JOB, "p", text, based_on=None, analysis=None)
        await prompts.promote(connection, ACME, "p", version=version or added)
    return added


async def test_a_failed_transaction_of_a_job_changes_nothing(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "Be brief.")
    with pytest.raises(PromptVersionNotFoundError):
        await add_and_promote(prompts, database, "No.", version=7)
    row = await read(prompts)
    assert (row.version, row.revision, row.labels) == (1, 1, ["production"])


async def test_a_job_cannot_store_an_invalid_text(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "Be brief.")
    with pytest.raises(InvalidRequestError):
        await add(prompts, database, " \n")
    assert (await read(prompts)).version == 1


async def test_jobs_need_a_prompt_and_the_grants(
    prompts: PromptService, database: Database
) -> None:
    with pytest.raises(PromptNotFoundError):
        await add(prompts, database, "Be brief.")
    await put(prompts, "Be brief.")
    stranger = Access("mk_2", ACME.root, (Grant(("users",), frozenset(Verb)),))
    async with database.transaction(ACME.root) as connection:
        with pytest.raises(ForbiddenError):
            await prompts.promote(connection, JOB, "p", version=1)
        with pytest.raises(ForbiddenError):
            await prompts.add_version(connection, stranger, "p", "x", based_on=1, analysis=None)
        assert (await prompts.read(connection, stranger, "p")).version == 1


async def test_concurrent_versions_are_each_in_production_for_a_while(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "0")
    promotions = (add_and_promote(prompts, database, f"text {n}") for n in range(4))
    by_hand = (put(prompts, f"by hand {n}") for n in range(4))
    await asyncio.gather(*promotions, *by_hand)
    assert (await read(prompts)).version == 9
    seen = [(await read(prompts, label=PRODUCTION)).text]
    while len(seen) < 5:
        row = await prompts.roll_back(ACME, "p", PRODUCTION, UNCONDITIONAL)
        seen.append(row.text)
    assert sorted(seen[:-1]) == [f"text {n}" for n in range(4)]
    assert seen[-1] == "0"


async def test_a_change_waits_for_the_job_that_adds_a_version(
    prompts: PromptService, database: Database
) -> None:
    await put(prompts, "0")
    async with database.transaction(ACME.root) as connection:
        await prompts.add_version(connection, JOB, "p", "1", based_on=1, analysis=None)
        waiting = asyncio.create_task(put(prompts, "2"))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        assert (await read(prompts)).version == 1, "readers do not wait"
    assert await waiting == 3


class ModelPrompt:
    """The expected state of a prompt after a sequence of changes, in lists and dictionaries."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.labels: dict[str, list[int]] = {}
        self.revision = 0

    @property
    def state(self) -> Any:
        return list(self.texts), {label: list(path) for label, path in self.labels.items()}

    def point(self, label: str, number: int) -> None:
        path = self.labels.setdefault(label, [])
        if path[-1:] != [number]:
            path.append(number)

    def put(self, text: str, labels: list[str] | None) -> None:
        if labels is None:
            labels = [] if self.texts else [PRODUCTION]
        if self.texts[-1:] != [text]:
            self.texts.append(text)
        for label in labels:
            self.point(label, len(self.texts))

    def carry_out(self, name: str, text: str, label: str, number: int) -> bool:
        """Make a change; False if there is nothing to change."""
        before = self.state
        known = bool(self.texts)
        if name == "put":
            self.put(text, None)
        elif name == "put_label":
            self.put(text, [label])
        elif name == "add" and known:
            self.put(text, [CANDIDATE])
        elif name == "promote" and number <= len(self.texts):
            self.point(label, number)
        elif name == "rollback" and len(self.labels.get(label, [])) > 1:
            self.labels[label].pop()
        elif name == "delete_label":
            self.labels.pop(label, None)
        else:
            return False
        self.revision += self.state != before
        return True


async def carry_out(
    prompts: PromptService, database: Database, prompt: str, change: Change
) -> bool:
    """Make the same change to a stored prompt; False if it is refused."""
    name, text, label, number = change
    try:
        if name in {"put", "put_label"}:
            await put(prompts, text, prompt, **({"labels": [label]} if name != "put" else {}))
        elif name == "add":
            await add(prompts, database, text, prompt)
        elif name == "promote":
            await prompts.move_label(ACME, prompt, label, UNCONDITIONAL, version=number)
        elif name == "rollback":
            await prompts.roll_back(ACME, prompt, label, UNCONDITIONAL)
        else:
            await prompts.delete_label(ACME, prompt, label, UNCONDITIONAL)
    except (NotFoundError, NothingToRollBackError):
        return False
    return True


changes = st.tuples(
    st.sampled_from(
        ["put", "put_label", "add", "promote", "promote", "rollback", "rollback", "delete_label"]
    ),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([PRODUCTION, CANDIDATE, "beta"]),
    st.integers(1, 5),
)


@settings(max_examples=25)
@given(sequence=st.lists(changes, min_size=1, max_size=15))
async def test_prompts_behave_like_the_model(
    prompts: PromptService, database: Database, sequence: list[Change]
) -> None:
    model, prompt = ModelPrompt(), f"p{next(_numbers)}"
    for change in sequence:
        agreed = model.carry_out(*change)
        assert await carry_out(prompts, database, prompt, change) is agreed, change
        if not model.texts:
            continue
        row = await read(prompts, prompt)
        assert (row.revision, row.newest) == (model.revision, len(model.texts)), change
        for label, path in model.labels.items():
            pointed = await read(prompts, prompt, label=label)
            assert (pointed.version, pointed.text) == (path[-1], model.texts[path[-1] - 1])
            same = sorted(other for other, way in model.labels.items() if way[-1] == path[-1])
            assert pointed.labels == same
