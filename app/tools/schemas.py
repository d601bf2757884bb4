"""Requests and responses of the routes of tools, and the plan of a search job."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from app.conversations.fields import Instructions, ModelName
from app.conversations.kinds import BuiltInKind, MemoryKind
from app.conversations.messages import MAX_MESSAGES, ConversationMessage, StoredMessages
from app.conversations.namespace_template import TemplateLabel, Variables, check_template
from app.jobs.kind import JobPlan
from app.json_values import JsonObject
from app.managers.schemas import ManagerChoice, ManagerName
from app.namespaces import MAX_DEPTH
from app.schemas import CONVERSATION, Clean, Number, Schema, WrittenNamespace
from app.tools.tool import ACTIONS, Action, Format

DEFAULT_NAMESPACE = ["memories", "{user_id}"]

DEFAULT_LIMIT = 10
MAX_LIMIT = 100
MAX_NAMES = 20
MAX_LIST_CHARACTERS = 1_024

Template = Annotated[
    list[TemplateLabel], AfterValidator(check_template), Field(min_length=1, max_length=MAX_DEPTH)
]
Messages = Annotated[list[ConversationMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


def _check_distinct(names: list[Any]) -> list[Any]:
    if len(set(names)) < len(names):
        raise ValueError("names one twice; name each once")
    return names


def _split(text: object) -> object:
    return text.split(",") if isinstance(text, str) else text


_CommaSeparated = Annotated[Clean, Field(max_length=MAX_LIST_CHARACTERS)]
_Name = Annotated[Clean, Field(max_length=64)]
Names = Annotated[
    list[_Name],
    Field(max_length=MAX_NAMES),
    BeforeValidator(_split, json_schema_input_type=_CommaSeparated),
    AfterValidator(_check_distinct),
]
Actions = Annotated[
    list[Action], Field(min_length=1, max_length=len(ACTIONS)), AfterValidator(_check_distinct)
]
ActionList = Annotated[Actions, BeforeValidator(_split, json_schema_input_type=_CommaSeparated)]


class NamespaceTarget(ManagerChoice):
    """Location of the memories, chosen by the application and never by a model.

    Of the manager, its namespace, first kind, lifetime, and query_model are used.
    """

    namespace: Template | None = Field(
        None,
        description="Namespace of the memories; variables replace `{variable}` in a label. "
        f"Absent: the manager's namespace, or {DEFAULT_NAMESPACE}.",
        examples=[["memories", "{user_id}"]],
    )
    variables: Variables | None = Field(
        None,
        description="Values of the variables in the namespace.",
        examples=[{"user_id": "alice"}],
    )


class CallTool(NamespaceTarget):
    """A call of a tool: the model's arguments, and the application's choices."""

    body_limit = CONVERSATION

    arguments: Any = Field(
        None,
        description="As the model wrote them: a JSON object, or, as from OpenAI, a string that "
        "contains one.",
        examples=[{"content": "Alice is a vegetarian."}],
    )
    kind: MemoryKind | None = Field(
        None,
        description="Kind of the memories: a built-in kind by name, or one of your own. "
        "Absent: the manager's first kind; without a manager, plain text.",
    )
    actions_permitted: Actions | None = Field(
        None, description=f"Actions that the model may take; absent: {', '.join(ACTIONS)}."
    )
    messages: Messages | None = Field(
        None,
        description="For search_memory: the conversation, for which a model writes further "
        "queries. It does so in a job, and the call waits for the job.",
    )
    query_model: ModelName | None = Field(
        None,
        description="Model that writes the queries; absent: the manager's query_model, or "
        "MEMORYD_LLM.",
    )


class ListTools(Schema):
    """The tools to define, and their format and options."""

    format: Format | None = Field(
        None,
        description="Format of the definitions: openai (default, Chat Completions), "
        "openai_responses, anthropic, or mcp.",
    )
    names: Names | None = Field(
        None, description="Only these tools, separated by commas; absent: all.", examples=["memory"]
    )
    manager: ManagerName | None = Field(
        None, description="A stored manager, whose first kind is used."
    )
    kind: BuiltInKind | None = Field(
        None, description="A built-in kind, used instead of the manager's first."
    )
    actions_permitted: ActionList | None = Field(
        None,
        description="Actions that the model may take, separated by commas; absent: those that "
        "the key may.",
    )
    namespace: WrittenNamespace = Field(
        "",
        description="Namespace in which the key needs the grants for the tools: labels separated "
        "by dots, or a JSON array. Absent: anywhere.",
    )
    instructions: Instructions | None = Field(
        None, description="When to use manage_memory; replaces memoryd's own instructions."
    )


class ToolList(BaseModel):
    """Definitions of tools for a provider's `tools`."""

    tools: list[Annotated[JsonObject, Field(title="ToolDefinition")]] = Field(
        description="In the requested format."
    )


class ToolAnswer(BaseModel):
    """Result of a call."""

    content: str = Field(description="For the model, as the result of its call.")
    is_error: bool = Field(description="true: the model made a mistake, which content describes.")
    artifact: Any = Field(
        description="For the program: the items that search_memory found, otherwise null."
    )


class SearchRequest(NamespaceTarget):
    """A conversation, and the namespace in which to search for memories about it."""

    body_limit = CONVERSATION

    messages: Messages = Field(description="In the order of the conversation.")
    query_model: ModelName | None = Field(
        None,
        description="Model that writes the queries; absent: the manager's query_model, or "
        "MEMORYD_LLM.",
    )
    instructions: Instructions | None = Field(
        None, description="Instructions for the model, added to memoryd's own."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), Number] | None = Field(
        None, description=f"Maximum items per query; absent: {DEFAULT_LIMIT}."
    )
    filter: Annotated[JsonObject, Field(title="Filter")] | None = Field(
        None,
        description="Conditions on the value; see docs/reference/filters.md.",
        examples=[{"kind": "memory"}],
    )


class SearchPlan(JobPlan):
    """Plan of a search job; it searches for `queries` in addition to the model's."""

    job_kind = "search"

    namespace: list[str]
    messages: StoredMessages
    query_model: str | None
    queries: list[str] = Field(default_factory=list)
    instructions: str | None = None
    limit: int = DEFAULT_LIMIT
    filter: JsonObject | None = None
