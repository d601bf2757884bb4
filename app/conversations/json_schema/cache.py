"""A cache of validators, limited by their memory."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from app.conversations.json_schema.evaluation import Validator

MAX_BYTES = 64 << 20


class ValidatorCache:
    """Keeps validators by the JSON of their schemas; threads may share it."""

    def __init__(
        self, compile_schema: Callable[[str], Validator], max_bytes: int = MAX_BYTES
    ) -> None:
        self._compile = compile_schema
        self._max_bytes = max_bytes
        self._validators: OrderedDict[str, Validator] = OrderedDict()
        self._lock = Lock()
        self.bytes = 0

    def get(self, schema: str) -> Validator:
        """Return the validator of a schema; raises what `compile_schema` raises."""
        with self._lock:
            if (known := self._validators.get(schema)) is not None:
                self._validators.move_to_end(schema)
                return known
        validator = self._compile(schema)
        with self._lock:
            if schema not in self._validators:
                self._validators[schema] = validator
                self.bytes += validator.bytes
            while self.bytes > self._max_bytes:
                _, oldest = self._validators.popitem(last=False)
                self.bytes -= oldest.bytes
        return validator
