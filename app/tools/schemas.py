"""Bodies of the routes of tools: what the application says, and what the model wrote."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from app.body_limits import CONVERSATION
from app.conversations.namespace_template import check_template
from app.managers.schemas import (
    MAX_MESSAGES,
    BuiltInKind,
    ConversationMessage,
    Instructions,
    ManagerName,
    MemoryKind,
    ModelName,
    TemplateLabel,
    Variables,
)
from app.namespaces import MAX_DEPTH
from app.schemas import Clean, Schema, WrittenNamespace
from app.tools.base import ACTIONS, Action

DEFAULT_NAMESPACE = ["memories", "{user_id}"]

MAX_NAMES = 20
MAX_WRITTEN_CHARACTERS = 1_024

Format: TypeAlias = Literal["openai", "openai_responses", "anthropic", "mcp"]

Template = Annotated[
    list[TemplateLabel], AfterValidator(check_template), Field(min_length=1, max_length=MAX_DEPTH)
]
Messages = Annotated[list[ConversationMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


def _differ(names: list[Any]) -> list[Any]:
    if len(set(names)) < len(names):
        raise ValueError("names one twice; name each once")
    return names


def _split(text: object) -> object:
    return text.split(",") if isinstance(text, str) else text


Written = Annotated[Clean, Field(max_length=MAX_WRITTEN_CHARACTERS)]
Name = Annotated[Clean, Field(max_length=64)]
Names = Annotated[
    list[Name],
    Field(max_length=MAX_NAMES),
    BeforeValidator(_split, json_schema_input_type=Written),
    AfterValidator(_differ),
]
Actions = Annotated[
    list[Action], Field(min_length=1, max_length=len(ACTIONS)), AfterValidator(_differ)
]
WrittenActions = Annotated[Actions, BeforeValidator(_split, json_schema_input_type=Written)]


class Placed(Schema):
    """Where memories are, said by the application and never by a model."""

    manager: ManagerName | None = Field(
        None, description="A stored manager, whose namespace, first kind and lifetime are used."
    )
    namespace: Template | None = Field(
        None,
        description="Where the memories are; `{variable}` in a label is filled in from variables. "
        f"Absent: the manager's namespace, or {DEFAULT_NAMESPACE}.",
        examples=[["memories", "{user_id}"]],
    )
    variables: Variables | None = Field(
        None,
        description="What the variables of the namespace stand for.",
        examples=[{"user_id": "alice"}],
    )


class CallTool(Placed):
    """A call of a tool: the model's arguments, and what the application decides."""

    body_limit = CONVERSATION

    arguments: Any = Field(
        None,
        description="As the model wrote them: a JSON object, or text that holds one, as OpenAI "
        "sends it.",
        examples=[{"content": "Alice is a vegetarian."}],
    )
    kind: MemoryKind | None = Field(
        None,
        description="What memories must look like: a built-in kind by name, or one of your own. "
        "Absent: the manager's first kind, without a manager plain text.",
    )
    actions_permitted: Actions | None = Field(
        None, description=f"What the model may do; absent: {', '.join(ACTIONS)}."
    )
    messages: Messages | None = Field(
        None,
        description="For search_memory: the conversation, of which a model writes further "
        "searches; it is asked in a job, which is waited for.",
    )
    query_model: ModelName | None = Field(
        None, description="That model; absent: the manager's query_model, or MEMORYD_LLM."
    )


class ListTools(Schema):
    """Which tools to define, how, and for what."""

    format: Format | None = Field(
        None,
        description="Whose form: openai (default, Chat Completions), openai_responses, "
        "anthropic or mcp.",
    )
    names: Names | None = Field(
        None, description="Only these tools, joined by commas; absent: all.", examples=["memory"]
    )
    manager: ManagerName | None = Field(
        None, description="A stored manager, whose first kind memories have."
    )
    kind: BuiltInKind | None = Field(
        None, description="A built-in kind that memories have, instead of the manager's first."
    )
    actions_permitted: WrittenActions | None = Field(
        None, description="What the model may do, joined by commas; absent: all that the key may."
    )
    namespace: WrittenNamespace = Field(
        "",
        description="Where the key must be granted what is offered; labels joined by dots, or a "
        "JSON array. Absent: anywhere.",
    )
    instructions: Instructions | None = Field(
        None, description="When to use manage_memory, in your words instead of memoryd's."
    )


class ToolList(BaseModel):
    """Definitions of tools, ready for a provider's `tools`."""

    tools: list[Annotated[dict[str, Any], Field(title="ToolDefinition")]] = Field(
        description="In the form that was asked for."
    )


class ToolAnswer(BaseModel):
    """What a call came to."""

    content: str = Field(description="For the model, as the result of its call.")
    is_error: bool = Field(description="Whether the model made a mistake; content says which.")
    artifact: Any = Field(description="For the program: of search_memory the items, else null.")
