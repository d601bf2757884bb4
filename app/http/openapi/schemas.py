"""Schemas in the form that client generators handle best."""

from typing import Any

_MAX_INT32 = 2**31 - 1


def tidy(node: Any, name: str | None = None) -> None:
    """Tidy the schemas in a part of the document; `name` is a schema's name in its parent.

    pydantic writes `anyOf` for every choice, though no value here matches two members, repeats
    names as titles, and gives integers no width.
    """
    if isinstance(node, list):
        for part in node:
            tidy(part)
    elif isinstance(node, dict):
        _tidy_schema(node, name)
        for key, part in node.items():
            if key == "properties":
                for member, schema in part.items():
                    tidy(schema, member)
            elif key not in {"examples", "example", "default", "enum"}:
                tidy(part, node.get("name") if key == "schema" else key)


def _tidy_schema(node: dict[str, Any], name: str | None) -> None:
    if name is not None and _repeats(node.get("title"), name):
        del node["title"]
    if isinstance(node.get("anyOf"), list):
        _choose_one(node)
    if node.get("type") == "integer":
        _give_width(node)


def _repeats(title: object, name: str) -> bool:
    """Return whether pydantic or FastAPI made the title from the name."""
    if not isinstance(title, str):
        return False
    return title.startswith("Response ") or title.replace(" ", "_").lower() == name.lower()


def _choose_one(node: dict[str, Any]) -> None:
    """Rename `anyOf` to `oneOf`, keeping the order; drop a choice that allows anything."""
    members = {("oneOf" if key == "anyOf" else key): part for key, part in node.items()}
    if {} in members["oneOf"]:
        del members["oneOf"]
    node.clear()
    node.update(members)


def _give_width(node: dict[str, Any]) -> None:
    for bound in ("minimum", "maximum"):
        if bound in node:
            node[bound] = int(node[bound])
    is_small = "maximum" in node and node["maximum"] <= _MAX_INT32
    node["format"] = "int32" if is_small else "int64"
