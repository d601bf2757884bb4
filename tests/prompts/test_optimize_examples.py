import pytest
from jsonschema_rs import meta

from tests.prompts.make_examples import DIRECTORY, EXAMPLES, requests, shown


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_models_are_sent_is_as_pinned(name: str) -> None:
    pinned = (DIRECTORY / f"{name}.md").read_text(encoding="utf-8")
    assert shown(name) == pinned, "`python -m tests.prompts.make_examples` rewrites it"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_tool_is_explained_and_all_of_it_is_asked_for(name: str) -> None:
    for tool in (tool for request in requests(name) for tool in request.tools):
        assert tool.description
        meta.validate(tool.parameters)
        arguments = tool.parameters["properties"]
        assert all(argument["description"] for argument in arguments.values())
        assert tool.parameters["required"] == list(arguments)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_call_is_asked_for_whatever_the_model_can_be_made_to_do(name: str) -> None:
    assert {request.tool_choice for request in requests(name)} == {"any"}
