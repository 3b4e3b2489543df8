"""The one spelling of a JSON document: what is hashed and signed, here and by whoever checks it without us.

It is what Python's own ``json`` writes: keys sorted, no spaces, nothing escaped that need not be, UTF-8, numbers as
Python shows them.
"""

from __future__ import annotations

import json
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(document: Any) -> str:
    """``json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)``. Raises ValueError where a
    number is none, TypeError where JSON has no such thing."""
    return _ENCODER.encode(document)
