"""Every route under hostile and random requests, judged by the OpenAPI document.

Runs schemathesis with all of its checks, the same requests each time. More of them, and others:
MEMORYD_FUZZ_EXAMPLES=1000 MEMORYD_FUZZ_SEED=7 pytest tests/http/test_fuzz.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pytest

from app.http.problems import MEDIA_TYPE
from tests.support.server import Server, clean_environment

pytestmark = pytest.mark.slow

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"

OPENAPI = Path(__file__).parents[2] / "openapi.yaml"

EXAMPLES = os.environ.get("MEMORYD_FUZZ_EXAMPLES", "4")

SEED = os.environ.get("MEMORYD_FUZZ_SEED", "1")

# What OpenAPI cannot describe: the server may refuse what the document allows, because of the
# state it is in (412), or because of ttl beside ttl_seconds, valid_from after valid_to, values
# that PostgreSQL cannot hold, the filter language, index paths, and namespaces written as text.
# Of managers and what is sent to them: kinds that are JSON Schemas themselves, a default that fits
# the first, templates and their variables, roles that may stand in `role` or `type`, a model where
# none is configured, fields that exclude one another, and, of threads, the place of the thread.
# A stream of events is described as text, for OpenAPI 3.1 has no schema of an event.
# A batch that is not atomic answers 200 with the problem of each operation. And schemathesis
# itself takes 0 for an entity tag, whatever the header's pattern.
# Of prompts to improve: the settings of each kind, and cases that no model could answer.
# Of tools: the actions that a query names, joined by commas, and a query_model without messages.
# A job that no worker can start soon, such as a thread's, would be waited for up to two minutes.
CONFIGURATION = """
[parameters]
"header.Prefer" = "wait=1"

[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 404, 409, 412]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 406, 422, 428, 431, "5xx"]

[[operations]]
include-operation-id = [
    "put_item", "patch_item", "run_batch", "search_items", "get_item", "list_item_versions",
    "delete_item", "restore_item", "put_manager", "delete_manager", "extract_memories",
    "consolidate_memories", "summarize_conversation", "append_messages", "create_run",
    "create_thread_run", "list_jobs", "list_tools", "call_tool", "search_memories", "get_prompt",
    "put_prompt", "promote_prompt", "rollback_prompt", "delete_prompt", "delete_prompt_label",
    "list_prompt_versions", "diff_prompt", "optimize_prompt",
]
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "run_batch"
checks.negative_data_rejection.enabled = false

[[operations]]
include-operation-id = "follow_job"
checks.response_schema_conformance.enabled = false
"""


@pytest.fixture(scope="module")
def server(working_server: Server) -> Server:
    """A server that does the jobs it is given."""
    return working_server


def test_every_answer_is_as_documented_and_no_job_meets_a_mistake_of_ours(
    server: Server, tmp_path: Path
) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    command = f"--config-file {configuration} run {OPENAPI} --url {server.url} --no-color"
    options = f"--max-examples {EXAMPLES} --seed {SEED} --generation-database none"
    done = subprocess.run(
        [SCHEMATHESIS, *command.split(), *options.split(), "--continue-on-failure"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert f"Tested: {OPENAPI.read_text().count('operationId:')}\n" in done.stdout
    with urlopen(f"{server.url}/v1/jobs?state=failed&limit=200") as answer:  # noqa: S310
        errors = [job["error"] for job in json.load(answer)["jobs"]]
    assert [error for error in errors if error["code"] == "internal_error"] == []


ITEM = '{"namespace": ["a"], "key": "k", "value": {"v": %s}}'

DETAIL = '{"namespace": ["a"], "key": "k", "value": {}, %s}'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param("", 422, id="nothing"),
        pytest.param("null", 422, id="null"),
        pytest.param("[]", 422, id="a list"),
        pytest.param('{"namespace":', 422, id="cut off"),
        pytest.param(b'{"namespace": ["a"], "key": "\xff", "value": {}}', 422, id="not UTF-8"),
        pytest.param(ITEM % ("[" * 100_000 + "]" * 100_000), 422, id="too many values"),
        pytest.param(ITEM % ("[" * 65 + "]" * 65), 422, id="nested too deep"),
        pytest.param(ITEM % ("9" * 5_000), 422, id="an integer beyond parsing"),
        pytest.param(ITEM % ("9" * 1_001), 422, id="an integer too long"),
        pytest.param(ITEM % "1e999", 422, id="infinity"),
        pytest.param(ITEM % "NaN", 422, id="not a number"),
        pytest.param(ITEM % '"\\ud800"', 422, id="half a surrogate pair"),
        pytest.param(ITEM % '"\\u0000"', 422, id="NUL"),
        pytest.param(ITEM % '{"\\u0000": 1}', 422, id="NUL in a key"),
        pytest.param(DETAIL % '"importance": true', 422, id="a truth value for a number"),
        pytest.param(DETAIL % '"ttl": "5"', 422, id="text for a number"),
        pytest.param(DETAIL % '"ttl": 1e-999', 422, id="a lifetime of zero"),
        pytest.param(DETAIL % '"valid_from": 0', 422, id="a number for a time"),
        pytest.param(DETAIL % '"valid_from": "1700000000"', 422, id="seconds for a time"),
        pytest.param(DETAIL % '"valid_from": "0001-01-01T00:00:00+01:00"', 422, id="before year 1"),
        pytest.param(DETAIL % '"valid_to": "9999-12-31T23:59:59-01:00"', 422, id="after year 9999"),
    ],
)
async def test_a_hostile_item_is_refused(
    client: httpx2.AsyncClient, body: str | bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.put("/v1/store/items", content=body, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.json()["status"] == status


@pytest.mark.parametrize(
    "query",
    [
        "namespace=a",
        "namespace=a&key=%00",
        "namespace=%00&key=k",
        "namespace=a..b&key=k",
        "namespace=%5B%22%5Cud800%22%5D&key=k",
        "namespace=" + "%5B" * 5_000 + "&key=k",
        "namespace=a&key=" + "k" * 513,
        "namespace=a&key=k&refresh_ttl=maybe",
        "namespace=a&key=k&as_of=9999-12-31T23:59:59-01:00",
        "namespace=a&key=k&%00=1",
    ],
)
async def test_a_hostile_query_string_is_refused(client: httpx2.AsyncClient, query: str) -> None:
    response = await client.get(f"/v1/store/items?{query}")
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize(
    "path",
    [
        "/v1/threads/t/messages?cursor=9223372036854775807",
        "/v1/threads/t/messages?cursor=-1",
        "/v1/threads/%00",
        "/v1/jobs/job_0/changes?cursor=9007199254740991",
        "/v1/jobs?cursor=%00",
        "/v1/jobs?limit=1e9",
        "/v1/managers?cursor=%00",
    ],
)
async def test_a_hostile_path_or_cursor_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 422, response.text
    assert response.json()["code"] == "invalid_request"


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "TRACE", "POST", "ANYTHING"])
async def test_a_method_there_is_not_is_answered_with_those_there_are(
    client: httpx2.AsyncClient, method: str
) -> None:
    response = await client.request(method, "/v1/store/items")
    assert response.status_code == 405
    assert response.headers["allow"] == "DELETE, GET, PATCH, PUT"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs/extract", "POST"),
        ("/v1/jobs/one", "GET"),
        ("/v1/threads/a%2Fb", "DELETE, GET"),
        ("/v1/threads/a%2Fmessages", "DELETE, GET"),
        ("/v1/threads/a%2Fb/messages", "GET, POST"),
        ("/v1/%6Aobs/one", "GET"),
    ],
)
async def test_the_methods_are_those_of_the_route_that_the_path_means(
    client: httpx2.AsyncClient, path: str, allowed: str
) -> None:
    response = await client.put(path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
