"""No request makes the server fail."""

import json
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.tools.service import MEMORY_TOOLS
from tests.support.mcp_client import HERE

pytestmark = pytest.mark.slow

TEXTS = st.text(max_size=8) | st.sampled_from(["\x00", "\ud800", "memories", "a/%00", "$eq", "{"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = ["text", "id", "query", "namespace", "filter", "limit", "prefix", "importance", "cursor"]
ARGUMENTS = st.dictionaries(st.sampled_from(NAMES) | TEXTS, ANYTHING | TEXTS, max_size=4)
REQUESTS = st.one_of(
    st.builds(
        lambda tool, arguments: ("tools/call", {"name": tool, "arguments": arguments}),
        st.sampled_from([tool.name for tool in MEMORY_TOOLS]) | TEXTS,
        ARGUMENTS,
    ),
    st.tuples(st.just("resources/list"), st.builds(lambda text: {"cursor": text}, TEXTS)),
    st.tuples(st.just("resources/read"), st.builds(lambda text: {"uri": text}, TEXTS)),
    st.tuples(st.just("prompts/list"), st.builds(lambda text: {"cursor": text}, TEXTS)),
    st.tuples(
        st.just("prompts/get"),
        st.builds(lambda name, given: {"name": name, "arguments": given}, TEXTS, ARGUMENTS),
    ),
    st.tuples(st.sampled_from(["tools/list", "initialize", "ping", "x"]), ARGUMENTS),
)
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@hypothesis_settings(max_examples=150)
@given(version=st.sampled_from(["2025-11-25", "2026-07-28"]), request_=REQUESTS)
async def test_requests_of_every_kind(
    client: httpx2.AsyncClient, version: str, request_: tuple[str, dict[str, Any]]
) -> None:
    method, params = request_
    headers = {"content-type": "application/json", "mcp-protocol-version": version}
    if version == "2026-07-28":
        params = {**params, "_meta": ENVELOPE}
        headers["mcp-method"] = method
        name = params.get("name") or params.get("uri")
        if isinstance(name, str) and name.isascii() and name.isprintable():
            headers["mcp-name"] = name
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    response = await client.post(HERE, headers=headers, content=body)
    assert response.status_code in {200, 400, 404}, response.text
    answer = response.json()
    assert "failed" not in json.dumps(answer), answer
    assert answer.get("error", {}).get("code") != -32603, answer
