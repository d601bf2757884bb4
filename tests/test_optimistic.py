"""Optimistic retries."""

import pytest

from app.db.database import OvertakenError, TooManyConflictsError, retry_optimistically


class Attempt:
    """Fails a number of times before it succeeds."""

    def __init__(self, failures: int, error: type[Exception] = OvertakenError) -> None:
        self.failures = failures
        self.error = error

    async def __call__(self) -> str:
        if self.failures:
            self.failures -= 1
            raise self.error
        return "done"


async def test_an_overtaken_attempt_is_repeated() -> None:
    assert await retry_optimistically(Attempt(2), attempts=3) == "done"


async def test_the_last_attempt_gives_up() -> None:
    with pytest.raises(TooManyConflictsError):
        await retry_optimistically(Attempt(3), attempts=3)


async def test_other_errors_are_not_retried() -> None:
    with pytest.raises(LookupError):
        await retry_optimistically(Attempt(1, LookupError))
    assert await retry_optimistically(Attempt(1, LookupError), on=(LookupError,)) == "done"
