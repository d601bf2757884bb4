"""Every route that needs a key: a request that it accepts, and the verb it takes."""

from typing import Any

import httpx2

from app.auth.access import Verb

PLACE = {"namespace": ["users", "alice"], "key": "food"}
QUERY = {"namespace": "users.alice", "key": "food"}

Route = tuple[str, str, Verb, dict[str, Any]]


def _route(line: str, verb: Verb, **request: Any) -> Route:
    method, path = line.split()
    return method, path, verb, request


_MESSAGES = {"messages": [["user", "I love ramen."]]}
_EXTRACTION = {
    **_MESSAGES,
    "manager_config": {"strategy": "verbatim"},
    "namespace": ["users", "alice"],
}
_KINDS = {"kinds": [{"name": "memory"}]}
_BATCH = {"operations": [{"op": "get", **PLACE}]}
_CONSOLIDATION = {"namespace": ["users", "alice"], "strategy": "duplicates"}
_OPTIMIZATION = {"prompt": {"name": "support", "text": "Help."}, "trajectories": []}
_CALL = {"arguments": {"query": "food"}, "namespace": ["users", "alice"]}
_PRODUCTION = {"label": "production"}

_READ, _WRITE, _DELETE, _JOBS, _ADMIN = Verb.READ, Verb.WRITE, Verb.DELETE, Verb.JOBS, Verb.ADMIN

REQUESTS: dict[str, Route] = {
    "put_item": _route("PUT /v1/store/items", _WRITE, json={**PLACE, "value": {"a": 1}}),
    "patch_item": _route("PATCH /v1/store/items", _WRITE, json={**PLACE, "value": {"b": 2}}),
    "restore_item": _route("POST /v1/store/items/restore", _WRITE, json={**PLACE, "version": 1}),
    "retry_jobs": _route("POST /v1/jobs/retry", _JOBS, json={}),
    "get_item": _route("GET /v1/store/items", _READ, params=QUERY),
    "list_item_versions": _route("GET /v1/store/items/versions", _READ, params=QUERY),
    "search_items": _route(
        "POST /v1/store/items/search", _READ, json={"namespace_prefix": ["users"]}
    ),
    "list_namespaces": _route("POST /v1/store/namespaces", _READ, json={"prefix": ["users"]}),
    "run_batch": _route("POST /v1/store/batch", _READ, json=_BATCH),
    "delete_item": _route("DELETE /v1/store/items", _DELETE, json=PLACE),
    "put_manager": _route("PUT /v1/managers/notes", _ADMIN, json=_KINDS),
    "get_manager": _route("GET /v1/managers/notes", _READ),
    "list_managers": _route("GET /v1/managers", _READ),
    "extract_memories": _route("POST /v1/jobs/extract", _JOBS, json=_EXTRACTION),
    "consolidate_memories": _route("POST /v1/jobs/consolidate", _JOBS, json=_CONSOLIDATION),
    "summarize_conversation": _route(
        "POST /v1/jobs/summarize", _JOBS, json={**_MESSAGES, "max_tokens": 1000}
    ),
    "optimize_prompt": _route("POST /v1/jobs/optimize-prompt", _JOBS, json=_OPTIMIZATION),
    "append_messages": _route("POST /v1/threads/chat/messages", _JOBS, json=_EXTRACTION),
    "list_jobs": _route("GET /v1/jobs", _JOBS, params={"namespace": "users"}),
    "list_tools": _route("GET /v1/tools", _READ, params={"namespace": "users.alice"}),
    "call_tool": _route("POST /v1/tools/search_memory", _READ, json=_CALL),
    "put_prompt": _route("PUT /v1/prompts/support", _ADMIN, json={"text": "Be brief."}),
    "promote_prompt": _route("POST /v1/prompts/support/promote", _ADMIN, json={"version": 1}),
    "get_prompt": _route("GET /v1/prompts/support", _READ, params=_PRODUCTION),
    "list_prompts": _route("GET /v1/prompts", _READ),
    "list_prompt_versions": _route("GET /v1/prompts/support/versions", _READ),
    "diff_prompt": _route("GET /v1/prompts/support/diff", _READ),
    "delete_prompt_label": _route("DELETE /v1/prompts/support/labels/beta", _ADMIN),
    "delete_prompt": _route("DELETE /v1/prompts/support", _ADMIN),
    "delete_manager": _route("DELETE /v1/managers/notes", _ADMIN),
    "read_metrics": _route("GET /metrics", Verb.METRICS),
}
"""In an order in which each succeeds after those before it."""

ANYWHERE = {"get_prompt", "list_prompts", "list_prompt_versions", "diff_prompt"}
"""Routes that take their verb in any namespace that it is granted in."""

_RUN = {
    "assistant_id": "notes",
    "input": {"messages": [["user", "I love ramen."]]},
    "config": {"configurable": {"namespace": ["users", "alice"]}},
    "if_not_exists": "create",
}

_SEARCH = {"manager": "none", **_MESSAGES}

_THREAD, _JOB = "/v1/threads/chat", "/v1/jobs/job_0"

HIDDEN: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "create_thread_run": ("POST", f"{_THREAD}/runs", "manager_not_found", {"json": _RUN}),
    "create_run": ("POST", "/v1/runs", "manager_not_found", {"json": _RUN}),
    "flush_thread": ("POST", f"{_THREAD}/flush", "thread_not_found", {}),
    "get_thread": ("GET", _THREAD, "thread_not_found", {}),
    "list_messages": ("GET", f"{_THREAD}/messages", "thread_not_found", {}),
    "list_message_memories": (
        *("GET", f"{_THREAD}/memories", "thread_not_found"),
        {"params": {"message_id": "none"}},
    ),
    "delete_thread": ("DELETE", _THREAD, "thread_not_found", {}),
    "get_job": ("GET", _JOB, "job_not_found", {}),
    "follow_job": ("GET", f"{_JOB}/events", "job_not_found", {}),
    "cancel_job": ("POST", f"{_JOB}/cancel", "job_not_found", {}),
    "retry_job": ("POST", f"{_JOB}/retry", "job_not_found", {}),
    "list_job_changes": ("GET", f"{_JOB}/changes", "job_not_found", {}),
    "apply_job": ("POST", f"{_JOB}/apply", "job_not_found", {}),
    "discard_job": ("POST", f"{_JOB}/discard", "job_not_found", {}),
    "undo_job": ("POST", f"{_JOB}/undo", "job_not_found", {}),
    "search_memories": ("POST", "/v1/jobs/search", "manager_not_found", {"json": _SEARCH}),
    "rollback_prompt": (
        *("POST", "/v1/prompts/none/rollback", "prompt_not_found"),
        {"json": {}},
    ),
}
"""Routes about something that must exist, with the code of the 404 of callers without access."""


async def call(
    client: httpx2.AsyncClient, operation: str, headers: dict[str, str] | None = None
) -> httpx2.Response:
    method, path, _, request = {**REQUESTS, **HIDDEN}[operation]
    return await client.request(method, path, headers=headers, **request)
