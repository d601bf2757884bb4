"""The texts that models are sent change only on purpose."""

import pytest

from tests.tools.make_examples import DIRECTORY, examples


@pytest.mark.parametrize("name", examples())
def test_models_are_sent_the_pinned_texts(name: str) -> None:
    pinned = (DIRECTORY / name).read_text("utf-8")
    assert examples()[name] == pinned, "`python -m tests.tools.make_examples` rewrites it"


def test_every_example_is_pinned() -> None:
    assert {file.name for file in DIRECTORY.iterdir()} == set(examples())
