"""Managers as the rest of the program sees them."""

from dataclasses import dataclass
from datetime import datetime

from app.json_values import JsonText


@dataclass(frozen=True, slots=True)
class Manager:
    """A stored manager; `config` is the JSON text that was sent."""

    name: str
    config: JsonText
    version: int
    created_at: datetime
    updated_at: datetime
