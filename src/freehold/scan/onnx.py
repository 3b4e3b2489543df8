"""ONNX: every node, attribute, sub-graph, function and tensor is read; no tensor may come from outside the folder.

Format: onnx.proto of ONNX 1.22 (IR version 14) and its page on external data. Facts: `external` (a list of
{location, offset, length}, for whoever sees the folder to check), `opsets`, `producer`.
"""

from __future__ import annotations

import math
import re
from typing import Any

from freehold.scan import beside, protobuf
from freehold.scan.base import ASK, BLOCK, FETCH_AGAIN, HOLD, Report, Rule
from freehold.scan.protobuf import Message, Passed
from freehold.scan.tape import Tape

FORMAT = "onnx"
MAX_EXTERNAL = 50_000
MAX_VALUES = 1 << 48
MAX_OFFSET = 1 << 50
MAX_SEEN = 10_000

_EXTERNAL = "ONNX, External Data; CVE-2022-25882, CVE-2024-27318, CVE-2026-27489"
LOCATION = Rule(
    "onnx.external.location", BLOCK, "A tensor's data would be read from outside the model's folder.",
    "Do not load it. Ask the publisher for a model whose data lies beside it.", _EXTERNAL,
)  # fmt: skip
MEMORY = Rule(
    "onnx.external.memory", BLOCK, "A tensor's data would be read from an address in the engine's own memory.",
    "Do not load it.", "ONNX Runtime, kTensorProtoMemoryAddressTag; microsoft/onnxruntime#28617",
)  # fmt: skip
RANGE = Rule(
    "onnx.external.range", BLOCK, "The offset or length of a tensor's external data cannot be true.", FETCH_AGAIN,
    "ONNX, External Data",
)  # fmt: skip
KEY = Rule(
    "onnx.external.key", BLOCK, "External data is described by a key that stands twice, or lacks its location.",
    FETCH_AGAIN, "ONNX, External Data; microsoft/onnxruntime#32135",
)  # fmt: skip
FOREIGN = Rule(
    "onnx.external.foreign", HOLD, "External data is described by a key that the format does not have.",
    "Ask the publisher what it is for; decide by name and reason.", "ONNX, External Data",
)  # fmt: skip
SHAPE = Rule("onnx.shape", BLOCK, "A tensor's shape and its data disagree.", FETCH_AGAIN, "onnx.proto, TensorProto")
TYPE = Rule("onnx.type", HOLD, "A tensor has an element type that is not known here.", FETCH_AGAIN, "onnx.proto")
DOMAIN = Rule(
    "onnx.domain", HOLD, "Operators are asked for that only a library of the publisher's own code has.",
    "Ask the publisher for a model of standard operators, or decide by name and reason.",
    "ONNX Runtime, custom operators",
)  # fmt: skip
PYTHON = Rule(
    "onnx.python", BLOCK, "An operator runs Python code that is named in the model.", ASK,
    "ONNX Runtime training and extensions: PythonOp, PyOp",
)  # fmt: skip
COMPILED = Rule(
    "onnx.compiled", HOLD, "A node holds a program compiled for one accelerator, which nobody can look into.",
    "Ask the publisher for the model that it was compiled from, or decide by name and reason.",
    "ONNX Runtime, EPContext",
)  # fmt: skip
MANY = Rule(
    "onnx.many", HOLD, "There is more external data, or there are more operators, than any sound model has.",
    FETCH_AGAIN, "Freehold: memory is bounded",
)  # fmt: skip

DOMAINS = frozenset((
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training", "com.microsoft",
    "com.microsoft.experimental", "com.microsoft.nchwc", "com.microsoft.nhwc", "com.ms.internal.nhwc",
    "com.microsoft.dml",
))  # fmt: skip
_PYTHON = frozenset(("PyOp", "PythonOp", "PythonOpGrad", "PyCustomOp"))
_KEYS = frozenset(("location", "offset", "length", "checksum", "basepath"))

_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6,
}  # fmt: skip
_STRING = 8
_PACKED = {21: 2, 22: 2, 23: 2, 25: 4, 26: 4}  # values in one number of int32_data
_TYPED = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data",
          14: "float_data", 15: "double_data"}  # fmt: skip
_COMPLEX = (14, 15)
_NUMBER = re.compile(r"[0-9]{1,19}")

SCHEMA = protobuf.schema("""
Model: 1 ir_version int; 8 opset_import Opset*; 2 producer_name text; 3 producer_version text; 4 domain text; \
    5 model_version int; 6 doc_string blob; 7 graph Graph; 14 metadata_props Note*; 20 training_info Training*; \
    25 functions Function*; 26 configuration Device*
Graph: 1 node Node*; 2 name text; 5 initializer Tensor*; 15 sparse_initializer Sparse*; 10 doc_string blob; \
    11 input Value*; 12 output Value*; 13 value_info Value*; 14 quantization_annotation Annotation*; \
    16 metadata_props Note*
Node: 1 input blob*; 2 output blob*; 3 name text; 4 op_type text; 7 domain text; 8 overload text; \
    5 attribute Attribute*; 6 doc_string blob; 9 metadata_props Note*; 10 device_configurations Placement*
Attribute: 1 name text; 21 ref_attr_name text; 13 doc_string blob; 20 type int; 2 f f32; 3 i int; 4 s blob; \
    5 t Tensor; 6 g Graph; 22 sparse_tensor Sparse; 14 tp Type; 7 floats f32s; 8 ints ints; 9 strings blob*; \
    10 tensors Tensor*; 11 graphs Graph*; 23 sparse_tensors Sparse*; 15 type_protos Type*
Tensor: 1 dims int*; 2 data_type int; 3 segment Segment; 4 float_data f32s; 5 int32_data ints; 6 string_data blob*; \
    7 int64_data ints; 8 name text; 12 doc_string blob; 9 raw_data blob; 13 external_data Entry*; \
    14 data_location int; 10 double_data f64s; 11 uint64_data ints; 16 metadata_props Note*
Segment: 1 begin int; 2 end int
Sparse: 1 values Tensor; 2 indices Tensor; 3 dims int*
Value: 1 name text; 2 type Type; 3 doc_string blob; 4 metadata_props Note*
Type: 1 tensor_type Typed; 4 sequence_type Inner; 5 map_type Map; 9 optional_type Inner; 8 sparse_tensor_type Typed; \
    7 opaque_type Opaque; 6 denotation text
Typed: 1 elem_type int; 2 shape Shape
Inner: 1 elem_type Type
Map: 1 key_type int; 2 value_type Type
Opaque: 1 domain text; 2 name text
Shape: 1 dim Dimension*
Dimension: 1 dim_value int; 2 dim_param text; 3 denotation text
Training: 1 initialization Graph; 2 algorithm Graph; 3 initialization_binding Note*; 4 update_binding Note*
Function: 1 name text; 4 input blob*; 5 output blob*; 6 attribute blob*; 11 attribute_proto Attribute*; 7 node Node*; \
    8 doc_string blob; 9 opset_import Opset*; 10 domain text; 13 overload text; 12 value_info Value*; \
    14 metadata_props Note*
Opset: 1 domain text; 2 version int
Entry: 1 key text; 2 value text
Note: 1 key blob; 2 value blob
Annotation: 1 tensor_name text; 2 quant_parameter_tensor_names Note*
Device: 1 name text; 2 num_devices int; 3 device blob*
Placement: 1 configuration_id text; 2 sharding_spec Sharding*; 3 pipeline_stage int
Sharding: 1 tensor_name text; 2 device ints; 3 index_to_device_group_map Group*; 4 sharded_dim Sharded*
Group: 1 key int; 2 value ints
Sharded: 1 axis int; 2 simple_sharding Simple*
Simple: 1 dim_value int; 2 dim_param text; 3 num_shards int
""")


_WALKED = (
    "Graph", "Attribute", "Sparse", "Value", "Note", "Training", "Annotation", "Device", "Placement", "Type",
)  # fmt: skip


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """A ModelProto: its fields are those of one, among them an IR version and a graph that looks like one."""
    found = protobuf.outline(tape, SCHEMA["Model"])
    if not found or 7 not in found or not 1 <= found.get(1, (0, 0))[1] < 1000:
        return False
    offset, length = found[7]
    inside = protobuf.outline(tape, SCHEMA["Graph"], offset, min(length, tape.left - offset) or None)
    return offset + length > tape.left or bool(inside and inside.keys() & SCHEMA["Graph"].keys())


def scan(tape: Tape, report: Report) -> None:
    """Walk the whole model. Raises Malformed."""
    walk = _Walk(report)
    drop = dict.fromkeys(_WALKED, _nothing)
    on = {**drop, "Tensor": walk.tensor, "Node": walk.node, "Function": walk.function}
    model = protobuf.read(tape, SCHEMA, "Model", report, on)
    walk.finish(model)


def _nothing(message: Message, at: int) -> None:
    """Its parts have been judged by now, and it is not kept."""


class _Walk:
    """What is gathered on the way through one model."""

    def __init__(self, report: Report):
        self.report = report
        self.used: dict[tuple[str, str], int] = {}
        self.functions: set[tuple[str, str]] = set()
        self.external: list[dict[str, Any]] = []

    def node(self, node: Message, at: int) -> None:
        domain, operator = node.get("domain", "")[:200], node.get("op_type", "")[:200]
        if operator in _PYTHON:
            self.report.add(PYTHON, at, f"The operator {operator!r} runs Python code that is named in the model.")
        elif operator == "EPContext":
            self.report.add(COMPILED, at)
        if domain in DOMAINS:
            return
        if len(self.used) < MAX_SEEN:
            self.used.setdefault((domain, operator), at)
        else:
            self.report.add(MANY, at)

    def function(self, function: Message, at: int) -> None:
        if len(self.functions) < MAX_SEEN:
            self.functions.add((function.get("domain", "")[:200], function.get("name", "")[:200]))

    def finish(self, model: Message) -> None:
        foreign: dict[str, tuple[str, int]] = {}
        for (domain, operator), at in self.used.items():
            if (domain, operator) not in self.functions:
                foreign.setdefault(domain, (operator, at))
        for domain, (operator, at) in foreign.items():
            meaning = (
                f"The operator {operator!r} of the domain {domain!r} is no standard one: a library would bring it."
            )
            self.report.add(DOMAIN, at, meaning)
        opsets = {item.get("domain", ""): item.get("version", 0) for item in model.get("opset_import", ())}
        producer = f"{model.get('producer_name', '')} {model.get('producer_version', '')}".strip()
        self.report.facts.update(
            external=self.external, opsets=dict(list(opsets.items())[:64]), producer=producer[:200]
        )

    def tensor(self, tensor: Message, at: int) -> None:
        name, values = tensor.get("name", "")[:100], self._values(tensor, at)
        needed = self._needed(tensor, values, at)
        if tensor.get("data_location") or "external_data" in tensor:
            if any(key in tensor for key in _HELD):
                self.report.add(KEY, at, f"The data of tensor {name!r} lies in the file and outside it at once.")
            self._outside(tensor.get("external_data", ()), name, needed, at)
        else:
            self._inside(tensor, name, values, needed, at)

    def _values(self, tensor: Message, at: int) -> int:
        dims = tensor.get("dims", ())
        values = 0 if 0 in dims else math.prod(dims) if len(dims) <= 64 else MAX_VALUES + 1
        if values > MAX_VALUES or any(dim < 0 or dim > MAX_VALUES for dim in dims):
            shape = ", ".join(map(str, dims[:8]))
            self.report.add(SHAPE, at, f"A tensor has the impossible shape ({shape}).")
            return -1
        return values

    def _needed(self, tensor: Message, values: int, at: int) -> int:
        """The bytes that the data takes, -1 where that cannot be told."""
        kind = tensor.get("data_type", 0)
        if kind == _STRING:
            return -1
        if kind not in _BITS:
            self.report.add(TYPE, at, f"A tensor has the element type {kind}, which is not known here.")
            return -1
        return -1 if values < 0 else (values * _BITS[kind] + 7) // 8

    def _inside(self, tensor: Message, name: str, values: int, needed: int, at: int) -> None:
        """Is there as much data as the shape asks for?"""
        kind = tensor.get("data_type", 0)
        if values < 0 or (kind not in _BITS and kind != _STRING):
            return
        raw = tensor.get("raw_data")
        if raw is not None:
            right = raw.pieces == 1 and raw.length == needed
        elif kind == _STRING:
            right = tensor.get("string_data", Passed(0, 0)).pieces == values
        else:
            held = tensor.get(_TYPED.get(kind, "int32_data"), 0)
            per = _PACKED.get(kind, 1)
            right = held == (2 * values if kind in _COMPLEX else (values + per - 1) // per)
        if not right:
            self.report.add(SHAPE, at, f"The tensor {name!r} has a shape of {values} values, and not as much data.")

    def _outside(self, entries: Any, name: str, needed: int, at: int) -> None:
        found: dict[str, str] = {}
        for entry in entries:
            key, value = entry.get("key", ""), entry.get("value", "")
            if key in found:
                self.report.add(KEY, at, f"The external data of {name!r} has the key {key[:50]!r} twice.")
            if key not in _KEYS:
                self.report.add(FOREIGN, at, f"The external data of {name!r} has the unknown key {key[:50]!r}.")
            self._place(key, value, name, at)
            found[key] = value
        if "location" not in found:
            self.report.add(KEY, at, f"The external data of {name!r} has no location.")
        self._span(found, name, needed, at)

    def _place(self, key: str, value: str, name: str, at: int) -> None:
        if key not in ("location", "basepath") or (key == "basepath" and not value):
            return
        shown = value[:200]
        if "_MEM_ADDR_" in value:
            self.report.add(MEMORY, at, f"The data of {name!r} is said to lie at an address in memory ({shown!r}).")
        elif why := beside.why_not(value):
            self.report.add(LOCATION, at, f"The {key} {shown!r} of the data of {name!r} {why}.")

    def _span(self, found: dict[str, str], name: str, needed: int, at: int) -> None:
        numbers: dict[str, int | None] = {}
        for key in ("offset", "length"):
            text = found.get(key, "")
            good = not text or (_NUMBER.fullmatch(text) and int(text) <= MAX_OFFSET)
            numbers[key] = int(text) if text and good else None
            if not good:
                self.report.add(RANGE, at, f"The {key} {text[:50]!r} of the data of {name!r} cannot be true.")
        if numbers["length"] is not None and needed >= 0 and numbers["length"] != needed:
            meaning = f"The data of {name!r} has {numbers['length']} bytes, and its shape asks for {needed}."
            self.report.add(SHAPE, at, meaning)
        if len(self.external) >= MAX_EXTERNAL:
            self.report.add(MANY, "external data")
            return
        length = numbers["length"] if numbers["length"] is not None else max(needed, 0)
        location = found.get("location", "")[:4096]
        self.external.append({"location": location, "offset": numbers["offset"] or 0, "length": length})


_HELD = ("raw_data", "string_data", "int32_data", *dict.fromkeys(_TYPED.values()))
