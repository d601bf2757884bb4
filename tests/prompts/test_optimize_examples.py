import pytest
from jsonschema_rs import meta

from tests.prompts.make_examples import DIRECTORY, EXAMPLES, render_example, requests


@pytest.mark.parametrize("name", EXAMPLES)
def test_texts_sent_to_models_are_pinned(name: str) -> None:
    pinned = (DIRECTORY / f"{name}.md").read_text(encoding="utf-8")
    assert render_example(name) == pinned, "`python -m tests.prompts.make_examples` rewrites it"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_request_forces_a_call_of_a_described_tool(name: str) -> None:
    for request in requests(name):
        assert request.tool_choice == "any"
        for tool in request.tools:
            assert tool.description
            meta.validate(tool.parameters)
            arguments = tool.parameters["properties"]
            assert all(argument["description"] for argument in arguments.values())
            assert tool.parameters["required"] == list(arguments)
