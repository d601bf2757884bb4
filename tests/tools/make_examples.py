"""Worked examples of the texts that models are sent: `python -m tests.tools.make_examples`.

Read the difference in `examples/` before you commit it: every user's model will read it.
"""

import json
from pathlib import Path

from app.conversations.kinds import PROFILE
from app.tools.search import system_text
from app.tools.service import TOOLS
from app.tools.tool import ToolOptions, Toolset

DIRECTORY = Path(__file__).parent / "examples"


def definitions(toolset: Toolset, options: ToolOptions) -> str:
    tools = [tool.definition(options) for tool in TOOLS if tool.toolset == toolset]
    shown = [tool.in_format("mcp") for tool in tools if tool is not None]
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"


def examples() -> dict[str, str]:
    """Return the examples by file name."""
    profiles = ToolOptions(kind=PROFILE, actions=("create", "update"))
    return {
        "agents.json": definitions("agents", ToolOptions()),
        "agents_profiles.json": definitions("agents", profiles),
        "mcp.json": definitions("mcp", ToolOptions(is_confined=False)),
        "search_queries.md": system_text(8, "Prefer recent <memory> trips.") + "\n",
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in examples().items():
        (DIRECTORY / name).write_text(text, "utf-8")
