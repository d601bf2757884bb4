import json
from dataclasses import dataclass
from typing import Any, Self

import pytest

from app.auth.access import ALL_GRANTED, Access, Grant, Verb
from app.auth.errors import ForbiddenError
from app.clock import Clock, FrozenClock
from app.consolidation.plan import ConsolidatePlan, ConsolidatePlanner, ConsolidateRequest
from app.conversations.kinds import EPISODE, MEMORY, PROFILE, Kind
from app.conversations.memories import Rights
from app.db.database import Database
from app.errors import AppError, InvalidRequestError
from app.extraction.plan import ExtractPlan, ExtractPlanner, ExtractRequest, RequestMemory
from app.http.headers import UNCONDITIONAL
from app.jobs.record import NewJob
from app.managers.schemas import ManagerConfig
from app.managers.service import ManagerService
from app.namespaces import to_root, to_stored
from app.providers.llm import (
    LLM,
    Completion,
    LLMNotConfiguredError,
    LLMPool,
    ModelNotAllowedError,
    Request,
)

ACME = Access("mk_1", to_root(["acme"]), ALL_GRANTED)
MESSAGES = [["user", "I am Alice."], ["assistant", "Hello!"]]
JOB_VERBS = {Verb.JOBS, Verb.READ, Verb.WRITE, Verb.DELETE}


class NamedLLM:
    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, request: Request) -> Completion:
        raise AssertionError(f"planning asks no model, not even {request}")

    async def aclose(self) -> None: ...


def create(spec: str) -> LLM:
    if spec.startswith("openai:"):
        raise ValueError("OPENAI_API_KEY is not set")
    return NamedLLM(spec)


@dataclass(frozen=True)
class Planners:
    managers: ManagerService
    extract: ExtractPlanner
    consolidate: ConsolidatePlanner

    @classmethod
    def of(cls, database: Database, llms: LLMPool, clock: Clock) -> Self:
        managers = ManagerService(database, llms, clock)
        return cls(managers, ExtractPlanner(managers, llms), ConsolidatePlanner(managers, llms))


@pytest.fixture
def service(database: Database, clock: FrozenClock) -> Planners:
    return Planners.of(database, LLMPool("anthropic:default", create), clock)


ALLOWED = ("openai:gpt", "anthropic:c", "anthropic:claude")


@pytest.fixture
def without_llm(database: Database, clock: FrozenClock) -> Planners:
    return Planners.of(database, LLMPool(None, create, allowed=ALLOWED), clock)


def key(*verbs: Verb, prefix: tuple[str, ...] = ()) -> Access:
    return Access("mk_2", ACME.root, (Grant(prefix, frozenset(verbs)),))


async def extract(service: Planners, access: Access = ACME, **body: Any) -> NewJob:
    request = ExtractRequest.model_validate({"messages": MESSAGES, **body})
    return await service.extract.plan_job(access, request.to_command())


async def planned(service: Planners, **body: Any) -> ExtractPlan:
    return ExtractPlan.model_validate((await extract(service, **body)).request)


async def consolidate(service: Planners, access: Access = ACME, **body: Any) -> NewJob:
    command = ConsolidateRequest.model_validate(body).to_command()
    return await service.consolidate.plan_job(access, command)


async def store(service: Planners, name: str, **config: Any) -> None:
    await service.managers.put(ACME, name, ManagerConfig.model_validate(config), UNCONDITIONAL)


def field_of(error: AppError) -> str:
    [found] = error.members["errors"]
    return str(found["field"])


async def test_messages_too_long_for_a_model_are_refused(service: Planners) -> None:
    long = [["user", "a" * 80_000]] * 5
    await extract(service, messages=long)
    with pytest.raises(InvalidRequestError, match=r"400,003 characters.*/messages") as raised:
        await extract(service, messages=[*long, ["user", "bye"]])
    assert field_of(raised.value) == "messages"
    await extract(service, messages=[["user", "a" * 400_000]])  # the middle is not shown
    verbatim = {"strategy": "verbatim", "namespace": ["x"]}
    await extract(service, manager_config=verbatim, messages=[*long, ["user", "bye"]])


async def test_a_request_has_the_documented_defaults_and_overrides(service: Planners) -> None:
    plan = await planned(service)
    assert (plan.manager, plan.namespace, plan.existing) == (None, None, [])
    config = plan.config
    assert (config.kinds, config.strategy, config.max_steps) == ((MEMORY,), "llm", 1)
    assert config.rights == Rights(inserts=True, updates=True, deletes=False)
    assert (config.apply, config.max_change_share, config.ttl_seconds) == ("auto", 0.5, None)
    assert (config.query_limit, config.default, config.phases) == (None, None, ())
    manager = {
        "namespace": ["{x}"],
        "apply": "review",
        "max_steps": 2,
        "enable_inserts": False,
        "enable_updates": False,
        "query_limit": 0,
        "max_change_share": 0,
        "phases": [{"instructions": "Tidy up.", "enable_deletes": False}],
    }
    request = {"namespace": ["here"], "apply": "auto", "max_steps": 3, "position": 7}
    plan = await planned(service, manager_config=manager, **request)
    config = plan.config
    assert (plan.namespace, plan.position) == (["here"], 7)
    assert (config.apply, config.max_steps) == ("auto", 3)
    assert config.rights == Rights(inserts=False, updates=False, deletes=False)
    assert (config.query_limit, config.max_change_share) == (0, 0)
    [phase] = config.phases
    assert phase.rights == Rights(inserts=True, updates=True, deletes=False)
    assert not phase.include_messages


async def test_a_job_that_stores_takes_its_namespace_as_key(service: Planners) -> None:
    await store(service, "notes", namespace=["users", "{user}"])
    await store(
        service, "notes", namespace=["users", "{user}", "notes"], kinds=[{"name": "episode"}]
    )
    job = await extract(service, manager="notes", variables={"user": "al"}, thread_id="t")
    stored = to_stored(["acme", "users", "al", "notes"])
    assert (job.namespace, job.concurrency_key, job.manager, job.thread_id) == (
        stored,
        stored,
        "notes",
        "t",
    )
    plan = ExtractPlan.model_validate(job.request)
    assert plan.namespace == ["users", "al", "notes"]
    assert (plan.manager, plan.manager_version) == ("notes", 2)
    assert plan.config.kinds == (EPISODE,)


async def test_a_stored_plan_keeps_the_order_of_its_schemas(service: Planners) -> None:
    schema = {"type": "object", "properties": {"zzz": {}, "a": {}, "bb": {}}}
    kinds = [{"name": "profile"}, {"name": "odd", "schema": schema}, {"name": "episode"}]
    job = await extract(service, manager_config={"kinds": kinds})
    reordered = json.loads(json.dumps(job.request, sort_keys=True))
    config = ExtractPlan.model_validate(reordered).config
    assert config.kinds == (PROFILE, Kind("odd", "", schema), EPISODE)
    assert list(config.kinds[1].schema["properties"]) == ["zzz", "a", "bb"]
    assert list(config.kinds[2].schema["properties"]) == list(EPISODE.schema["properties"])


async def test_existing_memories_get_ids_and_kinds(service: Planners) -> None:
    existing = [
        {"content": {"content": "Likes ramen."}},
        {"content": {"name": "Alice"}},
        {"id": "m7", "kind": "other", "content": {"a": 1}},
    ]
    plan = await planned(
        service,
        manager_config={"kinds": [{"name": "memory"}, {"name": "profile"}]},
        existing=existing,
    )
    first, second, third = plan.existing
    assert (first.kind, first.content) == ("memory", {"content": "Likes ramen."})
    assert second.kind == "profile"
    assert third == RequestMemory(id="m7", kind="other", content={"a": 1})
    assert len({first.id, second.id, third.id}) == 3
    plan = await planned(
        service,
        manager_config={"kinds": [{"name": "triple"}]},
        existing=[{"content": {"content": "Likes ramen."}}],
    )
    assert plan.existing[0].kind is None


async def test_models_of_a_job_must_be_configured_and_allowed(without_llm: Planners) -> None:
    manager: dict[str, Any]
    for manager, refusal in (
        ({}, LLMNotConfiguredError),
        ({"model": "openai:other"}, ModelNotAllowedError),
        ({"model": "openai:gpt"}, LLMNotConfiguredError),
        ({"model": "anthropic:c", "query_model": "openai:gpt"}, LLMNotConfiguredError),
    ):
        with pytest.raises(refusal):
            await extract(without_llm, manager_config=manager)
    with pytest.raises(LLMNotConfiguredError):
        await consolidate(without_llm, namespace=["users"])
    plan = await planned(without_llm, manager_config={"model": "anthropic:claude"})
    assert plan.config.model == "anthropic:claude"


async def test_some_strategies_need_no_model(without_llm: Planners) -> None:
    manager = {"strategy": "verbatim"}
    plan = await planned(without_llm, manager_config=manager, namespace=["talk"])
    assert (plan.config.strategy, plan.config.model) == ("verbatim", None)
    with pytest.raises(InvalidRequestError) as caught:
        await extract(without_llm, manager_config=manager)
    assert field_of(caught.value) == "namespace"
    for body in ({"strategy": "duplicates"}, {"manager_config": manager}):
        job = await consolidate(without_llm, namespace=["users"], **body)
        assert ConsolidatePlan.model_validate(job.request).strategy == "duplicates"


async def test_jobs_take_grants_for_what_they_do(service: Planners) -> None:
    namespace = ["users", "al"]
    tidy = {"phases": [{"instructions": "Tidy up."}]}
    await extract(service, key(*JOB_VERBS - {Verb.DELETE}, prefix=("users",)), namespace=namespace)
    await consolidate(service, key(*JOB_VERBS, prefix=("users",)), namespace=["users"])
    for verb in JOB_VERBS:
        limited = key(*JOB_VERBS - {verb})
        with pytest.raises(ForbiddenError, match=f"no grant to {verb} "):
            await consolidate(service, limited, namespace=["users"])
        for manager in ({"enable_deletes": True}, tidy):
            await extract(service, key(*JOB_VERBS), namespace=namespace, manager_config=manager)
            with pytest.raises(ForbiddenError, match=f"no grant to {verb} "):
                await extract(service, limited, namespace=namespace, manager_config=manager)
    with pytest.raises(ForbiddenError):
        await extract(service, key(*JOB_VERBS, prefix=("users", "bo")), namespace=namespace)
    with pytest.raises(ForbiddenError):
        await consolidate(service, key(*JOB_VERBS, prefix=("users",)), namespace=[])


async def test_storing_nothing_takes_only_jobs_on_the_whole_root(service: Planners) -> None:
    job = await extract(service, key(Verb.JOBS), manager_config={"enable_deletes": True})
    assert (job.kind, job.namespace, job.concurrency_key) == ("extract", "acme\x1f", None)
    with pytest.raises(ForbiddenError):
        await extract(service, key(*JOB_VERBS, prefix=("users",)))


async def test_a_consolidation_has_defaults_of_its_own(service: Planners) -> None:
    job = await consolidate(service, namespace=["users"])
    plan = ConsolidatePlan.model_validate(job.request)
    stored = to_stored(["acme", "users"])
    assert (job.kind, job.namespace, job.concurrency_key) == ("consolidate", stored, stored)
    assert (plan.namespace, plan.strategy, plan.full, plan.limit) == (["users"], "llm", False, 200)
    assert plan.config.rights == Rights(inserts=True, updates=True, deletes=True)
    assert plan.config.model is None  # the default when it runs
    await store(
        service, "careful", enable_deletes=False, kinds=[{"name": "triple"}], namespace=["{x}"]
    )
    request: dict[str, Any] = {"namespace": [], "full": True, "limit": 5, "apply": "review"}
    job = await consolidate(service, manager="careful", **request)
    plan = ConsolidatePlan.model_validate(job.request)
    assert (plan.manager, plan.manager_version, job.manager) == ("careful", 1, "careful")
    assert [kind.name for kind in plan.config.kinds] == ["triple"]
    assert not plan.config.enable_deletes
    assert (plan.namespace, plan.full, plan.limit) == ([], True, 5)
    assert plan.config.apply == "review"
