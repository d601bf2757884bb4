"""Prompts as clients see them."""

from typing import Any

import orjson

from app.db.database import Row
from app.prompts.diff import unified_diff

_PROMPT = (
    "name",
    "version",
    "text",
    "labels",
    "update_instructions",
    "when_to_update",
    "based_on",
    "analysis",
    "actor",
    "created_at",
    "updated_at",
)
_LISTED = ("name", "newest", "update_instructions", "when_to_update", "created_at", "updated_at")
_VERSION = ("version", "characters", "labels", "based_on", "analysis", "actor", "created_at")


def prompt(row: Row) -> dict[str, Any]:
    """Return a prompt with one of its versions as members of JSON."""
    return {name: row[name] for name in _PROMPT}


def listed(row: Row) -> dict[str, Any]:
    """Return a prompt of a list as members of JSON."""
    return {**{name: row[name] for name in _LISTED}, "labels": orjson.Fragment(row["labels"])}


def version(row: Row) -> dict[str, Any]:
    """Return a version of a list as members of JSON."""
    return {name: row[name] for name in _VERSION}


def diff(old: Row, new: Row) -> dict[str, Any]:
    """Return what one version of a prompt says otherwise than another as members of JSON."""
    names = [f"{row['name']} (version {row['version']})" for row in (old, new)]
    return {
        "name": new["name"],
        "from_version": old["version"],
        "to_version": new["version"],
        "diff": unified_diff(old["text"], new["text"], *names),
    }
