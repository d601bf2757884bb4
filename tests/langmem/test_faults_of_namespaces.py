"""Where LangMem's templates lead, and where memoryd's do."""

import pytest

from tests.langmem import ours, theirs
from tests.langmem.both import TALK
from tests.langmem.original import ConfigurationError, InMemoryStore
from tests.langmem.ours import Memoryd
from tests.langmem.stores import MEMORY, manager_of, remembers, shown_by_langmem
from tests.support.llm_server import calls

pytestmark = pytest.mark.slow  # each waits for workers or models

TEA = "Ana likes tea."


def of_user(name: str) -> dict[str, dict[str, str]]:
    return {"configurable": {"id": name}}


async def test_users_share_what_langmem_takes_literally_and_have_their_own_in_memoryd(
    memoryd: Memoryd,
) -> None:
    store, template = InMemoryStore(), ("user-{id}",)
    manager = manager_of(store, ("Memory", {"content": TEA}), namespace=template)
    await manager.ainvoke({"messages": TALK}, of_user("ana"))
    assert list(await theirs.items(store, ["user-{id}"]))  # whoever the user is
    assert await shown_by_langmem(store, TALK, namespace=template) == [{"content": TEA}]

    config = {**MEMORY, "namespace": ["user-{id}"]}
    memoryd.llm.script += [calls(remembers(TEA)), calls(ours.no_change())]
    for user in ("ana", "ben"):
        await memoryd.extract(TALK, manager_config=config, variables={"id": user})
    assert ours.shown(memoryd.llm.requests[-1]) == {}
    assert len(await memoryd.items(["user-ana"])) == 1
    assert await memoryd.items(["user-ben"]) == {}


async def test_a_variable_before_other_letters_breaks_langmem_and_is_filled_by_memoryd(
    memoryd: Memoryd,
) -> None:
    manager = manager_of(InMemoryStore(), namespace=("{id}-notes",))
    with pytest.raises(ConfigurationError, match="id}-notes"):
        await manager.ainvoke({"messages": TALK}, of_user("ana"))

    memoryd.llm.script.append(calls(remembers(TEA)))
    config = {**MEMORY, "namespace": ["{id}-notes"]}
    await memoryd.extract(TALK, manager_config=config, variables={"id": "ana"})
    assert len(await memoryd.items(["ana-notes"])) == 1


async def test_a_missing_variable_is_no_exception_in_langmem_and_refused_by_memoryd(
    memoryd: Memoryd,
) -> None:
    manager = manager_of(InMemoryStore(), namespace=("users", "{id}"))
    with pytest.raises(ConfigurationError):
        await manager.ainvoke({"messages": TALK}, {"configurable": {"user": "ana"}})
    assert not issubclass(ConfigurationError, Exception)  # no ordinary handler catches it

    config = {**MEMORY, "namespace": ["users", "{id}"]}
    problem = await memoryd.job("extract", messages=TALK, manager_config=config, status=422)
    assert problem["code"] == "missing_variable"
    problem = await memoryd.job(
        "extract", messages=TALK, manager_config=config, variables={"user": "ana"}, status=422
    )
    assert problem["code"] == "unknown_variable"
    assert memoryd.llm.requests == []
