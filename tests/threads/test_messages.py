import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
from app.db.database import Database
from tests.support.threads import VERBATIM, Threads, says


async def job_of(threads: Threads, job_id: str) -> dict[str, Any]:
    response = await threads.client.get(f"/v1/jobs/{job_id}", headers=threads.headers)
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    return job


async def test_messages_without_a_manager_are_only_kept(threads: Threads) -> None:
    answer = await threads.append("t", "Hello", "How are you?")
    assert answer == {
        "thread_id": "t",
        "appended": 2,
        "already_known": 0,
        "conflicting": [],
        "pending": 2,
        "job_id": None,
        "extracts_at": None,
    }
    thread = await threads.get("t")
    assert (thread["messages"], thread["pending"], thread["pending_since"]) == (2, 2, None)
    assert (thread["manager"], thread["job_id"], thread["summary"]) == (None, None, None)


async def test_messages_are_listed_in_the_order_they_were_said(threads: Threads) -> None:
    said = [f"sentence {n}" for n in range(20)]
    for start in range(0, 20, 3):
        await threads.append("t", *said[start : start + 3])
    assert await threads.texts("t") == said
    page = await threads.messages("t", cursor=18)
    assert [message["position"] for message in page["messages"]] == [18, 19]
    assert page["next_cursor"] is None
    assert (await threads.messages("t", cursor=18, limit=2))["next_cursor"] is None
    assert (await threads.messages("t", cursor=17, limit=2))["next_cursor"] == 19


async def test_a_message_keeps_everything_and_is_given_an_id(threads: Threads) -> None:
    sent = {
        "id": "m1",
        "type": "ai",
        "content": [{"type": "text", "text": "Hi"}],
        "response_metadata": {"model": "x", "n": 1.5},
        "name": None,
    }
    await threads.append("t", sent, "b", {**says("c"), "id": None})
    found = [message["message"] for message in (await threads.messages("t"))["messages"]]
    assert found[0] == sent
    assert [message["id"] for message in found[1:]] == ["position:1", "position:2"]


async def test_a_known_id_is_not_added_again_and_its_first_words_stay(threads: Threads) -> None:
    await threads.append("t", says("a", "1"), says("b", "2"))
    answer = await threads.append("t", says("b", "2"), says("A!", "1"), says("c", "3"))
    assert (answer["appended"], answer["already_known"], answer["conflicting"]) == (1, 2, ["1"])
    assert await threads.texts("t") == ["a", "b", "c"]


async def test_equal_words_without_an_id_are_said_twice(threads: Threads) -> None:
    await threads.append("t", "yes", "yes")
    await threads.append("t", "yes")
    assert await threads.texts("t") == ["yes", "yes", "yes"]


async def test_given_ids_are_known_when_they_return_and_refused_if_new(threads: Threads) -> None:
    await threads.append("t", "a", "b")
    page = await threads.messages("t")
    answer = await threads.append("t", *[message["message"] for message in page["messages"]])
    assert (answer["appended"], answer["already_known"]) == (0, 2)
    problem = await threads.append("t", says("c", "position:7"), status=422)
    assert problem["errors"][0]["field"] == "messages"
    assert await threads.texts("t") == ["a", "b"]


async def test_concurrent_appends_keep_every_message_without_gaps(threads: Threads) -> None:
    async def talk(speaker: int) -> None:
        for n in range(5):
            await threads.form("t", f"{speaker}.{n}.a", f"{speaker}.{n}.b")

    await asyncio.gather(*(talk(speaker) for speaker in range(8)))
    page = await threads.messages("t", limit=200)
    assert [message["position"] for message in page["messages"]] == list(range(80))
    texts = [message["message"]["content"] for message in page["messages"]]
    assert sorted(texts) == sorted(f"{s}.{n}.{x}" for s in range(8) for n in range(5) for x in "ab")
    assert all(texts[i][:-1] == texts[i + 1][:-1] for i in range(0, 80, 2))
    for speaker in range(8):
        own = [text for text in texts if text.startswith(f"{speaker}.")]
        assert own == sorted(own)
    assert (await threads.get("t"))["pending"] == 80


async def test_concurrent_appends_of_the_same_message_add_it_once(threads: Threads) -> None:
    answers = await asyncio.gather(
        *(threads.append("t", says("a", "1"), says("b", "2")) for _ in range(10))
    )
    assert sum(answer["appended"] for answer in answers) == 2
    assert await threads.texts("t") == ["a", "b"]


async def test_an_append_with_a_manager_submits_one_job_that_later_ones_put_off(
    threads: Threads, clock: FrozenClock
) -> None:
    first = await threads.form("t", "I like tea.")
    clock.advance(timedelta(seconds=20))
    second = await threads.form("t", "And coffee.")
    assert first["job_id"] == second["job_id"]
    assert first["extracts_at"] == "2026-01-01T12:00:30+00:00"
    assert second["extracts_at"] == "2026-01-01T12:00:50+00:00"
    job = await job_of(threads, second["job_id"])
    assert (job["kind"], job["state"], job["thread_id"]) == ("extract_thread", "queued", "t")
    assert job["namespace"] == ["users", "alice"]
    thread = await threads.get("t")
    assert thread["namespace"] == ["users", "alice"]
    assert thread["pending_since"] == "2026-01-01T12:00:00+00:00"
    assert (thread["job_id"], thread["pending"]) == (second["job_id"], 2)


async def test_a_manager_that_was_named_once_goes_on(threads: Threads, clock: FrozenClock) -> None:
    first = await threads.form("t", "a", after_seconds=5)
    clock.advance(timedelta(seconds=3))
    second = await threads.append("t", "b")
    assert second["job_id"] == first["job_id"]
    assert second["extracts_at"] == "2026-01-01T12:00:08+00:00"


async def test_no_message_waits_longer_than_the_limit(threads: Threads, clock: FrozenClock) -> None:
    extracts_at = []
    for n in range(5):
        answer = await threads.form("t", str(n), after_seconds=30, max_wait_seconds=60)
        extracts_at.append(answer["extracts_at"][14:19])
        clock.advance(timedelta(seconds=20))
    assert extracts_at == ["00:30", "00:50", "01:00", "01:00", "01:20"]


@pytest.mark.parametrize(("after", "longest"), [(30, 600), (5, 600), (60, 1200), (1800, 36000)])
async def test_without_a_limit_a_message_waits_at_most_twenty_times_the_quiet(
    threads: Threads, clock: FrozenClock, after: int, longest: int
) -> None:
    await threads.form("t", "a", after_seconds=after)
    clock.advance(timedelta(seconds=longest - 1))
    answer = await threads.form("t", "b", after_seconds=after)
    clock.advance(timedelta(seconds=1))
    assert answer["extracts_at"] == clock.now().isoformat()


async def test_a_message_that_comes_again_puts_nothing_off(
    threads: Threads, clock: FrozenClock
) -> None:
    first = await threads.form("t", says("a", "1"))
    before = await job_of(threads, first["job_id"])
    clock.advance(timedelta(seconds=20))
    again = await threads.form("t", says("a", "1"))
    assert (again["job_id"], again["appended"]) == (first["job_id"], 0)
    assert (await job_of(threads, first["job_id"]))["run_at"] == before["run_at"]


async def test_messages_kept_before_a_manager_was_named_are_learned_from_too(
    threads: Threads, clock: FrozenClock
) -> None:
    await threads.append("t", "a", "b", namespace=["users", "alice"])
    clock.advance(timedelta(days=3))
    answer = await threads.form("t", "c")
    assert answer["pending"] == 3
    assert answer["extracts_at"] == (clock.now() + timedelta(seconds=30)).isoformat()


async def test_a_thread_stays_in_its_namespace(threads: Threads) -> None:
    await threads.form("t", "a")
    for elsewhere in (
        {"manager_config": VERBATIM, "variables": {"user_id": "bob"}},
        {"manager_config": VERBATIM, "namespace": ["users", "bob"]},
        {"namespace": ["users"]},
    ):
        problem = await threads.append("t", "b", status=409, **elsewhere)
        assert problem["code"] == "thread_elsewhere"
    assert await threads.texts("t") == ["a"]
    await threads.append("t", "b", namespace=["users", "alice"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"manager_config": {"strategy": "verbatim"}}, 422, "invalid_request"),
        ({"manager": "nobody"}, 404, "manager_not_found"),
    ],
)
async def test_nothing_is_kept_for_an_unusable_manager(
    threads: Threads, body: dict[str, Any], status: int, code: str
) -> None:
    assert (await threads.append("t", "a", status=status, **body))["code"] == code
    await threads.get("t", status=404)


async def test_the_same_idempotency_key_appends_once(threads: Threads) -> None:
    headers = {"Idempotency-Key": "k1"}
    answers = [
        await threads.call(
            "POST", "t", "/messages", status=202, headers=headers, json={"messages": [says("a")]}
        )
        for _ in range(3)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert await threads.texts("t") == ["a"]
    problem = await threads.call(
        "POST", "t", "/messages", status=409, headers=headers, json={"messages": [says("b")]}
    )
    assert problem["code"] == "idempotency_key_reused"


async def test_flush_lets_the_job_begin_now(threads: Threads) -> None:
    answer = await threads.form("t", "a", after_seconds=3600)
    job = (await threads.flush("t"))["job"]
    assert (job["id"], job["state"]) == (answer["job_id"], "queued")
    delay = datetime.fromisoformat(job["run_at"]) - datetime.fromisoformat(job["created_at"])
    assert delay < timedelta(seconds=60)
    assert (await threads.get("t"))["extracts_at"] == job["run_at"]


async def test_flush_of_a_thread_without_messages_to_learn_from_finds_nothing(
    threads: Threads, database: Database
) -> None:
    await threads.form("t", "a")
    async with database.connection("") as connection:
        await connection.execute("DELETE FROM jobs")
        await connection.execute("UPDATE threads SET extracted_until = 1, pending_since = NULL")
    assert await threads.flush("t", status=200) == {"job": None}


async def test_flush_submits_a_job_again_when_the_last_was_cancelled(threads: Threads) -> None:
    answer = await threads.form("t", "a")
    cancelled = await threads.client.post(f"/v1/jobs/{answer['job_id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    job = (await threads.flush("t"))["job"]
    assert job["id"] != answer["job_id"]
    assert (await threads.get("t"))["job_id"] == job["id"]


async def test_flush_says_that_a_thread_has_no_manager(threads: Threads) -> None:
    await threads.append("t", "a")
    assert (await threads.flush("t", status=409))["code"] == "thread_without_manager"


async def test_a_deleted_thread_is_gone_with_its_messages_and_its_job(threads: Threads) -> None:
    answer = await threads.form("t", says("a", "1"))
    await threads.delete("t")
    assert (await threads.get("t", status=404))["code"] == "thread_not_found"
    await threads.messages("t", status=404)
    await threads.flush("t", status=404)
    await threads.delete("t", status=404)
    assert (await job_of(threads, answer["job_id"]))["state"] == "cancelled"
    again = await threads.append("t", says("other", "1"), namespace=["users", "bob"])
    assert again["appended"] == 1


@pytest.mark.parametrize(
    "thread_id",
    ["a/b", "..", ".", "%2F", "ü ñ", "a?b#c", "messages", "x/flush", "x/messages", " ", "😀" * 256],
)
async def test_an_id_may_be_any_text(threads: Threads, thread_id: str) -> None:
    await threads.append(thread_id, "a")
    assert (await threads.get(thread_id))["thread_id"] == thread_id
    assert await threads.texts(thread_id) == ["a"]
    await threads.delete(thread_id)


async def test_a_slash_is_part_of_an_id_only_where_it_is_encoded(threads: Threads) -> None:
    await threads.append("a/messages", "x")
    for path in ("a/messages/messages", "a/b", ""):
        response = await threads.client.get(f"/v1/threads/{path}")
        assert (response.status_code, response.json()["code"]) == (404, "no_such_route")
    response = await threads.client.delete("/v1/threads/a/messages")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}], "manager_config": VERBATIM}, None),
        ({"after_seconds": -1}, "after_seconds"),
        ({"after_seconds": 86_401}, "after_seconds"),
        ({"messages": [says("a\x00")]}, None),
        ({"namespace": []}, "namespace"),
        ({"whatever": 1}, "whatever"),
    ],
)
async def test_an_invalid_append_is_refused(
    threads: Threads, body: dict[str, Any], field: str | None
) -> None:
    sent = {"messages": [says("a")], **body}
    problem = await threads.call("POST", "t", "/messages", status=422, json=sent)
    assert field in {None, problem["errors"][0]["field"]}
    await threads.get("t", status=404)
    for thread_id in ("x" * 257, "a\x00b"):
        problem = await threads.append(thread_id, "a", status=422)
        assert problem["errors"][0]["field"] == "thread_id"


async def with_key(
    client: httpx2.AsyncClient,
    keys: KeyService,
    *grants: Grant,
    root: tuple[str, ...] = (),
) -> Threads:
    token = await keys.create("test", root=root, grants=grants, expires_at=None)
    return Threads(client, {"x-api-key": str(token)})


async def test_keys_of_different_roots_have_different_threads(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    acme = await with_key(client, keys, *ALL_GRANTED, root=("acme",))
    other = await with_key(client, keys, *ALL_GRANTED, root=("other",))
    everyone = await with_key(client, keys, *ALL_GRANTED)
    await acme.form("t", "of acme")
    await other.get("t", status=404)
    await other.delete("t", status=404)
    await everyone.get("t", status=404)
    await other.append("t", "of other")
    assert await acme.texts("t") == ["of acme"]
    assert await other.texts("t") == ["of other"]
    assert (await acme.get("t"))["namespace"] == ["users", "alice"]


async def test_a_thread_where_jobs_are_not_granted_is_not_there(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    alice = await with_key(client, keys, Grant(("users", "alice"), frozenset(Verb)))
    bob = await with_key(client, keys, Grant(("users", "bob"), frozenset(Verb)))
    await alice.form("t", "a")
    for call in (bob.get, bob.messages, bob.flush, bob.delete):
        assert (await call("t", status=404))["code"] == "thread_not_found"
    assert (await bob.append("t", "b", status=403))["code"] == "forbidden"
    assert await alice.texts("t") == ["a"]


@pytest.mark.parametrize("missing", [Verb.JOBS, Verb.READ, Verb.WRITE])
async def test_who_appends_must_be_allowed_what_the_job_does(
    client: httpx2.AsyncClient, keys: KeyService, missing: Verb
) -> None:
    full = await with_key(client, keys, *ALL_GRANTED)
    limited = await with_key(client, keys, Grant((), frozenset(Verb) - {missing}))
    await full.form("t", "a")
    assert (await limited.form("t", "b", status=403))["code"] == "forbidden"
    assert (await limited.append("t", "b", status=403))["code"] == "forbidden"
    assert await full.texts("t") == ["a"]
