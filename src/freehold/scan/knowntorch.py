"""What a pickle may use of PyTorch: storages, types, and the functions that lay tensors over storages.

Format: torch 2.13, torch/_utils.py, torch/_tensor.py; by and large what torch/_weights_only_unpickler.py lets pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from freehold.scan.known import (
    Check,
    Known,
    Refused,
    anything,
    attributes,
    boolean,
    call,
    kinds,
    named,
    number,
    optional,
    shape,
    text,
    words,
)
from freehold.scan.values import Global, Node, is_int, is_node, numbers


def _no_hooks(value: Any) -> bool:
    return value is None or (is_node(value, "dict") and value.count == 0)


_WIDTHS = {  # bytes of an element, by the name of the class before Storage or Tensor
    name: width
    for width, names in {
        1: "Char Byte Bool QInt8 QUInt8 QUInt4x2 QUInt2x4 Untyped", 2: "Half BFloat16 Short", 4: "Float Int QInt32",
        8: "Double Long ComplexFloat", 16: "ComplexDouble",
    }.items()
    for name in names.split()
}  # fmt: skip
_DTYPES = {
    name: width
    for width, names in {
        1: """bool int8 uint8 qint8 quint8 quint4x2 quint2x4 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz
        float8_e8m0fnu float4_e2m1fn_x2 bits8 bits1x8 bits2x4 bits4x2 int1 int2 int3 int4 int5 int6 int7 uint1 uint2
        uint3 uint4 uint5 uint6 uint7""",
        2: "float16 half bfloat16 int16 short uint16 bits16",
        4: "float32 float int32 int uint32 qint32 complex32 chalf",
        8: "float64 double int64 long uint64 complex64 cfloat", 16: "complex128 cdouble",
    }.items()
    for name in names.split()
}  # fmt: skip


class Storage(NamedTuple):
    """Where tensors lie: ``key`` names the storage, which has ``count`` elements of ``width`` bytes each, of the type
    ``type`` (Float, Half, ...; '' where it does not say)."""

    key: str
    count: int
    width: int
    location: str = ""
    type: str = ""


def torch_type(module: str, name: str) -> Known | None:
    """torch's classes of storages and tensors by the type of their elements, in main memory or on a device."""
    for kind in ("Storage", "Tensor"):
        width = _WIDTHS.get(name.removesuffix(kind).lstrip("_")) if name.endswith(kind) else None
        if width and module in _TYPE_MODULES:
            return Known(f"{kind.lower()}-type", None, width)
    return None


_TYPE_MODULES = ("torch", "torch.storage", "torch.cuda", "torch.sparse", "torch.cuda.sparse")


def _within(storage: Any, offset: Any, size: Any, stride: Any, width: int | None = None) -> None:
    """A view must lie inside its storage. ``width``: bytes of an element, where the storage does not tell."""
    if not is_node(storage, "storage") or not is_int(offset) or offset < 0:
        raise Refused("no storage")
    lengths, steps = numbers(size), numbers(stride)
    if lengths is None or steps is None or len(lengths) != len(steps):
        raise Refused("no shape")
    found = storage.note
    if found is None or not all(lengths):
        return
    needed = 1 + offset + sum((count - 1) * step for count, step in zip(lengths, steps, strict=True))
    if needed * (width or found.width) > found.count * found.width:
        raise Refused("a view that reaches past its storage")


def _tensor(*more: Check, least: int) -> Known:
    """A rebuilder whose first four arguments are storage, offset, size and stride."""
    rest = call("tensor", anything, anything, anything, anything, *more, least=least)

    def make(source: Global, args: Sequence[Any]) -> Node:
        node = rest.make(source, args)
        widths = [value.known.note for value in args[4:] if type(value) is Global and value.known]
        _within(*args[:4], width=widths[0] if widths else None)
        return node

    return Known("tensor", make)


_dtype_name = named("torch-dtype")


def _device(value: Any) -> bool:
    return type(value) is str or is_node(value, "device")


def _array(value: Any) -> bool:
    """An array that has its content, which cannot change any more under the tensor that shares it."""
    if not is_node(value, "array") or value.kind == "unknown":
        return is_node(value)
    return value.state is not None or value.source.name == "_frombuffer"


def _quantizer(value: Any) -> bool:
    """(scheme, scale, zero point) or (scheme, scales, zero points, axis)."""
    return (
        is_node(value, "tuple") and not value.cut and 3 <= value.count <= 4 and named("scheme")(value.items[0])
        and all(number(part) or is_node(part, "tensor") for part in value.items[1:])
    )  # fmt: skip


def _sparse(value: Any) -> bool:
    return is_node(value, "tuple") and not value.cut and all(
        part is None or type(part) is bool or is_node(part, "tensor", "size", "tuple") for part in value.items
    )  # fmt: skip


def _from_type(source: Global, args: Sequence[Any]) -> Node:
    """torch._tensor._rebuild_from_type_v2(rebuilder, type, arguments, attributes): a tensor with attributes."""
    if len(args) != 4 or type(args[0]) is not Global or type(args[1]) is not Global or not is_node(args[2], "tuple"):
        raise Refused("no rebuilder and type")
    if args[0].known is None or args[1].known is None:
        return Node("unknown", source=source)  # reported when they were imported
    if (
        args[0].known.kind != "tensor"
        or args[0].known.make is None
        or args[1].known.kind != "tensor-type"
        or args[2].cut
    ):
        raise Refused("a rebuilder or type that is not a tensor's")
    if not attributes(args[3]):
        raise Refused("attributes that are not plain")
    return args[0].known.make(args[0], args[2].items)


def _from_bytes(source: Global, args: Sequence[Any]) -> Node:
    """torch.storage._load_from_bytes: a file of torch.save within; judged when its bytes were read."""
    if len(args) != 1 or not is_node(args[0], "judged"):
        raise Refused("bytes that could not be judged")
    return Node("storage", source=source, args=args)


def _tagged(args: Sequence[Any]) -> Any:
    if len(args) != 2 or type(args[1]) is not str or type(args[0]) is Global:
        raise Refused("no value and type")
    return args[0]


_REBUILDERS = {
    "_rebuild_tensor": _tensor(least=4),
    "_rebuild_tensor_v2": _tensor(boolean, _no_hooks, optional(kinds("dict")), least=5),
    "_rebuild_tensor_v3": _tensor(boolean, _no_hooks, _dtype_name, optional(kinds("dict")), least=7),
    "_rebuild_qtensor": _tensor(_quantizer, boolean, _no_hooks, least=6),
    "_rebuild_sparse_tensor": call("tensor", kinds("layout"), _sparse),
    "_rebuild_sparse_csr_tensor": call("tensor", kinds("layout"), _sparse),
    "_rebuild_nested_tensor": call("tensor", *[kinds("tensor")] * 4),
    "_rebuild_meta_tensor_no_storage": call("tensor", _dtype_name, shape, shape, boolean),
    "_rebuild_device_tensor_from_numpy": call("tensor", _array, _dtype_name, _device, boolean),
    "_rebuild_xla_tensor": call("tensor", _array, _dtype_name, _device, boolean),
    "_rebuild_device_tensor_from_cpu_tensor": call("tensor", kinds("tensor"), _dtype_name, _device, boolean),
    "_rebuild_parameter": call("tensor", kinds("tensor"), boolean, _no_hooks),
    "_rebuild_parameter_with_state": call("tensor", kinds("tensor"), boolean, _no_hooks, attributes),
}
_FORMATS = (
    "strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "contiguous_format",
    "channels_last", "channels_last_3d", "preserve_format",
)  # fmt: skip
TORCH = {
    "torch": {
        "Size": call("size", lambda value: numbers(value) is not None, least=0), "Tensor": Known("tensor-type"),
        "device": call("device", text, is_int, least=1),
        **{name: Known("torch-dtype", None, width) for name, width in _DTYPES.items()},
        **dict.fromkeys(
            words("""per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric
            per_channel_affine_float_qparams"""),
            Known("scheme"),
        ),
        **dict.fromkeys(_FORMATS, Known()),
    },
    "torch._utils": _REBUILDERS | {f"torch.{name}": Known() for name in _FORMATS},
    "torch._tensor": {"Tensor": Known("tensor-type"), "_rebuild_from_type_v2": Known("value", _from_type)},
    "torch.nn.parameter": {name: Known("tensor-type") for name in ("Parameter", "Buffer")},
    "torch.serialization": {"_get_layout": call("layout", text)},
    "torch.storage": {"_load_from_bytes": Known("value", _from_bytes)},
    "torch.jit._pickle": {  # TorchScript's own; the archive is held for its code
        **{f"build_{kind}list": call("list", kinds("list", "tuple")) for kind in ("int", "bool", "double", "tensor")},
        "restore_type_tag": Known("value", lambda source, args: _tagged(args)),
    },
    "torch.torch_version": {"TorchVersion": call("plain", text)},
}  # fmt: skip
