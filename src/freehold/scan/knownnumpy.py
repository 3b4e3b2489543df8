"""What a pickle may use of NumPy: arrays whose bytes fit their type, by the paths of numpy 1 and 2; joblib's wrapper.

Format: numpy 2.4, ndarray.__setstate__ and dtype.__setstate__, which believe the lengths and flags that they are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from freehold.scan.dtype import MAX_ITEM, DType, typestr
from freehold.scan.known import Known, Refused, boolean, call, is_global, kinds, named, optional, words
from freehold.scan.values import Ambiguous, Global, Node, is_int, is_node, length, numbers

_USED = "used"  # the state of a type that something was made with
_HOLDS_OBJECTS = 0x1B  # numpy's item flags: counted references, pickled as a list, needs setting up, needs Python


def _dtype(source: Global, args: Sequence[Any]) -> Node:
    """numpy.dtype('f8', False, True), and numpy.record in place of the text."""
    if not 1 <= len(args) <= 3 or not all(map(boolean, args[1:])):
        raise Refused("unusual arguments")
    text = args[0].value if type(args[0]) is Ambiguous else args[0]
    if is_global(text, "numpy.record"):
        text = "V0"
    found = (
        typestr(text.decode("ascii", "replace") if type(text) is bytes else text)
        if type(text) in (str, bytes)
        else None
    )
    if found is None:
        raise Refused("no type of elements")
    return Node("dtype", source=source, args=args, note=found)


def element(kind: Any) -> DType:
    """The type that a value stands for; from now on it may not change under what is made with it. Raises Refused."""
    if not is_node(kind, "dtype") or kind.note is None:
        raise Refused("no type of elements")
    if kind.state is None:
        kind.state = _USED
    return kind.note


def build_dtype(node: Node, state: Any) -> None:
    """dtype.__setstate__: the layout of fields and the flags, which numpy believes. Raises Refused."""
    if not is_node(state, "tuple") or state.cut or not 8 <= state.count <= 9 or len(node.args) != 3 or not node.args[2]:
        raise Refused("no layout")
    version, order, sub, names, fields, size, _, flags, *_ = state.items
    flags = ord(flags) if type(flags) is str and len(flags) == 1 else flags
    if not (is_int(version) and 1 <= version <= 4 and order in ("<", ">", "|", "=", b"<", b">", b"|", b"=")):
        raise Refused("an unknown layout")
    if not (is_int(size) and is_int(flags) and size < MAX_ITEM):
        raise Refused("impossible sizes")
    letter, known, objects = node.note
    if size >= 0:
        if letter not in "SUVa" or (known and size != known):
            raise Refused("a size that its type does not have")
        known = size
    if sub is not None or fields is not None:
        if letter != "V":
            raise Refused("fields in what has none")
        objects = _fields(fields, names, known) if fields is not None else _subarray(sub, known)
    if bool(flags & 1) != objects or (objects and flags & _HOLDS_OBJECTS != _HOLDS_OBJECTS):
        raise Refused("flags that call bytes objects, or objects bytes")
    node.note, node.state = DType(letter, known, objects), state


def _fields(fields: Any, names: Any, size: int) -> bool:
    if not is_node(fields, "dict") or fields.cut or not is_node(names, "tuple"):
        raise Refused("no fields")
    objects = False
    for field in fields.items[1::2]:
        if not is_node(field, "tuple") or not 2 <= field.count <= 3 or field.cut:
            raise Refused("a field without a type and a place")
        kind, offset = element(field.items[0]), field.items[1]
        if not is_int(offset) or not 0 <= offset <= size - kind.size:
            raise Refused("a field that reaches past its element")
        objects |= kind.objects
    return objects


def _subarray(sub: Any, size: int) -> bool:
    inner = sub.items if is_node(sub, "tuple") and sub.count == 2 and not sub.cut else (None, None)
    shape = (inner[1],) if is_int(inner[1]) else numbers(inner[1])
    kind = element(inner[0])
    if shape is None or kind.size * math.prod(shape) != size:
        raise Refused("a sub-array of another size")
    return kind.objects


def build_array(node: Node, state: Any) -> None:
    """ndarray.__setstate__: version, shape, type, order and the bytes, which must be as many. Raises Refused."""
    if not is_node(state, "tuple") or state.cut or not 4 <= state.count <= 7 or node.source.name not in _BUILT:
        raise Refused("no array")
    masked = 2 if state.count > 5 else 0  # a masked array has its mask and its filler behind
    shape, kind, _, raw = state.items[state.count - 4 - masked : state.count - masked]
    lengths, found = numbers(shape), element(kind)
    if lengths is None:
        raise Refused("no shape")
    count = math.prod(lengths)
    if found.objects:
        if not is_node(raw, "list") or raw.count != count:
            raise Refused("another number of objects than its shape has")
    elif length(raw) != count * found.size:
        raise Refused("another number of bytes than its shape and type have")
    node.state = state


def _scalar(source: Global, args: Sequence[Any]) -> Node:
    if len(args) != 2:
        raise Refused("no type and value")
    kind = element(args[0])
    if not kind.objects and (length(args[1]) is None or length(args[1]) < kind.size):
        raise Refused("fewer bytes than its type has")
    return Node("scalar", source=source, args=args)


def _frombuffer(source: Global, args: Sequence[Any]) -> Node:
    if len(args) != 4 or length(args[0]) is None:
        raise Refused("no bytes")
    shape, kind = numbers(args[2]), element(args[1])
    if shape is None or args[3] not in ("C", "F", "A", "K") or kind.objects:
        raise Refused("no shape, or a type with objects")
    if length(args[0]) != math.prod(shape) * kind.size:
        raise Refused("another number of bytes than its shape and type have")
    return Node("array", source=source, args=args)


def _byte_letter(value: Any) -> bool:
    return value in ("b", b"b")


def _string_dtype(source: Global, args: Sequence[Any]) -> Node:
    if len(args) > 2 or not all(value is None or type(value) in (bool, int, str, float) for value in args):
        raise Refused("unusual arguments")
    return Node("dtype", source=source, args=args, note=DType("T", 16, True))


def _nothing(value: Any) -> bool:
    """(0,), which numpy begins every array with."""
    return numbers(value) == (0,)


_EMPTY = call("array", named("array-type"), _nothing, _byte_letter)
_MASKED = call("array", named("array-type"), named("array-type"), _nothing, _byte_letter)
_BUILT = ("_reconstruct", "_mareconstruct")  # what makes an array that is given its state afterwards
_ARRAYS = {name: Known("array-type") for name in ("ndarray", "matrix", "recarray", "chararray")}


def _generator(value: Any) -> bool:
    """A generator of bits, its class, or its name."""
    return kinds("random")(value) or named("bit-generator")(value) or value in _BIT_GENERATORS


_BIT_GENERATOR = call("random", _generator, least=0)
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_SEQUENCES = {"SeedSequence": Known("seeds"), "SeedlessSeedSequence": Known("seeds")}
_SEEDS = call("random", named("seeds"), is_int, optional(kinds("tuple")))


NUMPY = {
    "numpy": {
        **_ARRAYS, "dtype": Known("dtype-type", _dtype), "record": Known(),
        **dict.fromkeys(
            words("""bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble
            complex64 complex128 clongdouble object_ str_ bytes_ void datetime64 timedelta64 intc uintc longlong
            ulonglong generic number integer signedinteger unsignedinteger inexact floating complexfloating float96
            float128 complex256 int_ uint int uint0 int0 str unicode_ string_"""),
            Known(),
        ),
    },
    "numpy.ma": {"MaskedArray": Known("array-type")},
    "numpy.ma.core": {"MaskedArray": Known("array-type"), "_mareconstruct": _MASKED},
    "numpy.matrixlib.defmatrix": {"matrix": Known("array-type")},
    "numpy.rec": _ARRAYS,
    "numpy.random._pickle": {
        "__bit_generator_ctor": _BIT_GENERATOR._replace(kind="bit-generator-constructor"),
        **dict.fromkeys(
            ("__randomstate_ctor", "__generator_ctor"),
            call("random", _generator, named("bit-generator-constructor"), least=0),
        ),
    },
    "numpy.random": {
        "__RandomState_ctor": call("random"), "bit_generator": Known(),
    },
    "numpy.random.bit_generator": {
        **_SEQUENCES, "__pyx_unpickle_SeedSequence": _SEEDS, "__pyx_unpickle_SeedlessSeedSequence": _SEEDS,
    },
    "numpy.random.mtrand": {"__RandomState_ctor": call("random")},
    **{
        f"numpy.random._{module}": {name: Known("bit-generator")}
        for module, name in zip(("mt19937", "pcg64", "pcg64", "philox", "sfc64"), _BIT_GENERATORS, strict=True)
    },
    "numpy.random._pcg64": {"PCG64": Known("bit-generator"), "PCG64DXSM": Known("bit-generator")},
    **{
        f"numpy.{core}.{module}": names
        for core in ("core", "_core")
        for module, names in {
            "multiarray": {"_reconstruct": _EMPTY, "scalar": Known("scalar", _scalar), **_ARRAYS},
            "_multiarray_umath": {"_reconstruct": _EMPTY, "scalar": Known("scalar", _scalar)},
            "numeric": {"_frombuffer": Known("array", _frombuffer)},
            "records": _ARRAYS,
            "_internal": {"_reconstruct": _EMPTY, "_convert_to_stringdtype_kwargs": Known("dtype", _string_dtype)},
        }.items()
    },
    "joblib.numpy_pickle": {"NumpyArrayWrapper": call("joblib")},
}  # fmt: skip
