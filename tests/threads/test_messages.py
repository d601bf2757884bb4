import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.auth.access import ALL_GRANTED, Grant, Verb
from app.auth.service import KeyService
from app.clock import FrozenClock
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


async def test_messages_are_listed_in_their_order(threads: Threads) -> None:
    said = [f"sentence {n % 15}" for n in range(20)]  # equal words without an id are said twice
    for start in range(0, 20, 3):
        await threads.append("t", *said[start : start + 3])
    assert await threads.texts("t") == said
    page = await threads.messages("t", cursor=18)
    assert [message["position"] for message in page["messages"]] == [18, 19]
    assert page["next_cursor"] is None
    assert (await threads.messages("t", cursor=18, limit=2))["next_cursor"] is None
    assert (await threads.messages("t", cursor=17, limit=2))["next_cursor"] == 19


async def test_a_message_keeps_all_members_and_gets_an_id(threads: Threads) -> None:
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
    again = await threads.append("t", *found)
    assert (again["appended"], again["already_known"]) == (0, 3)
    problem = await threads.append("t", says("d", "position:7"), status=422)
    assert problem["errors"][0]["field"] == "messages"


async def test_a_known_id_is_not_added_again_and_its_text_stays(threads: Threads) -> None:
    await threads.append("t", says("a", "1"), says("b", "2"))
    answer = await threads.append("t", says("b", "2"), says("A!", "1"), says("c", "3"))
    assert (answer["appended"], answer["already_known"], answer["conflicting"]) == (1, 2, ["1"])
    assert await threads.texts("t") == ["a", "b", "c"]


async def test_concurrent_appends_keep_every_message_without_gaps(threads: Threads) -> None:
    async def talk(speaker: int) -> int:
        for n in range(3):
            await threads.form("t", f"{speaker}.{n}.a", f"{speaker}.{n}.b")
        same = await threads.append("t", says("same", "1"))
        return int(same["appended"])

    assert sum(await asyncio.gather(*(talk(speaker) for speaker in range(6)))) == 1
    page = await threads.messages("t", limit=200)
    assert [message["position"] for message in page["messages"]] == list(range(37))
    texts = [message["message"]["content"] for message in page["messages"]]
    texts.remove("same")
    assert all(texts[i][:-1] == texts[i + 1][:-1] for i in range(0, 36, 2))
    for speaker in range(6):
        own = [text for text in texts if text.startswith(f"{speaker}.")]
        assert own == [f"{speaker}.{n}.{x}" for n in range(3) for x in "ab"]
    assert (await threads.get("t"))["pending"] == 37


async def test_an_append_with_a_manager_submits_one_job_that_later_ones_postpone(
    threads: Threads, clock: FrozenClock
) -> None:
    await threads.append("t", "Hello.", namespace=["users", "alice"])
    clock.advance(timedelta(days=3))
    first = await threads.form("t", says("I like tea.", "1"))
    assert (first["pending"], first["extracts_at"]) == (2, "2026-01-04T12:00:30+00:00")
    clock.advance(timedelta(seconds=20))
    second = await threads.append("t", "And coffee.")  # the manager goes on
    assert second["job_id"] == first["job_id"]
    assert second["extracts_at"] == "2026-01-04T12:00:50+00:00"
    job = await job_of(threads, second["job_id"])
    assert (job["kind"], job["state"], job["thread_id"]) == ("extract_thread", "queued", "t")
    assert job["namespace"] == ["users", "alice"]
    thread = await threads.get("t")
    assert thread["namespace"] == ["users", "alice"]
    assert thread["pending_since"] == "2026-01-04T12:00:00+00:00"
    assert (thread["job_id"], thread["pending"]) == (second["job_id"], 3)
    clock.advance(timedelta(seconds=5))
    again = await threads.form("t", says("I like tea.", "1"))  # which postpones nothing
    assert (again["job_id"], again["appended"]) == (first["job_id"], 0)
    assert (await job_of(threads, first["job_id"]))["run_at"] == job["run_at"]


async def test_no_message_waits_longer_than_the_limit(threads: Threads, clock: FrozenClock) -> None:
    extracts_at = []
    for n in range(5):
        answer = await threads.form("t", str(n), after_seconds=30, max_wait_seconds=60)
        extracts_at.append(answer["extracts_at"][14:19])
        clock.advance(timedelta(seconds=20))
    assert extracts_at == ["00:30", "00:50", "01:00", "01:00", "01:20"]


@pytest.mark.parametrize(("after", "longest"), [(5, 600), (60, 1200)])
async def test_without_a_limit_a_message_waits_at_most_twenty_pauses(
    threads: Threads, clock: FrozenClock, after: int, longest: int
) -> None:
    await threads.form("t", "a", after_seconds=after)
    clock.advance(timedelta(seconds=longest - 1))
    answer = await threads.form("t", "b", after_seconds=after)
    clock.advance(timedelta(seconds=1))
    assert answer["extracts_at"] == clock.now().isoformat()


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


async def test_flush_starts_the_job_now_or_submits_it_again(threads: Threads) -> None:
    answer = await threads.form("t", "a", after_seconds=3600)
    job = (await threads.flush("t"))["job"]
    assert (job["id"], job["state"]) == (answer["job_id"], "queued")
    delay = datetime.fromisoformat(job["run_at"]) - datetime.fromisoformat(job["created_at"])
    assert delay < timedelta(seconds=60)
    assert (await threads.get("t"))["extracts_at"] == job["run_at"]
    cancelled = await threads.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    again = (await threads.flush("t"))["job"]
    assert again["id"] != job["id"]
    assert (await threads.get("t"))["job_id"] == again["id"]
    await threads.append("other", "a")
    assert (await threads.flush("other", status=409))["code"] == "thread_without_manager"


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


async def test_an_id_may_be_any_text(threads: Threads) -> None:
    for thread_id in ("a/b", "..", "%2F", "ü ñ", "a?b#c", "x/messages", " ", "😀" * 256):
        await threads.append(thread_id, "a")
        assert (await threads.get(thread_id))["thread_id"] == thread_id
        assert await threads.texts(thread_id) == ["a"]
        await threads.delete(thread_id)
    for path in ("a/messages/messages", "a/b", ""):  # a slash of an id is encoded
        response = await threads.client.get(f"/v1/threads/{path}")
        assert (response.status_code, response.json()["code"]) == (404, "no_such_route")
    response = await threads.client.delete("/v1/threads/a/messages")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


BAD_APPENDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    (
        {
            "messages": [{"role": "nobody", "content": "x"}],
            "manager_config": VERBATIM,
            "variables": {"user_id": "alice"},
        },
        "messages[0].role",
    ),
    ({"after_seconds": -1}, "after_seconds"),
    ({"after_seconds": 86_401}, "after_seconds"),
    ({"messages": [says("a\x00")]}, "messages[0]"),
    ({"namespace": []}, "namespace"),
    ({"whatever": 1}, "whatever"),
    ({"manager_config": {"strategy": "verbatim"}}, "namespace"),
]


async def test_bad_appends_are_refused_and_nothing_is_kept(threads: Threads) -> None:
    for body, field in BAD_APPENDS:
        sent = {"messages": [says("a")], **body}
        problem = await threads.call("POST", "t", "/messages", status=422, json=sent)
        assert problem["errors"][0]["field"] == field, body
    problem = await threads.append("t", "a", status=404, manager="nobody")
    assert problem["code"] == "manager_not_found"
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


async def test_a_thread_is_not_found_without_the_grant_for_its_jobs(
    client: httpx2.AsyncClient, keys: KeyService
) -> None:
    alice = await with_key(client, keys, Grant(("users", "alice"), frozenset(Verb)))
    bob = await with_key(client, keys, Grant(("users", "bob"), frozenset(Verb)))
    await alice.form("t", "a")
    for call in (bob.get, bob.messages, bob.flush, bob.delete):
        assert (await call("t", status=404))["code"] == "thread_not_found"
    assert (await bob.append("t", "b", status=403))["code"] == "forbidden"
    for missing in (Verb.JOBS, Verb.READ, Verb.WRITE):  # what the job does
        limited = await with_key(client, keys, Grant((), frozenset(Verb) - {missing}))
        assert (await limited.form("t", "b", status=403))["code"] == "forbidden"
        assert (await limited.append("t", "b", status=403))["code"] == "forbidden"
    assert await alice.texts("t") == ["a"]
