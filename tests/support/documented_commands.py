"""Commands that the documentation shows: found in it, and carried out as its reader would."""

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)
_ANYTHING = "…"
_END = "--- the answer of a command ends here ---"
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and what the document says comes back; `…` stands for anything."""

    command: str
    answer: str

    def agrees_with(self, answered: str) -> bool:
        """Tell whether an answer is as shown; line breaks and spaces are the document's own."""
        shown, real = ("".join(text.split()) for text in (self.answer, answered))
        pattern = ".*?".join(map(re.escape, shown.split(_ANYTHING)))
        return re.fullmatch(pattern, real) is not None


def steps_in(document: str) -> list[Step]:
    """Return the steps of a document's `console` and `python` blocks, in order.

    In `console`, a line that begins with `$ ` is a command, which open quotes or a `\\` at the end
    carry on, and the lines after it are its answer; in `python`, comments after `print` are.
    """
    steps: list[Step] = []
    for kind, block in _FENCE.findall(document):
        steps += [_program(block)] if kind == "python" else _session(block)
    return steps


def carry_out(
    steps: Sequence[Step], environment: Mapping[str, str], directory: Path
) -> list[tuple[Step, str]]:
    """Run the steps in one shell; return each with what it answered."""
    script = "exec 2>&1\n" + "".join(f"{step.command}\necho; echo '{_END}'\n" for step in steps)
    shell = subprocess.run(
        ["bash", "-c", script],  # noqa: S607 - the reader's own bash
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=directory,
        env=dict(environment),
        timeout=_SECONDS,
    )
    return list(zip(steps, shell.stdout.split(_END), strict=False))


def _session(block: str) -> list[Step]:
    steps: list[Step] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = next(n for n in range(1, len(lines) + 1) if _is_whole("\n".join(lines[:n])))
        steps.append(Step("\n".join(lines[:length]), "\n".join(lines[length:])))
    return steps


def _is_whole(command: str) -> bool:
    """Tell whether a shell would run the command rather than wait for its next line."""
    try:
        shlex.split(command)
    except ValueError:  # a quotation or an escape is still open
        return False
    return not command.endswith("\\")


def _program(code: str) -> Step:
    return Step(f"python - <<'PROGRAM'\n{code}PROGRAM", "\n".join(_PRINTED.findall(code)))
