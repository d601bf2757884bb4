import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.providers.errors import UnavailableError
from app.providers.llm.base import Message, Request, Tool, ToolResult
from app.providers.llm.openai_chat import ChatLLM
from tests.support.llm_server import by_rules, llm_server
from tests.support.server import free_port

SAVE = Tool("save", "Save a memory.", {"type": "object"})
RULES: list[dict[str, Any]] = [
    {
        "when": {"tool": "save", "contains": "tea"},
        "reply": {"calls": [{"name": "save", "arguments": {"text": "tea"}}]},
    },
    {"when": {"contains": "hello"}, "reply": {"text": "Hi."}},
]


def asking(text: str, *tools: Tool) -> Request:
    return Request("", (Message("user", text),), tools=tools)


async def test_the_first_rule_that_fits_answers() -> None:
    async with llm_server() as server:
        server.respond = by_rules(RULES)
        llm = ChatLLM("m", base_url=server.base_url_openai)
        called = await llm.complete(asking("hello, I like tea", SAVE))
        assert [(call.name, call.arguments) for call in called.calls] == [("save", {"text": "tea"})]
        assert (await llm.complete(asking("hello, I like tea"))).text == "Hi."
        assert (await llm.complete(asking("I like tea"))).text == "Nothing to do."
        result = Message("user", results=(ToolResult(called.calls[0].id, "saved tea"),))
        said = (*asking("tea").messages, called.message, result)
        assert (await llm.complete(Request("", said, tools=(SAVE,)))).text == "Nothing to do."
        await llm.aclose()


async def test_a_rule_may_name_a_memory_by_its_text() -> None:
    call = {"name": "forget", "arguments": {"id": "the one with Rome"}}
    async with llm_server() as server:
        server.respond = by_rules([{"reply": {"calls": [call]}}])
        llm = ChatLLM("m", base_url=server.base_url_openai)
        shown = '<memory id="m1" kind="memory">Oslo</memory>\n<memory id="m2">Rome</memory>'
        assert (await llm.complete(asking(shown, SAVE))).calls[0].arguments == {"id": "m2"}
        assert (await llm.complete(asking("", SAVE))).calls[0].arguments == {"id": "Rome"}
        await llm.aclose()


@pytest.mark.slow
async def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps(RULES))
    port = free_port()
    command = [sys.executable, "-m", "tests.support.llm_server", "--port", str(port)]
    process = subprocess.Popen([*command, "--script", str(script), "--delay-ms", "50"])  # noqa: ASYNC220
    llm = ChatLLM("m", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
    try:
        assert await answer_when_up(llm) == "Hi."
        began = asyncio.get_running_loop().time()
        await llm.complete(asking("hello"))
        assert asyncio.get_running_loop().time() - began >= 0.05
    finally:
        await llm.aclose()
        process.terminate()
        process.wait(10)


async def answer_when_up(llm: ChatLLM) -> str:
    for _ in range(200):
        try:
            return (await llm.complete(asking("hello"))).text
        except UnavailableError:
            await asyncio.sleep(0.05)
    raise AssertionError("no answer within 10 s")
