"""Calls that a model wrote as text: JSON in a fence or on lines of its own, and tagged calls.

JSON in the middle of a sentence, or followed by prose, may be an example: it is no call. The work
is linear in the length of the text.
"""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from app.json_values import JsonObject, is_deeper

MAX_CHARACTERS = 262_144
"""Longer texts are not searched."""

_MAX_DEPTH = 64
_MAX_FAILURES = 20
_MAX_GARBAGE = 200

_NAME = r"[\w.:/-]{1,100}"

# Ways in which servers hand on a call that they did not recognize; some name the tool in the tag.
_TAG = re.compile(
    r"(?:<\|?(?:tool|function)_?calls?(?:_begin)?\|?>|<\|python_tag\|>|\[TOOL_CALLS\]|<function=|"
    r"<\|tool_call_argument_begin\|>|<\uff5ctool\u2581sep\uff5c>|\bto=|^Action:)"
    rf"\s{{0,20}}(?P<name>{_NAME})?"
    r"(?:\s{0,20}(?:\[CALL_ID\]\w{1,40}|\[ARGS\]|<\|tool_call_argument_begin\|>|<\|constrain\|>|json"
    r"|<\|message\|>|```(?:json)?|>|Action Input:)){0,4}\s{0,20}(?=[\[{])",
    re.MULTILINE,
)
_FENCE = re.compile(r"(?:```|~~~)[\w+-]{0,20}[ \t]{0,20}\n\s{0,20}(?=[\[{])")
_LINE = re.compile(r"^[ \t]{0,20}(?=[\[{])", re.MULTILINE)
_NEXT = re.compile(r"[\s,;]{0,20}(?=[\[{])")
_PYTHON = re.compile(r"```(?:python|tool_code)\n([^`]{1,20000})```")
_MAX_PYTHON = 20_000
_REST_OF_TEXT = re.compile(r"(?:\s|[,;]|</?[\w|]{1,30}>|```|~~~){0,40}\Z")
_WRAPPER = re.compile(
    r"[\s\ufeff]{0,20}(?:<[\w|=]{1,100}>|(?:```|~~~)\w{0,20}|json\b)?\s{0,20}", re.IGNORECASE
)
_STRING_OR_COMMA = re.compile(r'("(?:[^"\\]|\\.)*\\?(?:"|\Z))|,(?=\s*[}\]])', re.DOTALL)
"""A string, or a comma behind the last member, which JSON does not allow."""

_FUNCTION = re.compile(
    rf'<(?:function=|invoke name=")({_NAME})"?>|<tool_call>\s{{0,20}}({_NAME})\s'
)
_PARAMETER = re.compile(
    rf'<(?:parameter=|parameter name=")({_NAME})"?>|'
    rf"<arg_key>({_NAME})</arg_key>\s{{0,20}}<arg_value>"
)
_PARAMETER_ENDS = ("</parameter>", "</arg_value>")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


# Not strict: small models write line breaks into strings as they are.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, strict=False)


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A JSON object in a text; `tag_name` is the tool that its tag names, if it does.

    `is_tagged` is true if it can only be a call.
    """

    value: JsonObject
    tag_name: str | None = None
    is_tagged: bool = False


def find_written_calls(text: str) -> list[WrittenCall]:
    """Return the objects in a text that are meant as calls, by the clearest form it uses."""
    if len(text) > MAX_CHARACTERS:
        return []
    found = [WrittenCall(value, name, True) for name, value in _values_after(_TAG, text)]
    found = found or list(_calls_with_parameters(text)) or _calls_in_python(text)
    found = found or [WrittenCall(value) for _, value in _values_after(_FENCE, text)]
    return found or [WrittenCall(value) for value in _values_at_the_end(text)]


def read_objects(raw: str) -> list[JsonObject]:
    """Return the objects in a call's arguments that are not one JSON object, in order.

    They may be JSON in a text once more, a list, several one after another, or have remains of a
    tag around them, a comma too many, or be a literal of Python. Empty if anything may be missing.
    """
    text, values = raw, list[object]()
    for _ in range(3):
        start = _WRAPPER.match(text)
        text = text[start.end() :] if start else text
        values, end = _consecutive_values(text, 0)
        if not values:
            return _objects(_almost_json(text)) or []
        rest = text[end:]
        if len(rest) > _MAX_GARBAGE or "{" in rest:
            return []
        if len(values) != 1 or not isinstance(values[0], str):
            break
        text = values[0]
    return _objects(values) or []


def _almost_json(text: str) -> list[object]:
    """Return the value of JSON with a comma too many, or of a literal of Python; else nothing."""
    text = text.strip()
    if len(text) > _MAX_PYTHON or not text.startswith(("{", "[")):
        return []
    try:
        value = _DECODER.decode(_STRING_OR_COMMA.sub(lambda found: found[1] or "", text))
    except (ValueError, RecursionError):
        try:
            value = json.loads(json.dumps(ast.literal_eval(text), allow_nan=False))
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            return []
    return [] if is_deeper(value, _MAX_DEPTH) else [value]


def _values_after(lead: re.Pattern[str], text: str) -> Iterator[tuple[str | None, JsonObject]]:
    """Yield the objects that follow a lead, and those that follow them directly."""
    position = failures = 0
    while failures < _MAX_FAILURES and (match := lead.search(text, position)):
        values, end = _consecutive_values(text, match.end())
        objects = _objects(values)
        failures += objects is None
        name = match.groupdict().get("name")
        for value in objects or ():
            yield name, value
        position = max(end, match.end())


def _values_at_the_end(text: str) -> list[JsonObject]:
    """Return the objects on lines of their own, with nothing but tags behind them."""
    for match in islice(_LINE.finditer(text), _MAX_FAILURES):
        values, end = _consecutive_values(text, match.end())
        if values and _REST_OF_TEXT.match(text, end):
            return _objects(values) or []
        if values or text[match.end()] == "{":
            break  # a part of it may be left, which is no call
    return []


def _consecutive_values(text: str, start: int) -> tuple[list[object], int]:
    """Return the JSON values from a position on, and the position behind them."""
    values: list[object] = []
    end = start
    next_start: int | None = start
    while next_start is not None:
        try:
            value, next_end = _DECODER.raw_decode(text, next_start)
        except (ValueError, RecursionError):
            break
        if is_deeper(value, _MAX_DEPTH):
            break
        values.append(value)
        end, following = next_end, _NEXT.match(text, next_end)
        next_start = following.end() if following else None
    return values, end


def _objects(values: list[object]) -> list[JsonObject] | None:
    """Return objects, those of lists too; None if there are other values, or none at all."""
    objects: list[JsonObject] = []
    for value in values:
        for inner in value if isinstance(value, list) else [value]:
            if not isinstance(inner, dict):
                return None
            objects.append(inner)
    return objects or None


def _calls_with_parameters(text: str) -> Iterator[WrittenCall]:
    """Yield calls whose arguments are tags: `<function=name><parameter=x>…</parameter>`."""
    starts = list(_FUNCTION.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    for match, end in zip(starts, ends, strict=False):
        if arguments := _parameters(text[match.end() : end]):
            yield WrittenCall(arguments, match[1] or match[2], True)


def _calls_in_python(text: str) -> list[WrittenCall]:
    """Return calls that a text, or a fence, writes in Python; their arguments must be literals."""
    fenced = _PYTHON.search(text)
    source = (fenced[1] if fenced else text).strip()
    if len(source) > _MAX_PYTHON or not source.endswith((")", "]")):
        return []
    try:
        tree = ast.parse(source, mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_call_of_node(node) for node in nodes]
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return []


def _call_of_node(node: ast.expr) -> WrittenCall:
    """Return a call of a function with named arguments; raises ValueError for other code."""
    if not isinstance(node, ast.Call):
        raise ValueError("no call")  # noqa: TRY004  # it is about the text
    name = ast.unparse(node.func)
    if name == "print" and len(node.args) == 1:
        return _call_of_node(node.args[0])
    if node.args or not all(keyword.arg for keyword in node.keywords):
        raise ValueError("arguments without names")
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    return WrittenCall(json.loads(json.dumps(values, allow_nan=False)), name, True)


def _parameters(text: str) -> JsonObject | None:
    """Return the arguments between tags; None if the last one is not closed."""
    arguments: JsonObject = {}
    position = 0
    while match := _PARAMETER.search(text, position):
        ends = [at for tag in _PARAMETER_ENDS if (at := text.find(tag, match.end())) >= 0]
        if not ends:
            return None
        position = min(ends)
        arguments[match[1] or match[2]] = _parameter(text[match.end() : position])
    return arguments


def _parameter(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return text.strip("\n")
