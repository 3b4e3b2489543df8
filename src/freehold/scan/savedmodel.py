"""TensorFlow: SavedModel, MetaGraph, frozen GraphDef, and beside them Keras' metadata, the fingerprint, checkpoints.

Format: saved_model.proto, meta_graph.proto, graph.proto, function.proto and what they hold, of TensorFlow 2.21; Keras'
saved_metadata.proto. Every node of every graph and function is looked at, against a list of the operators that compute
and no more (tensorflow_ops.txt, with those that saving and restoring is made of): one that reads or writes files, or
runs foreign code, blocks; any other holds. Facts: `nodes`, `operators` (the count of kinds), and `class_name` and
`layers` of a Keras model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files

from freehold.scan import beside, checkpoint, keras, protobuf
from freehold.scan.base import ASK, BLOCK, HOLD, Report, Rule
from freehold.scan.protobuf import Message
from freehold.scan.tape import MemoryTape, Tape

FORMAT = "savedmodel"
MAX_SEEN = 20_000

_PROGRAMS = "TensorFlow, SECURITY.md: models are programs"
FILES = Rule("tensorflow.files", BLOCK, "A node of the graph reads or writes files.", ASK, _PROGRAMS)
CODE = Rule("tensorflow.code", BLOCK, "A node of the graph runs Python or other code by name.", ASK, _PROGRAMS)
OPERATOR = Rule(
    "tensorflow.operator", HOLD, "A node asks for an operator that is not known to compute and no more.",
    "Ask the publisher for a graph for inference alone, without operators of its own; decide by name and reason.",
    _PROGRAMS,
)  # fmt: skip
ASSET = Rule(
    "tensorflow.asset", BLOCK, "An asset of the model would be read from outside its folder.",
    "Do not load it. Ask the publisher for a model whose assets lie in it.", "meta_graph.proto, AssetFileDef",
)  # fmt: skip
TABLE = Rule(
    "tensorflow.table", HOLD, "A table is filled from a text file that is no asset of the model.",
    "Ask the publisher for the model with its assets.", "TensorFlow, InitializeTableFromTextFile",
)  # fmt: skip
MANY = Rule(
    "tensorflow.many", HOLD, "The graph has more kinds of operators than are kept in memory.", ASK,
    "Freehold: memory is bounded",
)  # fmt: skip

HARMLESS = frozenset(files("freehold.scan").joinpath("tensorflow_ops.txt").read_text("ascii").split())
_FILES = re.compile(
    r"ReadFile|WriteFile|MatchingFiles|\w*MatchingFilesDataset|LoadAndRemapMatrix|GenerateVocabRemapping|ImportEvent|"
    r"(WholeFile|TextLine|TFRecord|FixedLengthRecord|LMDB)Reader\w*|Reader(Read|ReadUpTo)(V2)?|FileSystem\w*|"
    r"\w*(TextLine|TFRecord|FixedLengthRecord|LMDB|Sql|CSV|ToTFRecord)(Dataset)?(V2)?|(Load|Save)Dataset(V2)?|"
    r"Save|SaveSlices|Restore|RestoreSlice|DistributedSave|\w*Snapshot\w*|CreateSummary\w+|"
    r"Write\w*Summary|FlushSummaryWriter|DebugIdentity\w*|DebugN\w*"
)
_CODE = re.compile(r"\w*PyFunc\w*|LoadLibrary\w*|RemoteCall|\w*Rpc\w*|GeneratorDataset|XlaHostCompute|\w*CustomCall\w*")
_STREAMS = frozenset((b"", b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)"))  # PrintV2's, but files
_TABLES = frozenset(("InitializeTableFromTextFile", "InitializeTableFromTextFileV2"))

SCHEMA = protobuf.schema("""
Saved: 1 saved_model_schema_version int; 2 meta_graphs MetaGraph*
MetaGraph: 1 meta_info_def Info; 2 graph_def Graph; 3 saver_def Saver; 4 collection_def CollectionEntry*; \
    5 signature_def SignatureEntry*; 6 asset_file_def Asset*; 7 object_graph_def Objects
Info: 1 meta_graph_version text; 2 stripped_op_list Ops; 3 any_info Any; 4 tags blob*; 5 tensorflow_version text; \
    6 tensorflow_git_version text; 7 stripped_default_attrs int; 8 function_aliases Note*
Ops: 1 op Op*
Op: 1 name text; 2 input_arg Arg*; 3 output_arg Arg*; 4 attr OpAttr*; 5 summary blob; 6 description blob; \
    8 deprecation Deprecation; 16 is_aggregate int; 17 is_stateful int; 18 is_commutative int; \
    19 allows_uninitialized_input int; 20 control_output blob*; 21 is_distributed_communication int
Arg: 1 name text; 2 description blob; 3 type int; 4 type_attr text; 5 number_attr text; 6 type_list_attr text; \
    7 handle_data Handle*; 16 is_ref int; 17 experimental_full_type FullType
Handle: 1 dtype int; 2 shape Shape
Shape: 2 dim Dim*; 3 unknown_rank int
Dim: 1 size int; 2 name blob
FullType: 1 type_id int; 2 args FullType*; 3 s blob; 4 i int
OpAttr: 1 name text; 2 type text; 3 default_value Value; 4 description blob; 5 has_minimum int; 6 minimum int; \
    7 allowed_values Value
Value: 1 list List; 2 s head; 3 i int; 4 f f32; 5 b int; 6 type int; 7 shape Shape; 8 tensor Tensor; \
    9 placeholder text; 10 func Function
List: 2 s blob*; 3 i ints; 4 f f32s; 5 b ints; 6 type ints; 7 shape Shape*; 8 tensor Tensor*; 9 func Function*
Tensor: 1 dtype int; 2 tensor_shape Shape; 3 version_number int; 4 tensor_content blob; 5 float_val f32s; \
    6 double_val f64s; 7 int_val ints; 8 string_val blob*; 9 scomplex_val f32s; 10 int64_val ints; 11 bool_val ints; \
    12 dcomplex_val f64s; 13 half_val ints; 14 resource_handle_val Resource*; 15 variant_val Variant*; \
    16 uint32_val ints; 17 uint64_val ints; 18 float8_val blob
Resource: 1 device blob; 2 container blob; 3 name blob; 4 hash_code int; 5 maybe_type_name blob; \
    6 dtypes_and_shapes Handle*
Variant: 1 type_name text; 2 metadata blob; 3 tensors Tensor*
Function: 1 name text; 2 attr AttrEntry*
AttrEntry: 1 key text; 2 value Value
Deprecation: 1 version int; 2 explanation blob
Any: 1 type_url text; 2 value bytes
Note: 1 key blob; 2 value blob
Graph: 1 node Node*; 2 library Library; 3 version int; 4 versions Version; 5 debug_info Debug
Node: 1 name text; 2 op text; 3 input blob*; 4 device text; 5 attr AttrEntry*; 6 experimental_debug_info Origin; \
    7 experimental_type FullType
Origin: 1 original_node_names blob*; 2 original_func_names blob*
Library: 1 function Definition*; 2 gradient Gradient*; 3 registered_gradients Gradient*
Definition: 1 signature Op; 3 node_def Node*; 4 ret Note*; 5 attr AttrEntry*; 6 control_ret Note*; \
    7 arg_attr ArgAttrs*; 8 resource_arg_unique_id Pair*
ArgAttrs: 1 key int; 2 value Attrs
Attrs: 1 attr AttrEntry*
Pair: 1 key int; 2 value int
Gradient: 1 function_name text; 2 gradient_func text
Version: 1 producer int; 2 min_consumer int; 3 bad_consumers ints
Debug: 1 files blob*; 2 traces TraceEntry*; 4 frames_by_id FrameEntry*; 5 name_to_trace_id IdEntry*; \
    6 traces_by_id IdTraceEntry*
TraceEntry: 1 key blob; 2 value Trace
Trace: 1 file_line_cols Frame*; 2 frame_id f64s
Frame: 1 file_index int; 2 line int; 3 col int; 4 func blob; 5 code blob
FrameEntry: 1 key f64; 2 value Frame
IdEntry: 1 key blob; 2 value f64
IdTraceEntry: 1 key f64; 2 value Trace
Saver: 1 filename_tensor_name text; 2 save_tensor_name text; 3 restore_op_name text; 4 max_to_keep int; \
    5 sharded int; 6 keep_checkpoint_every_n_hours f32; 7 version int
CollectionEntry: 1 key text; 2 value Collection
Collection: 1 node_list Blobs; 2 bytes_list Blobs; 3 int64_list Ints; 4 float_list Floats; 5 any_list Anys
Blobs: 1 value blob*
Ints: 1 value ints
Floats: 1 value f32s
Anys: 1 value Any*
SignatureEntry: 1 key text; 2 value Signature
Signature: 1 inputs TensorEntry*; 2 outputs TensorEntry*; 3 method_name text; 4 defaults DefaultEntry*
TensorEntry: 1 key text; 2 value TensorInfo
DefaultEntry: 1 key text; 2 value Tensor
TensorInfo: 1 name text; 2 dtype int; 3 tensor_shape Shape; 4 coo_sparse Coo; 5 composite_tensor Composite
Coo: 1 values_tensor_name text; 2 indices_tensor_name text; 3 dense_shape_tensor_name text
Composite: 1 type_spec TypeSpec; 2 components TensorInfo*
TypeSpec: 1 type_spec_class int; 2 type_state Structured; 3 type_spec_class_name text; 4 num_flat_components int
Structured: 1 none_value Nothing; 11 float64_value f64; 12 int64_value int; 13 string_value blob; 14 bool_value int; \
    31 tensor_shape_value Shape; 32 tensor_dtype_value int; 33 tensor_spec_value TensorSpec; \
    34 type_spec_value TypeSpec; 35 bounded_tensor_spec_value Bounded; 51 list_value Items; 52 tuple_value Items; \
    53 dict_value Dict; 54 named_tuple_value Named; 55 tensor_value Tensor; 56 numpy_value Tensor
Nothing:
TensorSpec: 1 name blob; 2 shape Shape; 3 dtype int
Bounded: 1 name blob; 2 shape Shape; 3 dtype int; 4 minimum Tensor; 5 maximum Tensor
Items: 1 values Structured*
Dict: 1 fields StructuredEntry*
Named: 1 name text; 2 values StructuredEntry*
StructuredEntry: 1 key blob; 2 value Structured
Asset: 1 tensor_info TensorInfo; 2 filename text
Objects: 1 nodes Object*; 2 concrete_functions ConcreteEntry*
Object: 1 children Reference*; 3 slot_variables Slot*; 4 user_object User; 5 asset AssetIndex; \
    6 function SavedFunction; 7 variable Variable; 8 bare_concrete_function Bare; 9 constant Constant; \
    10 resource Constant; 11 saveable_objects SaveableEntry*; 12 captured_tensor Captured; 13 registered_name text; \
    14 serialized_user_proto Any; 15 dependencies Reference*; 16 registered_saver text
Reference: 1 node_id int; 2 local_name blob
Slot: 1 original_variable_node_id int; 2 slot_name blob; 3 slot_variable_node_id int
User: 1 identifier text; 2 version Version; 3 metadata text
AssetIndex: 1 asset_file_def_index int
SavedFunction: 1 concrete_functions blob*; 2 function_spec Spec
Spec: 1 fullargspec Structured; 2 is_method int; 5 input_signature Structured; 6 jit_compile int
Variable: 1 dtype int; 2 shape Shape; 3 trainable int; 4 synchronization int; 5 aggregation int; 6 name blob; \
    7 device blob; 8 experimental_distributed_variable_components Variable*
Bare: 1 concrete_function_name blob; 2 argument_keywords blob*; 3 allowed_positional_arguments int; \
    4 function_spec Spec
Constant: 1 operation blob
SaveableEntry: 1 key blob; 2 value Saveable
Saveable: 2 save_function int; 3 restore_function int
Captured: 1 name blob; 2 concrete_function blob
ConcreteEntry: 1 key blob; 2 value Concrete
Concrete: 2 bound_inputs ints; 3 canonicalized_input_signature Structured; 4 output_signature Structured
Metadata: 1 nodes KerasNode*
KerasNode: 2 node_id int; 3 node_path text; 4 identifier text; 5 metadata text; 6 version Version
Fingerprint: 1 saved_model_checksum int; 2 graph_def_program_hash int; 3 signature_def_hash int; \
    4 saved_object_graph_hash int; 5 checkpoint_hash int; 6 version Version; 7 uuid text
""")
_DROPPED = (
    "Info", "Library", "Gradient", "Debug", "Saver", "CollectionEntry", "SignatureEntry", "Objects",
    "Object", "ConcreteEntry", "Structured", "Graph",
)  # fmt: skip
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_.\-/>]*")


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """One of the five messages, by fields that no other has, or the index of a checkpoint."""
    return checkpoint.recognises(tape) or _kind(tape) != ""


def _kind(tape: Tape) -> str:
    known = (("Saved", _is_saved), ("Metadata", _is_metadata), ("Fingerprint", _is_fingerprint),
             ("MetaGraph", _is_meta_graph), ("Graph", _is_graph))  # fmt: skip
    return next((name for name, holds in known if holds(tape, 0, None)), "")


def _fields(tape: Tape, name: str, offset: int, length: int | None) -> dict[int, tuple[int, int]]:
    """The fields at a place, if they look like this message's; also where the file's end cuts it off."""
    if length is not None and length > tape.left - offset:
        length = None
    found = protobuf.outline(tape, SCHEMA[name], offset, length) or {}
    return found if found.keys() & SCHEMA[name].keys() else {}


def _is_saved(tape: Tape, offset: int, length: int | None) -> bool:
    """Readers do not insist on the version, so neither may this."""
    found = _fields(tape, "Saved", offset, length)
    return 2 in found and 0 <= found.get(1, (0, 1))[1] < 1000 and _is_meta_graph(tape, *found[2])


def _is_meta_graph(tape: Tape, offset: int, length: int | None) -> bool:
    """A graph with something in it, or a head and a graph with nothing."""
    found = _fields(tape, "MetaGraph", offset, length)
    return 2 in found and (_is_graph(tape, *found[2]) or (1 in found and not found[2][1]))


def _is_graph(tape: Tape, offset: int, length: int | None) -> bool:
    """Its first node, or the first function of its library, has names as TensorFlow gives them."""
    found = _fields(tape, "Graph", offset, length)
    if 1 in found:
        node = _fields(tape, "Node", *found[1])
        return 1 in node and _is_named(tape, node.get(2))
    library = _fields(tape, "Library", *found[2]) if 2 in found else {}
    function = _fields(tape, "Definition", *library[1]) if 1 in library else {}
    return 1 in function and 3 in function and _is_named(tape, _fields(tape, "Op", *function[1]).get(1))


def _is_named(tape: Tape, place: tuple[int, int] | None) -> bool:
    offset, size = place or (0, 0)
    return 0 < size < 300 and _NAME.fullmatch(tape.peek(tape.at + offset, size)) is not None


def _is_metadata(tape: Tape, offset: int, length: int | None) -> bool:
    found = _fields(tape, "Metadata", offset, length)
    node = _fields(tape, "KerasNode", *found[1]) if 1 in found else {}
    return {3, 4, 5} <= node.keys() and tape.peek(tape.at + node[4][0], 9) == b"_tf_keras"


def _is_fingerprint(tape: Tape, offset: int, length: int | None) -> bool:
    if tape.left > 1024:
        return False
    found = _fields(tape, "Fingerprint", offset, length)
    return {1, 2, 3, 6} <= found.keys() <= SCHEMA["Fingerprint"].keys()


def scan(tape: Tape, report: Report) -> None:
    """Read the message whole. Raises Malformed."""
    if checkpoint.recognises(tape):
        checkpoint.scan(tape, report)
        return
    walk, kind = _Walk(report), _kind(tape)
    on = {
        **dict.fromkeys(_DROPPED, lambda message, at: None), "Value": _string, "AttrEntry": _stream, "Node": walk.node,
        "Definition": walk.definition,
        "Op": walk.operator, "Asset": walk.asset, "Any": walk.any_, "User": walk.metadata, "KerasNode": walk.metadata,
    }  # fmt: skip
    protobuf.read(tape, SCHEMA, kind, report, on)
    walk.finish()


def _string(value: Message, at: int) -> bytes | None:
    """Of an attribute's value only its string, cut, is kept."""
    return value.get("s")


def _stream(attribute: Message, at: int) -> bytes | None:
    """Of the attributes only where something is printed to; a placeholder for it stands as what is not known."""
    return attribute.get("value", b"?") if attribute.get("key") == "output_stream" else None


class _Walk:
    """What is gathered on the way through one file."""

    def __init__(self, report: Report):
        self.report = report
        self.nodes = self.assets = 0
        self.used: dict[str, int] = {}
        self.functions: set[str] = set()

    def node(self, node: Message, at: int) -> None:
        self.nodes += 1
        operator = node.get("op", "")[:200]
        if operator == "PrintV2":
            self.printed(node.get("attr", ()), at)
        if operator in self.used:
            return
        if len(self.used) >= MAX_SEEN:
            self.report.add(MANY, at)
            return
        self.used[operator] = at
        if _CODE.fullmatch(operator):
            self.report.add(CODE, at, f"The operator {operator} runs code that the graph names.")
        elif _FILES.fullmatch(operator):
            self.report.add(FILES, at, f"The operator {operator} reads or writes files.")

    def printed(self, streams: Iterable[bytes], at: int) -> None:
        for stream in streams:
            if stream not in _STREAMS:
                where = ascii(stream[:100].decode("utf-8", "replace"))
                self.report.add(FILES, at, f"The operator PrintV2 writes to {where}, which is no stream but a file.")

    def operator(self, operator: Message, at: int) -> str:
        return operator.get("name", "")[:200]

    def definition(self, function: Message, at: int) -> None:
        if len(self.functions) < MAX_SEEN:
            self.functions.add(function.get("signature", ""))

    def asset(self, asset: Message, at: int) -> None:
        self.assets += 1
        name = asset.get("filename", "")
        if why := beside.why_not(name):
            self.report.add(ASSET, at, f"The asset {name[:200]!r} {why}.")

    def any_(self, message: Message, at: int) -> None:
        """A message within bytes: an asset, as TensorFlow 1 kept them, or something that nobody has judged."""
        kind, value = message.get("type_url", ""), message.get("value", b"")
        if kind.endswith("tensorflow.AssetFileDef"):
            protobuf.read(MemoryTape(value), SCHEMA, "Asset", self.report, {"Asset": self.asset})
        elif value:
            self.report.add(protobuf.UNKNOWN, at, f"There is a message of the kind {kind[:100]!r} within bytes.")

    def metadata(self, message: Message, at: int) -> None:
        """What Keras has written down of a layer or a model."""
        text = message.get("metadata", "")
        if text and (message.get("identifier", "").startswith("_tf_keras") or text.lstrip().startswith("{")):
            keras.judge_config(keras.parse(text, at), self.report, at)

    def finish(self) -> None:
        for operator, at in self.used.items():
            known = operator in HARMLESS or operator in self.functions
            if not known and not _CODE.fullmatch(operator) and not _FILES.fullmatch(operator):
                meaning = f"The operator {operator!r} is not known to compute and no more."
                self.report.add(OPERATOR, at, meaning)
        if _TABLES & self.used.keys() and not self.assets:
            self.report.add(TABLE, "nodes")
        self.report.facts.update(nodes=self.nodes, operators=len(self.used))
