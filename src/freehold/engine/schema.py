"""JSON schemas that the engine can hold an answer to.

The engine turns a schema into a grammar. A bound that contradicts another sends it into an endless loop,
and a very large enumeration or repetition keeps it busy for minutes, one slot and one thread each time; so
those are refused here, before they reach it.
"""

from __future__ import annotations

import math
import re
from typing import Any

from freehold.errors import BadRequest, Unsupported

MAX_NODES = 1_000  # objects in a schema
MAX_DEPTH = 50
MAX_CHOICES = 300  # values in all its enumerations together
MAX_PROPERTIES = 200  # of one object
MAX_REPEAT = 1_000  # items, properties or characters that a bound may ask for
MAX_NUMBER = 10**15 - 1  # with more digits the engine never comes to an end
MAX_PATTERN = 300  # characters
MAX_PATTERN_REPEAT = 300  # the repetitions of one pattern, multiplied
MAX_GROUP_REPEAT = 16
_SIZES = (("minItems", "maxItems"), ("minLength", "maxLength"), ("minProperties", "maxProperties"))
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")  # lower and upper in turn
_REPEAT = re.compile(r"(\))?\s*\{\s*(\d+)\s*(?:(,)\s*(\d*)\s*)?\}")


def check(schema: Any, param: str) -> None:
    """Refuse what the engine could not get through.

    Raises:
        BadRequest: bounds that contradict each other, or are not whole numbers.
        Unsupported: it is too large.
    """
    nodes = choices = 0
    waiting = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        inner = node if isinstance(node, list) else node.values() if isinstance(node, dict) else ()
        waiting += [(value, depth + 1) for value in inner]
        if not isinstance(node, dict):
            continue
        nodes += 1
        choices += len(node["enum"]) if isinstance(node.get("enum"), list) else 0
        wide = isinstance(node.get("properties"), dict) and len(node["properties"]) > MAX_PROPERTIES
        if wide or nodes > MAX_NODES or depth > MAX_DEPTH or choices > MAX_CHOICES:
            raise Unsupported(
                f"The schema is too large: at most {MAX_NODES} objects, {MAX_DEPTH} deep, of {MAX_PROPERTIES} "
                f"properties each, and {MAX_CHOICES} values to choose from.",
                hint="Ask for less at once.",
                param=param,
            )
        _check_bounds(node, param)
        _check_pattern(node.get("pattern"), param)


def _check_bounds(node: dict[str, Any], param: str) -> None:
    for low_name, high_name in _SIZES:
        low, high = node.get(low_name), node.get(high_name)
        for name, value in ((low_name, low), (high_name, high)):
            if _is_number(value) and not (0 <= value <= MAX_REPEAT and value == int(value)):
                raise Unsupported(
                    f"{name} is {value}.", hint=f"It may be a whole number from 0 to {MAX_REPEAT} here.", param=param
                )
        if _is_number(low) and _is_number(high) and low > high:
            raise BadRequest(f"{low_name} is {low}, {high_name} is {high}.", hint="No answer could fit.", param=param)
    _check_numbers({name: node[name] for name in _NUMBERS if _is_number(node.get(name))}, node.get("type"), param)


def _check_numbers(bounds: dict[str, float], kind: Any, param: str) -> None:
    for name, value in bounds.items():
        if abs(value) > MAX_NUMBER:
            raise Unsupported(f"{name} is {value}.", hint="It may have 15 digits here.", param=param)
    # as (bound, is it excluded?), so that of two equal ones the narrower is the larger, or the smaller
    low = max([(bounds[name], name != "minimum") for name in _NUMBERS[::2] if name in bounds], default=None)
    high = min([(bounds[name], name == "maximum") for name in _NUMBERS[1::2] if name in bounds], default=None)
    if low is None or high is None:
        return
    least, most = low[0], high[0]
    if kind == "integer":
        least = math.floor(least) + 1 if low[1] else math.ceil(least)
        most = math.floor(most) if high[1] else math.ceil(most) - 1
    if least > most or (least == most and kind != "integer" and (low[1] or not high[1])):
        said = ", ".join(f"{name} is {value}" for name, value in bounds.items())
        raise BadRequest(f"{said}.", hint="No number could fit.", param=param)


def _check_pattern(pattern: Any, param: str) -> None:
    if not isinstance(pattern, str):
        return
    total = 1
    for group, low, comma, high in _REPEAT.findall(pattern):
        least = int(low[:9])
        most = int(high[:9]) if high else 2 * max(least, 1) if comma else least
        total *= max(most, 1)
        if least > most or (group and most > MAX_GROUP_REPEAT):
            total = MAX_PATTERN_REPEAT + 1
    if total > MAX_PATTERN_REPEAT or len(pattern) > MAX_PATTERN:
        raise Unsupported(
            f"The pattern {pattern[:60]!r} is too much for the engine.",
            hint=f"At most {MAX_PATTERN} characters, repetitions from less to more and {MAX_PATTERN_REPEAT} in all, "
            f"of a group {MAX_GROUP_REPEAT}.",
            param=param,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
