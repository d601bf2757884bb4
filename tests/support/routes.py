"""Every route that needs a key: a request that it accepts, and the verb it takes."""

from typing import Any

import httpx2

from app.auth.access import Verb

PLACE = {"namespace": ["users", "alice"], "key": "food"}
QUERY = {"namespace": "users.alice", "key": "food"}

REQUESTS: dict[str, tuple[str, str, Verb, dict[str, Any]]] = {
    "put_item": ("PUT", "/v1/store/items", Verb.WRITE, {"json": {**PLACE, "value": {"a": 1}}}),
    "patch_item": ("PATCH", "/v1/store/items", Verb.WRITE, {"json": {**PLACE, "value": {"b": 2}}}),
    "restore_item": (
        "POST",
        "/v1/store/items/restore",
        Verb.WRITE,
        {"json": {**PLACE, "version": 1}},
    ),
    "get_item": ("GET", "/v1/store/items", Verb.READ, {"params": QUERY}),
    "list_item_versions": ("GET", "/v1/store/items/versions", Verb.READ, {"params": QUERY}),
    "search_items": (
        "POST",
        "/v1/store/items/search",
        Verb.READ,
        {"json": {"namespace_prefix": ["users"]}},
    ),
    "list_namespaces": (
        "POST",
        "/v1/store/namespaces",
        Verb.READ,
        {"json": {"prefix": ["users"]}},
    ),
    "run_batch": (
        "POST",
        "/v1/store/batch",
        Verb.READ,
        {"json": {"operations": [{"op": "get", **PLACE}]}},
    ),
    "delete_item": ("DELETE", "/v1/store/items", Verb.DELETE, {"json": PLACE}),
    "put_manager": ("PUT", "/v1/managers/notes", Verb.ADMIN, {"json": {"kinds": ["memory"]}}),
    "get_manager": ("GET", "/v1/managers/notes", Verb.JOBS, {}),
    "list_managers": ("GET", "/v1/managers", Verb.JOBS, {}),
    "extract_memories": (
        "POST",
        "/v1/jobs/extract",
        Verb.JOBS,
        {
            "json": {
                "manager": {"strategy": "verbatim"},
                "namespace": ["users", "alice"],
                "messages": [["user", "I love ramen."]],
            }
        },
    ),
    "consolidate_memories": (
        "POST",
        "/v1/jobs/consolidate",
        Verb.JOBS,
        {"json": {"namespace": ["users", "alice"], "strategy": "duplicates"}},
    ),
    "summarize_conversation": (
        "POST",
        "/v1/jobs/summarize",
        Verb.JOBS,
        {"json": {"messages": [["user", "I love ramen."]], "max_tokens": 1000}},
    ),
    "append_messages": (
        "POST",
        "/v1/threads/chat/messages",
        Verb.JOBS,
        {
            "json": {
                "manager": {"strategy": "verbatim"},
                "namespace": ["users", "alice"],
                "messages": [["user", "I love ramen."]],
            }
        },
    ),
    "list_jobs": ("GET", "/v1/jobs", Verb.JOBS, {"params": {"namespace": "users"}}),
    "delete_manager": ("DELETE", "/v1/managers/notes", Verb.ADMIN, {}),
}
"""In an order in which each succeeds after those before it."""

_RUN = {
    "assistant_id": "notes",
    "input": {"messages": [["user", "I love ramen."]]},
    "config": {"configurable": {"namespace": ["users", "alice"]}},
    "if_not_exists": "create",
}

HIDDEN: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "create_thread_run": (
        "POST",
        "/v1/threads/chat/runs",
        "manager_not_found",
        {"json": _RUN},
    ),
    "create_run": ("POST", "/v1/runs", "manager_not_found", {"json": _RUN}),
    "flush_thread": ("POST", "/v1/threads/chat/flush", "thread_not_found", {}),
    "get_thread": ("GET", "/v1/threads/chat", "thread_not_found", {}),
    "list_messages": ("GET", "/v1/threads/chat/messages", "thread_not_found", {}),
    "delete_thread": ("DELETE", "/v1/threads/chat", "thread_not_found", {}),
    "get_job": ("GET", "/v1/jobs/job_0", "job_not_found", {}),
    "follow_job": ("GET", "/v1/jobs/job_0/events", "job_not_found", {}),
    "cancel_job": ("POST", "/v1/jobs/job_0/cancel", "job_not_found", {}),
    "retry_job": ("POST", "/v1/jobs/job_0/retry", "job_not_found", {}),
    "list_job_changes": ("GET", "/v1/jobs/job_0/changes", "job_not_found", {}),
    "apply_job": ("POST", "/v1/jobs/job_0/apply", "job_not_found", {}),
    "discard_job": ("POST", "/v1/jobs/job_0/discard", "job_not_found", {}),
    "undo_job": ("POST", "/v1/jobs/job_0/undo", "job_not_found", {}),
}
"""Routes about a thing that must be there, and what is said (404) to those who do not see it."""


async def call(
    client: httpx2.AsyncClient, operation: str, headers: dict[str, str] | None = None
) -> httpx2.Response:
    method, path, _, request = {**REQUESTS, **HIDDEN}[operation]
    return await client.request(method, path, headers=headers, **request)
