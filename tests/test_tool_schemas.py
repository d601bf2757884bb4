"""Every tool that is sent or published satisfies the rules of all providers at the same time."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

import app
from app.cli import model_checks
from app.conversations.kinds import BUILT_IN
from app.conversations.memories import Memory
from app.extraction import retrieval
from app.extraction.prompt import build_tools
from app.prompts import coverage, evaluation, optimizer_answers, optimizers
from app.prompts.types import TargetPrompt
from app.providers.llm import Tool
from app.threads import summary_task
from app.tools.service import TOOLS
from app.tools.tool import ACTIONS, Format, ToolOptions
from tests.support.scripted_model import ALL_ROOTS, task

JSON = dict[str, Any]
Node = tuple[str, Any]

ROOT = Path(app.__file__).parent

CLIENTS_SCHEMA: JSON = {
    "type": "object",
    "properties": {
        "who": {"$ref": "#/$defs/Person", "description": "The guest."},
        "nights": {"enum": [1, 2, 3, 7]},
        "meal": {"enum": ["", "half", "full"]},
        "rate": {"type": ["number", "null"], "minimum": 0},
        "paid": {"const": "yes"},
        "notes": {"items": {"type": "string"}},
        "bed": {
            "oneOf": [
                {"type": "string", "enum": ["twin", "double"]},
                {"type": "integer", "exclusiveMinimum": 0},
            ]
        },
        "child": {"allOf": [{"$ref": "#/$defs/Person"}], "default": None},
    },
    "required": ["who"],
    "additionalProperties": False,
    "$defs": {
        "Person": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "vip": {"type": ["boolean", "null"]}},
            "additionalProperties": False,
        }
    },
}
"""A kind that a client might define, in forms that one provider or another refuses."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

LLAMA_FORMATS = {"date", "time", "date-time", "uuid"}
LLAMA_REPETITIONS = 2_000
KNOWN = {
    *("type", "description", "title", "default", "properties", "required", "items", "enum"),
    *("anyOf", "additionalProperties", "format", "minimum", "maximum", "pattern"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
}
"""Keywords that Gemini's schemas have."""


def extraction_tools() -> list[Tool]:
    built_in = list(BUILT_IN.values())
    own = replace(BUILT_IN["memory"], name="Stay", schema=CLIENTS_SCHEMA)
    memories = [Memory("m1", "memory", {"content": "Ana has a cat."}), Memory("m2", None, {})]
    given = task(*memories, kinds=[*built_in, own], rights=ALL_ROOTS)
    return [*build_tools(given, memories, first_step=False)]


def choice_tool() -> Tool:
    prompts = [TargetPrompt(name=name, text="Be kind.") for name in ("a", "b")]
    tool: Tool = vars(optimizers)["_choice_tool"](prompts)
    return tool


def constants(module: ModuleType) -> list[Tool]:
    return [tool for tool in vars(module).values() if isinstance(tool, Tool)]


SENT: dict[str, Callable[[], list[Tool]]] = {
    "app.cli.model_checks": lambda: constants(model_checks),
    "app.extraction.prompt": extraction_tools,
    "app.extraction.retrieval": lambda: constants(retrieval),
    "app.prompts.coverage": lambda: constants(coverage),
    "app.prompts.evaluation": lambda: constants(evaluation),
    "app.prompts.optimizer_answers": lambda: [*optimizer_answers.THINKING],
    "app.prompts.optimizers": lambda: [choice_tool(), *constants(optimizers)],
    "app.threads.summary_task": lambda: [vars(summary_task)["_record_tool"](CLIENTS_SCHEMA)],
}
"""Each module that makes tools for models, and its tools."""


def modules_that_make_tools() -> list[str]:
    made = re.compile(r"(?<![\w.])(?<!class )(?<!def )(?:Tool|define_tool)\(")
    files = [file for file in ROOT.rglob("*.py") if made.search(file.read_text())]
    return sorted(
        ".".join(["app", *file.relative_to(ROOT).with_suffix("").parts]) for file in files
    )


def published() -> Iterator[tuple[str, JSON]]:
    """Yield the name and parameters of every definition in every format."""
    for kind in (None, *BUILT_IN.values(), replace(BUILT_IN["memory"], schema=CLIENTS_SCHEMA)):
        for actions in (ACTIONS, ("create",), ("update", "delete")):
            for is_confined in (True, False):
                options = ToolOptions(kind=kind, actions=actions, is_confined=is_confined)
                for tool in TOOLS:
                    definition = tool.definition(options)
                    assert definition is not None
                    for form in get_args(Format):
                        shown = definition.in_format(form)
                        given = shown.get("function", shown)
                        for member in ("parameters", "input_schema", "inputSchema"):
                            if member in given:
                                yield f"{form} {given['name']}", given[member]


def nodes(schema: Any, place: str = "") -> Iterator[Node]:
    """Yield every schema in a schema, with its place."""
    yield place, schema
    if not isinstance(schema, dict):
        return
    for keyword in ("properties", "patternProperties", "$defs", "dependentSchemas"):
        for name, part in schema.get(keyword, {}).items():
            yield from nodes(part, f"{place}/{name}")
    for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for number, part in enumerate(schema.get(keyword, ())):
            yield from nodes(part, f"{place}/{keyword}{number}")
    for keyword in ("items", "additionalProperties", "not", "if", "then", "else", "contains"):
        if keyword in schema and not isinstance(schema[keyword], bool):
            yield from nodes(schema[keyword], f"{place}/{keyword}")


def llama(node: JSON) -> bool:
    pattern = node.get("pattern", "^$")
    sizes = [node.get(name, 0) for name in ("maxLength", "minLength", "maxItems", "minItems")]
    return (
        ("type" in node or "anyOf" in node)
        and pattern.startswith("^")
        and pattern.endswith("$")
        and node.get("format", "date") in LLAMA_FORMATS
        and max(sizes) <= LLAMA_REPETITIONS
    )


RULES: dict[str, Callable[[JSON], bool]] = {
    "OpenAI, strict: closed objects": lambda node: (
        node.get("type") != "object" or node.get("additionalProperties") is False
    ),
    "OpenAI: lists say what their items are": lambda node: (
        node.get("type") != "array" or "items" in node
    ),
    "OpenAI: required members are listed": lambda node: (
        set(node.get("required", ())) <= node.get("properties", {}).keys()
    ),
    "Gemini: one type": lambda node: isinstance(node.get("type", ""), str),
    "Gemini: a type, or only choices": lambda node: (
        ("type" in node) if "anyOf" not in node else node.keys() == {"anyOf"}
    ),
    "Gemini: enums of texts": lambda node: (
        "enum" not in node
        or (node.get("type") == "string" and all(isinstance(v, str) and v for v in node["enum"]))
    ),
    "Gemini: objects have members": lambda node: (
        node.get("type") != "object" or bool(node.get("properties"))
    ),
    "Gemini: known keywords": lambda node: node.keys() <= KNOWN,
    "Mistral: texts as descriptions": lambda node: isinstance(node.get("description", ""), str),
    "llama.cpp: what grammars express": llama,
}
"""The rules of each provider for every schema in a tool's parameters."""


def find_problems(name: str, parameters: JSON) -> Iterator[str]:
    if parameters.get("type") != "object" or "anyOf" in parameters:
        yield f"{name}: Anthropic, OpenAI: parameters are an object"
    for place, node in nodes(parameters):
        if not isinstance(node, dict):
            yield f"{name}{place}: llama.cpp: a schema is an object"
            continue
        for rule, holds in RULES.items():
            if not holds(node):
                yield f"{name}{place}: {rule}: {node}"


def test_no_module_that_makes_tools_is_forgotten() -> None:
    assert modules_that_make_tools() == sorted(SENT)


@pytest.mark.parametrize("module", SENT)
def test_tools_that_are_sent_satisfy_every_provider(module: str) -> None:
    tools = SENT[module]()
    assert tools
    for tool in tools:
        assert NAME.fullmatch(tool.name)
        assert list(find_problems(tool.name, tool.parameters)) == []


def test_tools_that_are_published_satisfy_every_provider() -> None:
    definitions = list(published())
    names = {name.split()[1] for name, _ in definitions}
    assert names == {tool.name for tool in TOOLS}
    problems = [problem for one in definitions for problem in find_problems(*one)]
    assert problems == []


@pytest.mark.parametrize(
    "node",
    [
        *({"description": "Anything."}, {"type": ["string", "null"]}, {"type": "array"}),
        *({"type": "object"}, {"type": "integer", "enum": [1]}, {"$ref": "#/$defs/A"}, True),
        {"type": "string", "pattern": "a"},
        {"anyOf": [{"type": "string"}], "default": None},
    ],
)
def test_the_rules_find_what_providers_refuse(node: Any) -> None:
    closed = {"type": "object", "properties": {"x": node}, "additionalProperties": False}
    assert list(find_problems("tool", closed))
