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

import pytest

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


def test_every_answer_is_as_documented_and_no_job_meets_an_internal_error(
    working_server: Server, tmp_path: Path
) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    command = f"--config-file {configuration} run {OPENAPI} --url {working_server.url} --no-color"
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
    with urlopen(f"{working_server.url}/v1/jobs?state=failed&limit=200") as answer:  # noqa: S310
        errors = [job["error"] for job in json.load(answer)["jobs"]]
    assert [error for error in errors if error["code"] == "internal_error"] == []
