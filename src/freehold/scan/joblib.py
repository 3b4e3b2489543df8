"""joblib's arrays in the middle of a pickle: their raw bytes follow the object that describes them.

Format: joblib 1.6, numpy_pickle.py, NumpyArrayWrapper: since 1.2 one byte tells how many 0xFF follow it, so that the
data is aligned; arrays of objects are a pickle of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from freehold.scan.base import BLOCK, HOLD, Malformed, Rule
from freehold.scan.known import Refused
from freehold.scan.knownnumpy import element
from freehold.scan.values import Global, Node, is_int, is_node, numbers

if TYPE_CHECKING:
    from freehold.scan.machine import Machine

ARRAY = Rule(
    "joblib.array", BLOCK, "An array that lies between the instructions is described in an impossible way.",
    "Do not load it. Ask the publisher.", "joblib, numpy_pickle.py: NumpyArrayWrapper",
)  # fmt: skip
TWOFOLD = Rule(
    "joblib.twofold", HOLD, "The data of an array would be run as a program by a reader that is not joblib.",
    "Load it with joblib only, or decide by name and reason.", "CWE-436",
)  # fmt: skip
_TRIED = 1 << 14  # bytes
_KEYS = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}


def read(machine: Machine, node: Node, would_run: Callable[[bytes], bool]) -> Any:
    """What the array is that follows its description, ``node``; ``would_run`` tells whether bytes would import or call
    something as instructions. Raises Malformed."""
    items = node.state.items if is_node(node.state, "dict") and not node.state.cut else []
    wanted = dict(zip(items[::2], items[1::2], strict=True))
    shape = numbers(wanted.get("shape"))
    try:
        kind = element(wanted.get("dtype"))
    except Refused:
        raise Malformed(ARRAY, machine.start) from None
    if not set(wanted) <= _KEYS or shape is None:
        raise Malformed(ARRAY, machine.start)
    if wanted.get("order") not in ("C", "F") or not _is_array(wanted.get("subclass")):
        raise Malformed(ARRAY, machine.start)
    machine.listener.format = "joblib"
    machine.reader.outside()
    if kind.objects:
        machine.reader.sync()
        inner = type(machine)(machine.reader.tape, machine.listener, machine.arrays)
        made = inner.run()
        machine.imported |= inner.imported
        return made
    count, alignment = math.prod(shape) * kind.size, wanted.get("numpy_array_alignment_bytes")
    if alignment is not None:
        _padding(machine, alignment)
    elif would_run(machine.reader.ahead(min(count, _TRIED))):
        machine.listener.add(TWOFOLD, machine.reader.at)
    machine.reader.bulk(count).data(count)
    return Node("array", source=node.source)


def _padding(machine: Machine, alignment: Any) -> None:
    if not is_int(alignment) or not 0 < alignment <= 255:
        raise Malformed(ARRAY, machine.start)
    count = machine.reader.take(1)[0]
    if count > alignment or machine.reader.take(count).strip(b"\xff"):
        raise Malformed(ARRAY, machine.start, "The bytes that align an array are not the ones that joblib writes.")


def _is_array(value: Any) -> bool:
    return type(value) is Global and (value.known is None or value.known.kind == "array-type")
