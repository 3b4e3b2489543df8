"""JSON schemas that the engine can hold an answer to.

The engine turns a schema into a grammar. A bound that contradicts another sends it into an endless loop,
and a very large enumeration or repetition keeps it busy for minutes, one slot and one thread each time; so
those are refused here, before they reach it.
"""

from __future__ import annotations

import re
from typing import Any

from freehold.errors import BadRequest, Unsupported

MAX_NODES = 5_000  # objects in a schema
MAX_CHOICES = 500  # values in all its enumerations together
MAX_REPEAT = 1_000  # items, properties or characters that a bound may ask for
_PAIRS = (
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minimum", "maximum"),
    ("minProperties", "maxProperties"),
)
_REPEAT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}")


def check(schema: Any, param: str) -> None:
    """Refuse what the engine could not get through.

    Raises:
        BadRequest: bounds that contradict each other, or are not whole numbers.
        Unsupported: it is too large.
    """
    nodes = choices = 0
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
            continue
        if not isinstance(node, dict):
            continue
        nodes += 1
        choices += len(node["enum"]) if isinstance(node.get("enum"), list) else 0
        if nodes > MAX_NODES or choices > MAX_CHOICES:
            raise Unsupported(
                f"The schema is too large: at most {MAX_NODES} objects and {MAX_CHOICES} values to choose from.",
                hint="Ask for less at once.", param=param,
            )  # fmt: skip
        _check_bounds(node, param)
        _check_pattern(node.get("pattern"), param)
        waiting += node.values()


def _check_bounds(node: dict[str, Any], param: str) -> None:
    for low_name, high_name in _PAIRS:
        low, high = node.get(low_name), node.get(high_name)
        counts = low_name != "minimum"
        for name, value in ((low_name, low), (high_name, high)):
            if counts and _is_number(value) and not 0 <= value <= MAX_REPEAT:
                raise Unsupported(f"{name} is {value}.", hint=f"It may be 0 to {MAX_REPEAT} here.", param=param)
        if _is_number(low) and _is_number(high) and low > high:
            raise BadRequest(
                f"{low_name} is {low} and {high_name} is {high}.", hint="No answer could fit.", param=param
            )


def _check_pattern(pattern: Any, param: str) -> None:
    if not isinstance(pattern, str):
        return
    for found in _REPEAT.finditer(pattern):
        low = int(found[1][:9])
        high = int(found[3][:9]) if found[3] else low
        if low > high or high > MAX_REPEAT:
            raise Unsupported(
                f"The pattern repeats {found[0]}.",
                hint=f"From less to more, and at most {MAX_REPEAT} times.",
                param=param,
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
