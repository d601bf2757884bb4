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
    "retry_jobs": ("POST", "/v1/jobs/retry", Verb.JOBS, {"json": {}}),
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
    "put_manager": (
        "PUT",
        "/v1/managers/notes",
        Verb.ADMIN,
        {"json": {"kinds": [{"name": "memory"}]}},
    ),
    "get_manager": ("GET", "/v1/managers/notes", Verb.READ, {}),
    "list_managers": ("GET", "/v1/managers", Verb.READ, {}),
    "extract_memories": (
        "POST",
        "/v1/jobs/extract",
        Verb.JOBS,
        {
            "json": {
                "manager_config": {"strategy": "verbatim"},
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
    "optimize_prompt": (
        "POST",
        "/v1/jobs/optimize-prompt",
        Verb.JOBS,
        {"json": {"prompt": {"name": "support", "text": "Help."}, "trajectories": []}},
    ),
    "append_messages": (
        "POST",
        "/v1/threads/chat/messages",
        Verb.JOBS,
        {
            "json": {
                "manager_config": {"strategy": "verbatim"},
                "namespace": ["users", "alice"],
                "messages": [["user", "I love ramen."]],
            }
        },
    ),
    "list_jobs": ("GET", "/v1/jobs", Verb.JOBS, {"params": {"namespace": "users"}}),
    "list_tools": ("GET", "/v1/tools", Verb.READ, {"params": {"namespace": "users.alice"}}),
    "call_tool": (
        "POST",
        "/v1/tools/search_memory",
        Verb.READ,
        {"json": {"arguments": {"query": "food"}, "namespace": ["users", "alice"]}},
    ),
    "put_prompt": ("PUT", "/v1/prompts/support", Verb.ADMIN, {"json": {"text": "Be brief."}}),
    "promote_prompt": ("POST", "/v1/prompts/support/promote", Verb.ADMIN, {"json": {"version": 1}}),
    "get_prompt": ("GET", "/v1/prompts/support", Verb.READ, {"params": {"label": "production"}}),
    "list_prompts": ("GET", "/v1/prompts", Verb.READ, {}),
    "list_prompt_versions": ("GET", "/v1/prompts/support/versions", Verb.READ, {}),
    "diff_prompt": ("GET", "/v1/prompts/support/diff", Verb.READ, {}),
    "delete_prompt_label": ("DELETE", "/v1/prompts/support/labels/beta", Verb.ADMIN, {}),
    "delete_prompt": ("DELETE", "/v1/prompts/support", Verb.ADMIN, {}),
    "delete_manager": ("DELETE", "/v1/managers/notes", Verb.ADMIN, {}),
    "read_metrics": ("GET", "/metrics", Verb.METRICS, {}),
}
"""In an order in which each succeeds after those before it."""

ANYWHERE = {"get_prompt", "list_prompts", "list_prompt_versions", "diff_prompt"}
"""Those that take their verb in whichever namespace it is granted."""

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
    "search_memories": (
        "POST",
        "/v1/jobs/search",
        "manager_not_found",
        {"json": {"manager": "none", "messages": [["user", "I love ramen."]]}},
    ),
    "rollback_prompt": ("POST", "/v1/prompts/none/rollback", "prompt_not_found", {"json": {}}),
}
"""Routes about a thing that must be there, and what is said (404) to those who do not see it."""


async def call(
    client: httpx2.AsyncClient, operation: str, headers: dict[str, str] | None = None
) -> httpx2.Response:
    method, path, _, request = {**REQUESTS, **HIDDEN}[operation]
    return await client.request(method, path, headers=headers, **request)
