"""What a tool for agents is: offered to a model as a definition, called with its arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from app.auth.access import Access
from app.conversations.types import Kind
from app.managers.schemas import ConversationMessage

Action: TypeAlias = Literal["create", "update", "delete"]

ACTIONS: tuple[Action, ...] = ("create", "update", "delete")


class ToolError(Exception):
    """What a model did wrong; the message is for the model, to do it right next time."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool as a model is told of it; `parameters` is a JSON Schema of an object.

    `anthropic` is the whole definition where Anthropic's API knows the tool by itself.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    anthropic: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to: `content` for the model, `artifact` (for orjson) for the program."""

    content: str
    is_error: bool = False
    artifact: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the application decides of a tool before a model sees it.

    Of `actions` there are only those that the key may do. `instructions` say when to use the tool;
    None: as memoryd says it.
    """

    kind: Kind | None = None
    actions: tuple[Action, ...] = ACTIONS
    instructions: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound(Offer):
    """What the application decides of one call; the model's arguments can change none of it.

    `namespace` are labels below the key's root. Where there are `messages`, a model writes the
    searches (`query_model`; None: the server's), and `wait_seconds` are waited for what it finds.
    """

    access: Access
    namespace: list[str]
    manager: str | None = None
    ttl_seconds: float | None = None
    messages: Sequence[ConversationMessage] = ()
    query_model: str | None = None
    wait_seconds: float = 0.0


class AgentTool(Protocol):
    """A function that an agent's model may call."""

    name: str

    def definition(self, offer: Offer) -> Definition | None:
        """Return how the tool is offered; None where none of its actions is left."""
        ...

    async def call(self, bound: Bound, arguments: dict[str, Any]) -> Answer:
        """Do what a model asks for.

        Raises ToolError for what the model did wrong, AppError for what the application did:
        ForbiddenError, above all, where its key has no grant.
        """
        ...
