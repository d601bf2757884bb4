"""A tool that a model can call: its definition, arguments, mistakes, context, and result."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Literal, Protocol, Self, TypeAlias, TypeVar, assert_never

from pydantic import ValidationError

from app.auth.access import Access, Verb
from app.conversations.kinds import Kind
from app.conversations.messages import ConversationMessage
from app.conversations.prompt_text import Templates
from app.errors import NotFoundError, invalid_request, list_errors
from app.json_values import (
    JsonObject,
    JsonText,
    UnstorableError,
    check_storable,
    check_values,
    parse_json,
)
from app.namespaces import InvalidNamespaceError, Labels, check_labels
from app.resources import Resources
from app.store.types import Ttl, source_text

ResultT = TypeVar("ResultT")

_MAX_VALUES = 50_000

_SHOWN_CHARACTERS = 200
"""Maximum characters of unreadable arguments in a message."""

TEMPLATES = Templates("app.tools")

Action: TypeAlias = Literal["create", "update", "delete"]

ACTIONS: tuple[Action, ...] = ("create", "update", "delete")

Toolset: TypeAlias = Literal["agents", "mcp"]
"""The clients of a tool: programs that run an agent (`/v1/tools`), or MCP clients."""

Format: TypeAlias = Literal["openai", "openai_responses", "anthropic", "mcp"]


class ToolError(Exception):
    """A model's mistake; the message is for the model and says how to call the tool instead."""


class MemoryNotFoundError(ToolError):
    """No memory that the caller can see has this id."""

    def __init__(self, memory: str) -> None:
        super().__init__(
            f"There is no memory {json.dumps(memory[:200], ensure_ascii=False)}. Take an id as "
            "search_memories returns it; or the memory was forgotten meanwhile."
        )


class ToolNotFoundError(NotFoundError):
    """No tool has this name."""

    code = "tool_not_found"
    title = "Tool not found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f'There is no tool "{name}"; there are {", ".join(known)}. '
            "Send each call of your model to the tool that it names."
        )


def read_arguments(sent: object) -> JsonObject:
    """Return a model's arguments, which it may omit if it has none; raises ToolError."""
    arguments = _parse(sent) if isinstance(sent, str) else sent
    if arguments is None:
        return {}
    try:
        check_storable(arguments, "arguments")
    except UnstorableError as error:
        raise ToolError(f"Nothing was done: {error}.") from error
    if not isinstance(arguments, dict):
        raise _unreadable("not a JSON object", json.dumps(arguments))
    return arguments


def any_of(choices: Sequence[str]) -> str:
    """Return choices as a phrase, such as "create, update or delete"."""
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def describe_mistakes(error: ValidationError, *, is_tagged: bool = False) -> str:
    """Return the problem with each argument; `is_tagged`: they are validated as a tagged union."""
    above = () if is_tagged else ("arguments",)
    found = [{**one, "loc": (*above, *one["loc"])} for one in list_errors(error)]
    named = invalid_request(found).members["errors"]
    return " ".join(f"{one['field']}: {one['detail']}" for one in named)


def validate_arguments(validate: Callable[[JsonObject], ResultT], arguments: JsonObject) -> ResultT:
    """Return valid arguments; those of a wrong type may be JSON text. Raises ValidationError."""
    try:
        return validate(arguments)
    except ValidationError as error:
        names = {part for one in error.errors() for part in one["loc"] if isinstance(part, str)}
        parsed = {name: _parse_text(part) for name, part in arguments.items() if name in names}
        if all(parsed[name] is arguments[name] for name in parsed):
            raise
        try:
            return validate({**arguments, **parsed})
        except ValidationError:
            raise error from None  # about the arguments as they were sent


def _parse_text(sent: object) -> object:
    """Return the value of JSON text; everything else as it is."""
    if not isinstance(sent, str):
        return sent
    try:
        value = _parse(sent)
        check_storable(value, "arguments")
    except (ToolError, UnstorableError):
        return sent
    return value


def _parse(text: str) -> object:
    if not text.strip():
        return None
    try:
        encoded = text.encode()
        check_values(encoded, _MAX_VALUES)
        return parse_json(encoded)
    except ValueError as error:
        raise _unreadable("not JSON", text) from error


def _unreadable(problem: str, text: str) -> ToolError:
    return ToolError(
        f"Nothing was done: the arguments are {problem} but {text[:_SHOWN_CHARACTERS]}. "
        "Send one JSON object that holds all of them."
    )


def tool_text(name: str) -> str:
    """Return a text about a tool that models are sent: a section of `templates/tools.md`."""
    return TEMPLATES.fill_section("tools", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDefinition:
    """Tool definition shown to a model; the schemas are JSON Schemas of objects.

    `anthropic` is the whole definition for Anthropic's API if that knows the tool by itself.
    `mcp` has the members that only MCP knows.
    """

    name: str
    description: str
    input_schema: JsonObject
    anthropic: JsonObject | None = None
    mcp: JsonObject = field(default_factory=dict)

    def in_format(self, form: Format) -> JsonObject:
        """Return the definition for a provider's `tools`, or for MCP's `tools/list`."""
        named = {"name": self.name, "description": self.description}
        match form:
            case "openai":
                function = {**named, "parameters": self.input_schema}
                return {"type": "function", "function": function}
            case "openai_responses":
                # The default there is strict, which does not allow optional arguments.
                return {
                    "type": "function",
                    **named,
                    "parameters": self.input_schema,
                    "strict": False,
                }
            case "anthropic":
                return self.anthropic or {**named, "input_schema": self.input_schema}
            case "mcp":
                return {**named, "inputSchema": self.input_schema, **self.mcp}
            case _:
                assert_never(form)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """Result of a call: `content` for the model, `artifact` (for orjson) for the program."""

    content: str
    is_error: bool = False
    artifact: JsonObject | list[JsonObject] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """Application's choices for a definition.

    `verbs` are those that the key has. `actions` are the ones to offer; the key has the verbs for
    them. `instructions` say when to use the tool; None: memoryd's own. If `is_confined`, the model
    cannot choose a namespace.
    """

    verbs: frozenset[Verb] = frozenset(Verb)
    kind: Kind | None = None
    actions: tuple[Action, ...] = ACTIONS
    instructions: str | None = None
    is_confined: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A client and the namespace that it is confined to (labels below its key's root)."""

    access: Access
    namespace: Labels = ()

    @property
    def confined(self) -> Access:
        """The access that sees only the caller's namespace, with labels relative to it."""
        return self.access.below(self.namespace)

    def absolute(self, labels: Sequence[str]) -> list[str]:
        """Return labels relative to the caller's namespace as labels below the key's root.

        Raises ToolError if the namespace is too deep.
        """
        absolute = [*self.namespace, *labels]
        try:
            check_labels(absolute)
        except InvalidNamespaceError as error:
            raise ToolError(f"Nothing was done: namespace {error}.") from error
        return absolute

    def readable_prefixes(self) -> list[list[str]]:
        """Return the outermost namespaces that the caller can read."""
        outermost: list[tuple[str, ...]] = []
        for prefix in sorted(g.prefix for g in self.confined.grants if Verb.READ in g.verbs):
            if not outermost or prefix[: len(outermost[-1])] != outermost[-1]:
                outermost.append(prefix)
        return [list(prefix) for prefix in outermost]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext(Caller):
    """Application's choices for one call; the model's arguments cannot change them.

    If there are `messages`, a model writes the searches (`query_model`; None: the server's), and
    the call waits up to `wait_seconds` for their results.
    """

    kind: Kind | None = None
    actions: tuple[Action, ...] = ACTIONS
    manager: str | None = None
    ttl: timedelta | Ttl = Ttl.DEFAULT
    messages: Sequence[ConversationMessage] = ()
    query_model: str | None = None
    wait_seconds: float = 0.0

    def source(self, tool: str) -> JsonText:
        """Return the source of an item that a tool writes."""
        manager = {} if self.manager is None else {"manager": self.manager}
        return source_text({"tool": tool} | manager)


class Tool(Protocol):
    """A function that a model can call by its name."""

    name: ClassVar[str]
    toolset: ClassVar[Toolset]

    @classmethod
    def build(cls, resources: Resources) -> Self:
        """Make the tool from a process's resources."""
        ...

    @classmethod
    def definition(cls, options: ToolOptions) -> ToolDefinition | None:
        """Return its definition; None if the options leave nothing of it."""
        ...

    async def call(self, context: ToolContext, arguments: JsonObject) -> ToolResult:
        """Execute a call.

        Raises ToolError for the model's mistakes and AppError for the application's, such as
        ForbiddenError for a missing grant.
        """
        ...
