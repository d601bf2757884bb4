"""Calls recovered from replies of models and servers that get the form of a call wrong.

A call is recovered only if it is clear: its tool was offered, and its arguments fit that tool and
no other. Everything else is left as it is, to be sent back to the model.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.conversations.memories import parse_argument
from app.conversations.schema_assertions import TooManyChecksError
from app.conversations.schema_validator import validator_of
from app.conversations.written_calls import WrittenCall, find_written_calls, read_objects
from app.json_values import JsonObject
from app.providers.llm import Completion, Tool, ToolCall
from app.providers.thoughts import remove_thoughts_in

_MAX_CALLS = 1_000

_NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "tool_input")
_CALL_KEYS = {*_NAME_KEYS, *_ARGUMENT_KEYS, "id", "type", "index"}
_NUMBER = re.compile(r":\d{1,6}\Z")
_NOT_IN_NAMES = re.compile(r"[<({\[\s].*", re.DOTALL)


def recover_calls(reply: Completion, tools: Sequence[Tool]) -> Completion:
    """Return the reply with calls of the offered tools, as far as they are clear."""
    if not tools or reply.finish_reason == "refusal":
        return reply
    offer = _Offer(tools)
    if reply.calls:
        corrected = [one for call in reply.calls for one in offer.correct(call)]
        calls, text = _with_unique_ids(corrected), reply.text
    else:
        calls, text = offer.read(find_written_calls(reply.text)), ""
    if not calls or tuple(calls) == reply.calls or len(calls) > _MAX_CALLS:
        return reply
    stop = "tools" if reply.finish_reason == "end" else reply.finish_reason
    return replace(reply, text=text, calls=tuple(calls), finish_reason=stop, verbatim=None)


class _Offer:
    """The tools of one request."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._forms = [_Form(tool) for tool in tools]
        self._by_name = {form.name: form for form in self._forms}

    def correct(self, call: ToolCall) -> list[ToolCall]:
        """Return a call with its proper name and arguments; several if it has those of several."""
        form = self._find(call.name)
        if form is None:
            return [call]
        given = [call.arguments] if call.arguments is not None else _objects_in(call.raw)
        fitted = [form.fit(arguments) for arguments in given]
        if not fitted or fitted == [call.arguments]:
            return [replace(call, name=form.name)]
        return [
            _call(f"{call.id}_{number}" if number else call.id, form.name, arguments)
            for number, arguments in enumerate(fitted)
        ]

    def read(self, written: Sequence[WrittenCall]) -> list[ToolCall]:
        """Return the calls that a text holds; none if objects without a name may be anything."""
        calls: list[tuple[str, JsonObject]] = []
        bare: list[JsonObject] = []
        for one in written:
            named = self._named(one)
            calls += named
            if not named:
                bare.append(one.value)
        if not calls:
            forms = [self._only_form_of(value) for value in bare]
            calls = [
                (form.name, form.fit(value))
                for form, value in zip(forms, bare, strict=True)
                if form is not None
            ]
            if len(calls) < len(bare):
                return []
        return [_call(f"call_{number}", *call) for number, call in enumerate(calls)]

    def _named(self, written: WrittenCall) -> list[tuple[str, JsonObject]]:
        """Return the calls of an object that names its tool, or whose tag does."""
        value = written.value
        if written.tag_name is not None and (form := self._find(written.tag_name)):
            return [(form.name, form.fit(value))]
        inner = value.get("tool_calls")
        inner = [inner] if isinstance(inner, dict) else inner
        if isinstance(inner, list) and all(isinstance(call, dict) for call in inner):
            return [found for call in inner for found in self._named(WrittenCall(call))]
        if isinstance(value.get("function"), dict):
            value = value["function"]
        if value.keys() <= _CALL_KEYS:
            name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), "")
            given = next((value[key] for key in _ARGUMENT_KEYS if key in value), None)
            arguments = _as_object(given)
            if (form := self._find(name)) and arguments is not None:
                return [(form.name, form.fit(arguments))]
            if written.is_tagged and name and arguments is not None:
                return [(name, arguments)]  # of a tool that was not offered, which is sent back
        return self._named_by_keys(value)

    def _named_by_keys(self, value: JsonObject) -> list[tuple[str, JsonObject]]:
        """Return the calls of an object whose keys are names of tools."""
        calls = []
        for key, given in value.items():
            form = self._find(key)
            all_arguments = [
                _as_object(one) for one in (given if isinstance(given, list) else [given])
            ]
            if form is None:
                return []
            for arguments in all_arguments:
                if arguments is None:
                    return []
                calls.append((form.name, form.fit(arguments)))
        return calls

    def _only_form_of(self, value: JsonObject) -> "_Form | None":
        """Return the form of the only tool that takes an object; None if there is not just one."""
        fitting = [form for form in self._forms if form.takes(value)]
        if len(fitting) > 1:
            fitting = [form for form in fitting if form.has_valid_body(value)]
        return fitting[0] if len(fitting) == 1 else None

    def _find(self, name: str) -> "_Form | None":
        """Return the form of the tool that a name means, which may have a prefix or suffix."""
        if name in self._by_name:
            return self._by_name[name]
        bare = _NUMBER.sub("", _NOT_IN_NAMES.sub("", name.strip(" \t\n\"'`")))
        bare = re.split(r"[.:/]", bare)[-1]
        for ending in (bare, bare.rpartition("__")[2]):
            alike = [form for form in self._forms if _plain(form.name) == _plain(ending)]
            if found := self._by_name.get(ending) or (alike[0] if len(alike) == 1 else None):
                return found
        return None


class _Form:
    """The arguments of a tool; `body` is its only required argument that is an object, if any."""

    def __init__(self, tool: Tool) -> None:
        self.name = tool.name
        self._schema = tool.parameters
        self._properties: JsonObject = tool.parameters.get("properties") or {}
        self._required = _needed(tool.parameters)
        bodies = [name for name in self._required if "properties" in self._member(name)]
        self._body = bodies[0] if len(bodies) == 1 else None

    def fit(self, given: JsonObject) -> JsonObject:
        """Return the arguments, unwrapped, and with the body where it belongs."""
        given = self._unwrap(given)
        if self._body is None or isinstance(parse_argument(given.get(self._body)), dict):
            return given
        body = self._member(self._body)
        names = body["properties"].keys() - (self._properties.keys() - {self._body})
        inner = {name: value for name, value in given.items() if name in names}
        outer = {name: value for name, value in given.items() if name not in names}
        required = _needed(body)
        if inner and required <= inner.keys() and outer.keys() <= self._properties.keys():
            return {self._body: inner, **outer}
        text = given.get(self._body)
        if isinstance(text, str) and len(required) == 1:
            (only,) = required
            if body["properties"].get(only, {}).get("type") == "string":
                return {**given, self._body: {only: text}}
        return given

    def takes(self, value: JsonObject) -> bool:
        """Return whether an object has the arguments that the tool needs, and no others."""
        fitted = self.fit(value)
        if self._body is not None:
            has_needed = isinstance(parse_argument(fitted.get(self._body)), dict)
        else:
            has_needed = fitted.keys() >= self._required
        is_known = fitted.keys() <= self._properties.keys()
        is_open = bool(self._required) and not self._properties
        return bool(fitted) and has_needed and (is_known or is_open)

    def has_valid_body(self, value: JsonObject) -> bool:
        """Return whether the body of an object fits its schema."""
        if self._body is None:
            return True
        schema: JsonObject = {
            "type": "object",
            "properties": {self._body: self._member(self._body)},
            **({"$defs": self._schema["$defs"]} if "$defs" in self._schema else {}),
        }
        body = parse_argument(self.fit(value)[self._body])
        try:
            return validator_of(schema).is_valid({self._body: body})
        except (ValueError, TooManyChecksError):
            return False

    def _member(self, name: str) -> JsonObject:
        member = self._properties.get(name)
        return member if isinstance(member, dict) else {}

    def _unwrap(self, given: JsonObject) -> JsonObject:
        """Return the arguments in an object that contains only them and a name."""
        if len(given) == 1 and not given.keys() <= self._properties.keys():
            ((name, only),) = given.items()
            if _plain(name) == _plain(self.name):
                return _as_object(only) or given
        if given.keys() <= _CALL_KEYS and not given.keys() <= self._properties.keys():
            inner = next((given[key] for key in _ARGUMENT_KEYS if key in given), None)
            return _as_object(inner) or given
        return given


def _needed(schema: JsonObject) -> set[str]:
    """Return the names of the required members, without those that may be null."""
    members = schema.get("properties") or {}
    return {name for name in schema.get("required") or [] if not _may_be_null(members.get(name))}


def _may_be_null(schema: object) -> bool:
    if not isinstance(schema, dict):
        return False
    kinds = [schema, *(schema.get("anyOf") or ())]
    return any("null" in _as_list(kind.get("type")) for kind in kinds if isinstance(kind, dict))


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _with_unique_ids(calls: Sequence[ToolCall]) -> list[ToolCall]:
    """Return calls each of which has an id of its own; providers refuse duplicates."""
    ids: set[str] = set()
    unique = []
    for number, call in enumerate(calls):
        given = replace(call, id=f"{call.id}_{number}") if call.id in ids else call
        ids.add(given.id)
        unique.append(given)
    return unique


def _objects_in(raw: str) -> list[JsonObject]:
    return read_objects(raw) if raw.strip() else [{}]


def _as_object(value: object) -> JsonObject | None:
    """Return an object, which may be JSON in a text; None for anything else."""
    if isinstance(value, str):
        objects = _objects_in(value)
        return objects[0] if len(objects) == 1 else None
    return value if isinstance(value, dict) else None


def _call(call_id: str, name: str, arguments: JsonObject) -> ToolCall:
    cleaned = remove_thoughts_in(arguments)
    return ToolCall(call_id, name, cleaned, json.dumps(cleaned, ensure_ascii=False))


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name.casefold())
