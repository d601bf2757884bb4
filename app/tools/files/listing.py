"""How a directory is shown: what is in it, two levels deep, with sizes."""

from collections.abc import Iterable

from app.tools.files.paths import is_hidden, path_of

DEPTH = 2
MAX_FILES = 1_000
"""Read for a listing, in order of their names; their lines are some 10,000 tokens."""

_UNITS = "BKMG"


def listing(directory: str, files: Iterable[tuple[str, int]], *, is_cut: bool) -> str:
    """Return a directory (its key) with its files (keys and bytes) and the directories in it."""
    start = f"{directory}/" if directory else ""
    sizes: dict[str, int] = {}
    total = 0
    for key, size in files:
        if is_hidden(key.removeprefix(start)):
            continue
        total += size
        for entry in _entries(key.removeprefix(start)):
            sizes[entry] = sizes.get(entry, 0) + size
    path = path_of(directory)
    lines = [
        f"Here're the files and directories up to {DEPTH} levels deep in {path}, "
        "excluding hidden items and node_modules:",
        f"{readable(total)}\t{path}",
        *(f"{readable(size)}\t{path}/{entry}" for entry, size in sizes.items()),
    ]
    if is_cut:
        lines.append(
            f"(There are more: only the first {MAX_FILES:,} files in order of their names were "
            "looked at. View a directory in it to see its files.)"
        )
    return "\n".join(lines)


def readable(size: int) -> str:
    """Return a number of bytes as people write it, such as 1.5K."""
    amount, unit = float(size), 0
    while round(amount, 1) >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{size}B" if unit == 0 else f"{amount:.1f}{_UNITS[unit]}"


def _entries(name: str) -> list[str]:
    """Return the lines that a file counts for: directories, which end in a slash, and its own."""
    parts = name.split("/")
    directories = ["/".join(parts[:depth]) + "/" for depth in range(1, min(len(parts), DEPTH + 1))]
    return directories if len(parts) > DEPTH else [*directories, name]
