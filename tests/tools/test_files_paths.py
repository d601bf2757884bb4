"""No path leads out of the bound namespace, and files behave like those of a file system."""

import itertools
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from anthropic.lib.tools import ToolError
from anthropic.tools import BetaLocalFilesystemMemoryTool
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config import Settings
from app.namespaces import to_stored
from tests.support.app import Store

# Anthropic's numbers the nothing after the last newline, too, but does not insert after it.
_EMPTY_TAIL = re.compile(r"\n +\d+\t$")
SECRET = "another owner's secret"

_numbers = itertools.count(1)


@pytest.fixture
async def rows(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection that sees every row."""
    connection = await asyncpg.connect(str(settings.database_url))
    await connection.execute("SELECT set_config('memoryd.root', '', false)")
    yield connection
    await connection.close()


async def call(store: Store, namespace: list[str], arguments: dict[str, Any]) -> tuple[bool, str]:
    """Return whether a call is a mistake, and the text for the model."""
    body = {"namespace": namespace, "arguments": arguments}
    answer = (await store.call("POST", "/v1/tools/memory", status=200, json=body)).json()
    return answer["is_error"], answer["content"]


ESCAPES = ["..", ".", "", "%2e%2e", "%2F", "\\", "\x1f", "\x00", "\uff3c", "\uff0e\uff0e"]
PARTS = st.text(max_size=5) | st.sampled_from([*ESCAPES, "a2", "agents", "secret"])
PATHS = st.text() | st.lists(PARTS, max_size=6).map(lambda parts: "/memories/" + "/".join(parts))


@pytest.mark.slow
@hypothesis_settings(max_examples=20)
@given(path=PATHS, other=PATHS)
async def test_no_path_leads_out_of_the_namespace(
    store: Store, rows: asyncpg.Connection, path: str, other: str
) -> None:
    for namespace in (["agents"], ["agents", "a"], ["agents", "a2"], ["agents", "a", "below"]):
        await store.put(namespace, "secret", {"content": SECRET}, index=False)
    bound = ["agents", "a", "bound"]
    outside = "SELECT namespace, key, value FROM items WHERE namespace <> $1 ORDER BY 1, 2"
    before = await rows.fetch(outside, to_stored(bound))
    for arguments in (
        {"command": "create", "path": path, "file_text": "mine"},
        {"command": "view", "path": path},
        {"command": "insert", "path": path, "insert_line": 0, "insert_text": "more"},
        {"command": "rename", "old_path": path, "new_path": other},
        {"command": "view", "path": "/memories"},
        {"command": "delete", "path": other},
        {"command": "delete", "path": path},
    ):
        _, content = await call(store, bound, arguments)
        assert SECRET not in content
    assert await rows.fetch(outside, to_stored(bound)) == before
    assert await rows.fetch("SELECT FROM items WHERE namespace = $1", to_stored(bound)) == []


NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a/c", "a/b/c"]).map("/memories/{}".format)
# No text may end in an empty line, which Anthropic's insert loses, or without a newline, which it
# adds at the end wherever it inserts.
TEXTS = st.sampled_from(["", "x\n", "x\ny\n", "x\n\nx\n", "é\n", "a.\\1\n"])


def command(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"command": st.just(name), **arguments})


COMMANDS = st.one_of(
    command("create", path=NAMES, file_text=TEXTS),
    command("delete", path=NAMES),
    command("rename", old_path=NAMES, new_path=NAMES),
    command(
        "insert",
        path=NAMES,
        insert_line=st.integers(-1, 3),
        insert_text=st.sampled_from(["z", "z\n", "x\nz"]),
    ),
    command(
        "str_replace",
        path=NAMES,
        old_str=st.sampled_from(["x", "y", "é", "."]),
        new_str=st.sampled_from(["y", "x\ny", r"\1"]),
    ),
)


@pytest.mark.slow
@hypothesis_settings(max_examples=25)
@given(commands=st.lists(COMMANDS, min_size=1, max_size=15))
async def test_files_behave_like_those_of_anthropics_own_tool(
    store: Store, commands: list[dict[str, Any]]
) -> None:
    namespace = ["agents", str(next(_numbers))]
    with tempfile.TemporaryDirectory() as directory:
        original = BetaLocalFilesystemMemoryTool(directory)
        for arguments in commands:
            is_error, content = await call(store, namespace, arguments)
            try:
                expected = original.call(arguments)
            except (ToolError, OSError):
                assert is_error
            else:
                assert (is_error, content) == (False, _EMPTY_TAIL.sub("", str(expected)))
            found = await store.search(namespace, limit=100)
            files = {item["key"]: item["value"]["content"] for item in found}
            assert files == _files(Path(directory, "memories"))


def _files(root: Path) -> dict[str, str]:
    """Return the files; directories without any are removed, as they are none here."""
    below = sorted(root.rglob("*"), reverse=True)
    for path in below:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return {str(path.relative_to(root)): path.read_text() for path in below if path.is_file()}
