"""An agent that keeps files with the memory tool, in tests."""

from collections.abc import Sequence
from typing import Any

from app.tools.memory_files import NAME
from tests.support.app import Store
from tests.tools.agent import Agent

NAMESPACE = ["agents", "a1"]
LISTED = (
    "Here're the files and directories up to 2 levels deep in {}, "
    "excluding hidden items and node_modules:"
)


class Memory:
    """The tool as a model uses it; the application chooses the namespace."""

    def __init__(self, agent: Agent, **binding: Any) -> None:
        self.agent = agent
        self.binding = {"namespace": NAMESPACE, **binding}

    async def __call__(self, command: str, **arguments: Any) -> str:
        arguments = {"command": command, **arguments}
        return await self.agent.call(arguments, name=NAME, **self.binding)

    async def error(self, command: str, **arguments: Any) -> str:
        arguments = {"command": command, **arguments}
        return await self.agent.mistake(arguments, name=NAME, **self.binding)

    async def write(self, *paths: str, text: str = "text") -> None:
        for path in paths:
            await self("create", path=path, file_text=text)

    async def listed(self, path: str = "/memories") -> list[str]:
        """Return the listed paths without their sizes, the directory's own left out."""
        first, _, *lines = (await self("view", path=path)).splitlines()
        assert first == LISTED.format(path)
        return [line.partition("\t")[2] for line in lines]


async def fill(store: Store, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), 1_000):
        await store.batch(
            *(
                {"op": "put", "namespace": NAMESPACE, "key": key, "value": {"content": "text"}}
                for key in keys[start : start + 1_000]
            )
        )
