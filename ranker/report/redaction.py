"""Keeps secrets that someone put into a configuration out of what is handed around."""

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "(redacted)"

_SECRET = re.compile(
    r"token|secret|password|passwd|credential|api_?key|private_?key", re.IGNORECASE
)


def redact(value: Any) -> Any:
    """The value with everything below a key that sounds like a secret replaced."""
    if isinstance(value, Mapping):
        return {
            key: REDACTED if _SECRET.search(str(key)) and item is not None else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [redact(item) for item in value]
    return value
