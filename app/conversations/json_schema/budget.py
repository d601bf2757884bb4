"""The budget for checking content (docs/decisions/0016-bounded-schemas.md)."""

MAX_CHECKS = 30_000
"""One check is one sub-schema applied to one value; long texts and patterns count for more.

All of them take at most a tenth of a second, in Python code that lets other threads run.
"""


class TooManyChecksError(Exception):
    """Checking content exceeds its budget."""

    def __init__(self, limit: str) -> None:
        super().__init__(
            f"takes more than {limit} to check against its schema; "
            "shorten the content or simplify the schema"
        )


class Budget:
    """Counts checks; one budget may serve several contents."""

    def __init__(self, checks: int = MAX_CHECKS) -> None:
        self._checks = checks
        self._left = checks

    @property
    def spent(self) -> int:
        """The checks made so far."""
        return self._checks - self._left

    def spend(self, checks: int) -> None:
        """Count checks; raises TooManyChecksError if there were too many."""
        self._left -= checks
        if self._left < 0:
            raise TooManyChecksError(f"{self._checks:,} checks")
