"""LangMem's thread extractor and memoryd's job that extracts a record of a conversation."""

import pytest
from pydantic import BaseModel

from tests.langmem.decisions import JSON
from tests.langmem.original import ChatModel, SummarizeThread, calling, create_thread_extractor
from tests.langmem.ours import Memoryd
from tests.langmem.parity import TALK
from tests.support.llm_server import calls

pytestmark = pytest.mark.slow  # each waits for workers or models


class Step(BaseModel):
    what: str
    is_done: bool


class Plan(BaseModel):
    goal: str
    steps: list[Step]
    mood: str | None = None


PLAN = {"goal": "Tea in Lisbon", "steps": [{"what": "find a shop", "is_done": True}], "mood": None}
TITLE = {"title": "Ana in Lisbon", "summary": "Ana moved to Lisbon and found a tea shop."}


@pytest.mark.parametrize(("schema", "record"), [(None, TITLE), (Plan, PLAN)])
async def test_a_conversation_is_recorded_by_a_schema(
    memoryd: Memoryd, schema: type[BaseModel] | None, record: JSON
) -> None:
    name = (schema or SummarizeThread).__name__
    model = ChatModel(respond=lambda _: calling((name, record)))
    by_theirs = await create_thread_extractor(model, schema=schema).ainvoke({"messages": TALK})

    memoryd.llm.script.append(calls(("record", record)))
    body: JSON = {} if schema is None else {"schema": schema.model_json_schema()}
    job = await memoryd.job("summarize", mode="extract", messages=TALK, **body)
    assert job["result"]["content"] == by_theirs.model_dump(mode="json") == record
