"""Settings are documented with their defaults, and bad ones are explained."""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config import Settings, unknown_variables

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
_SETTING = re.compile(r"^#([A-Z_]+)=(.*)$", re.MULTILINE)


def examples() -> dict[str, str]:
    return dict(_SETTING.findall(EXAMPLE.read_text()))


def variables() -> dict[str, str]:
    """Return the name of the environment variable of each setting."""
    return {
        name: name.upper() if field.validation_alias else f"MEMORYD_{name.upper()}"
        for name, field in Settings.model_fields.items()
    }


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    assert list(examples()) == list(variables().values())


def test_a_body_has_room_for_a_value() -> None:
    assert Settings(max_body_bytes=4096, max_value_bytes=1024).max_body_bytes == 4096
    with pytest.raises(ValidationError, match="does not fit into 8,388,608 bytes"):
        Settings(max_value_bytes=8 << 20)
    with pytest.raises(ValidationError, match="set at least 4097"):
        Settings(max_body_bytes=4096, max_value_bytes=1025)


def test_what_is_no_setting_is_named_with_the_nearest_that_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MEMORYD_")]:
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text("MEMORYD_EMBEDING=none\nMEMORYD_LLM=openai:m\n")
    monkeypatch.setenv("MEMORYD_NONSENSE_OF_ALL_KINDS", "1")
    monkeypatch.setenv("MEMORYD_API_KEY", "mk_1_2")
    monkeypatch.setenv("MEMORYD_PORT", "80")
    assert unknown_variables() == [
        "MEMORYD_EMBEDING is not a setting; did you mean MEMORYD_EMBEDDING?",
        "MEMORYD_NONSENSE_OF_ALL_KINDS is not a setting; docs/reference/settings.md lists them.",
    ]


def test_the_example_gives_the_real_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in variables().values():
        monkeypatch.delenv(variable, raising=False)
    defaults = Settings(_env_file=None)
    for variable, value in examples().items():
        monkeypatch.setenv(variable, value)
    assert Settings(_env_file=None) == defaults


def test_empty_examples_are_those_without_a_default() -> None:
    empty = {variable for variable, value in examples().items() if not value}
    without = {
        variables()[n] for n, field in Settings.model_fields.items() if field.default is None
    }
    assert empty == without


def test_every_line_of_the_example_is_a_comment_or_blank() -> None:
    assert [line for line in EXAMPLE.read_text().splitlines() if line and line[0] != "#"] == []


def test_every_setting_of_the_example_is_explained_above_it() -> None:
    lines = EXAMPLE.read_text().splitlines()
    bare = [
        line
        for before, line in pairwise(lines)
        if _SETTING.match(line) and not before.startswith("# ")
    ]
    assert bare == []


def test_there_are_at_most_sixty_settings() -> None:
    assert len(Settings.model_fields) <= 60
