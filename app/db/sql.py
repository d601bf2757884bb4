"""Composition of SQL text, with values bound as parameters."""


class Parameters:
    """Collects bound parameters while SQL text is composed; values never enter the text."""

    def __init__(self) -> None:
        self.values: list[object] = []

    def add(self, value: object, cast: str) -> str:
        """Bind `value` and return its placeholder with the cast, such as `$3::jsonb`.

        A jsonb parameter is bound as JSON text.
        """
        self.values.append(value)
        return f"${len(self.values)}::{cast}"
