"""PyTorch checkpoints: zip, legacy and tar, honest and not. Layouts as ``torch.save`` of 1.x to 2.13 writes them."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterator, Mapping

from assets import zips
from assets.opcodes import (
    BINPERSID,
    BUILD,
    EMPTY_TUPLE,
    MARK,
    NEWOBJ,
    POP,
    SETITEMS,
    attack,
    blob,
    call,
    named,
    payload,
    pickled,
    value,
)
from assets.pickle_plain import little
from assets.shelf import Draft, admit, block, family, hold
from assets.zips import DEFLATED, Member, checkpoint, torch_zip

MAGIC = pickled(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")  # 0x1950a86a20f9469cfc6c, little-endian
FOUR = struct.pack("<4f", 0, 1, 2, 3)
ORDERED = call(named("collections", "OrderedDict"))
BYTES = {
    "Float": 4,
    "BFloat16": 2,
    "Half": 2,
    "Long": 8,
    "Double": 8,
    "Byte": 1,
    "Bool": 1,
    "Int": 4,
    "ComplexFloat": 8,
    "QInt8": 1,
    "Char": 1,
    "Short": 2,
}


def storage(key: str, kind: str = "Float", count: int = 4, legacy: bool = False) -> bytes:
    """The persistent id of a storage."""
    parts = ("storage", named("torch", f"{kind}Storage"), key, "cpu", count)
    return value((*parts, None) if legacy else parts) + BINPERSID


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    out, step = [], 1
    for extent in reversed(shape):
        out.insert(0, step)
        step *= extent
    return tuple(out)


def tensor(
    key: str,
    shape: tuple[int, ...] = (2, 2),
    kind: str = "Float",
    count: int = 4,
    offset: int = 0,
    legacy: bool = False,
) -> bytes:
    return call(
        named("torch._utils", "_rebuild_tensor_v2"),
        storage(key, kind, count, legacy),
        offset,
        shape,
        strides(shape),
        False,
        ORDERED,
    )


def ordered(entries: Mapping[str, object]) -> bytes:
    """An OrderedDict with its entries, as a state dict is pickled."""
    return ORDERED + MARK + b"".join(value(key) + value(entry) for key, entry in entries.items()) + SETITEMS


STATE = ordered({"weight": tensor("0"), "bias": tensor("1", (2,), count=2)})
PAIR = (FOUR, FOUR[:8])
LAYERS = ordered({"": {"version": 1}})


def legacy(program: bytes, storages: Mapping[str, tuple[int, bytes]], info: bytes = b"") -> bytes:
    """The format before 1.6: five pickles, then each storage with its count of elements."""
    facts = info or value(
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    )
    keys = pickled(value(list(storages)))
    data = b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())
    return MAGIC + pickled(value(1001)) + pickled(facts) + pickled(program) + keys + data


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar with nothing of the day or the machine in it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def tar_checkpoint(program: bytes, first: bytes | None = None) -> bytes:
    """The oldest format, a tar of three: storages, tensors and the pickle that binds them."""
    head = pickled(value(("0", "cpu", named("torch", "FloatStorage")))) if first is None else first
    storages = pickled(value(1)) + head + struct.pack("<q", 4) + FOUR + pickled(value([]))
    entry = pickled(value((7, "0", named("torch", "FloatTensor"))))
    tensors = pickled(value(1)) + entry + struct.pack("<ii2q2qq", 2, 0, 2, 2, 2, 1, 0)
    return tar({"storages": storages, "tensors": tensors, "pickle": program})


@family("torch")
def sound() -> Iterator[Draft]:
    """Checkpoints of data alone."""
    state = pickled(STATE)
    for name in ("model.pt", "model.pth", "pytorch_model.bin", "last.ckpt", "weights"):
        yield admit(
            f"zip-{name.replace('.', '-')}", name, checkpoint(state, *PAIR), f"A state dict in a zip, called {name}."
        )
    yield admit(
        "zip-metadata",
        "model.pt",
        checkpoint(pickled(STATE, value({"_metadata": LAYERS}), BUILD), *PAIR),
        "A state dict with its _metadata, which BUILD puts on the OrderedDict.",
    )
    yield admit(
        "zip-1.6",
        "model.pt",
        torch_zip({"data.pkl": state, "data/0": FOUR, "data/1": FOUR[:8], "version": b"3\n"}),
        "A state dict as PyTorch 1.6 wrote it.",
    )
    yield admit(
        "zip-own-root", "lin.pt", checkpoint(state, *PAIR, root="lin"), "The folder inside is named after the file."
    )
    yield admit(
        "zip-deflated",
        "model.pt",
        zips.archive(
            [
                Member("archive/data.pkl", state, DEFLATED),
                Member("archive/data/0", FOUR, DEFLATED),
                Member("archive/data/1", FOUR[:8], DEFLATED),
                Member("archive/version", b"3\n"),
            ]
        ),
        "A checkpoint that somebody zipped anew, compressed.",
    )
    yield admit("zip-empty", "model.pt", checkpoint(pickled(ORDERED)), "An empty state dict.")
    for kind in ("BFloat16", "Half", "Long", "Double", "Bool", "ComplexFloat", "Char"):
        data = b"\0" * (4 * BYTES[kind])
        yield admit(
            f"zip-{kind.lower()}",
            "model.pt",
            checkpoint(pickled(ordered({"w": tensor("0", kind=kind)})), data),
            f"A tensor of {kind}.",
        )
    yield admit(
        "zip-shared",
        "model.pt",
        checkpoint(pickled(ordered({"a": tensor("0"), "b": tensor("0", (2,), offset=2)})), FOUR),
        "Two tensors that are views of one storage.",
    )
    yield admit(
        "zip-transposed",
        "model.pt",
        checkpoint(
            pickled(
                ordered(
                    {
                        "a": call(
                            named("torch._utils", "_rebuild_tensor_v2"), storage("0"), 0, (2, 2), (1, 2), False, ORDERED
                        )
                    }
                )
            ),
            FOUR,
        ),
        "A transposed tensor, whose strides are swapped.",
    )
    yield admit(
        "zip-scalar",
        "model.pt",
        checkpoint(pickled(ordered({"n": tensor("0", (), "Long", 1)})), b"\7" + b"\0" * 7),
        "A tensor of no dimensions.",
    )
    yield admit(
        "zip-hollow",
        "model.pt",
        checkpoint(pickled(ordered({"n": tensor("0", (0,), count=0)})), b""),
        "An empty tensor.",
    )
    parameter = call(named("torch._utils", "_rebuild_parameter"), tensor("0"), True, ORDERED)
    yield admit("zip-parameter", "model.pt", checkpoint(pickled(ordered({"w": parameter})), FOUR), "A Parameter.")
    small = {
        "size": call(named("torch", "Size"), (2, 3)),
        "device": call(named("torch", "device"), "cpu"),
        "dtype": named("torch", "float16"),
        "epoch": 3,
        "lr": 1e-3,
        "name": "os.system",
    }
    yield admit(
        "zip-training",
        "model.pt",
        checkpoint(pickled(value({"state_dict": STATE, **small})), *PAIR),
        "A training checkpoint: weights with a size, a device, a dtype and plain numbers.",
    )
    scalar = call(
        named("numpy.core.multiarray", "scalar"), little("f8", 2), call(named("_codecs", "encode"), "\0" * 8, "latin1")
    )
    yield admit(
        "zip-numpy-scalar",
        "model.pt",
        checkpoint(pickled(value({"best": scalar, "w": tensor("0")})), FOUR),
        "A checkpoint that keeps its best score as a numpy number.",
    )
    optimizer = {
        "state": {0: {"step": tensor("0", (), count=1), "exp_avg": tensor("1")}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "amsgrad": False, "params": [0], "fused": None}],
    }
    yield admit("zip-optimizer", "optimizer.pt", checkpoint(pickled(value(optimizer)), FOUR[:4], FOUR), "Adam's state.")
    sparse = call(
        named("torch._utils", "_rebuild_sparse_tensor"),
        call(named("torch.serialization", "_get_layout"), "torch.sparse_coo"),
        (tensor("0", (1, 2), "Long", 2), tensor("1", (2,), count=2), call(named("torch", "Size"), (3,)), False),
    )
    yield admit(
        "zip-sparse",
        "model.pt",
        checkpoint(pickled(value({"s": sparse})), struct.pack("<2q", 0, 1), FOUR[:8]),
        "A sparse tensor.",
    )
    bytes_only = value(("storage", named("torch.storage", "UntypedStorage"), "0", "cpu", 16)) + BINPERSID
    yield admit(
        "zip-v3",
        "model.pt",
        checkpoint(
            pickled(
                ordered(
                    {
                        "w": call(
                            named("torch._utils", "_rebuild_tensor_v3"),
                            bytes_only,
                            0,
                            (2, 2),
                            (2, 1),
                            False,
                            ORDERED,
                            named("torch", "float32"),
                        )
                    }
                )
            ),
            FOUR,
        ),
        "A tensor over an untyped storage.",
    )
    quantised = call(
        named("torch._utils", "_rebuild_qtensor"),
        storage("0", "QInt8"),
        0,
        (4,),
        (1,),
        (named("torch", "per_tensor_affine"), 0.1, 0),
        False,
        ORDERED,
    )
    yield admit(
        "zip-quantised", "model.pt", checkpoint(pickled(value({"q": quantised})), b"\1" * 4), "A quantised tensor."
    )


@family("torch")
def sound_and_old() -> Iterator[Draft]:
    """The two formats before the zip."""
    state = ordered(
        {"w": tensor("94005170926992", legacy=True), "b": tensor("94005084431456", (2,), "BFloat16", 2, legacy=True)}
    )
    storages = {"94005084431456": (2, b"\x80\x3f\x80\x3f"), "94005170926992": (4, FOUR)}
    for name in ("model.pt", "pytorch_model.bin", "model.th"):
        yield admit(
            f"legacy-{name.replace('.', '-')}", name, legacy(state, storages), f"A legacy state dict, called {name}."
        )
    yield admit("legacy-empty", "model.pt", legacy(ORDERED, {}), "A legacy checkpoint without a tensor.")
    alike = ordered({"w": tensor("1", legacy=True)})
    yield admit(
        "legacy-data-alike",
        "model.pt",
        legacy(alike, {"1": (4, b"cos\nsystem\n(S'x".ljust(16))}),
        "Weights whose bytes read like opcodes: they are data, at a place where nothing is unpickled.",
    )
    view = value(("storage", named("torch", "FloatStorage"), "1", "cpu", 4, ("2", 2, 2))) + BINPERSID
    part = call(named("torch._utils", "_rebuild_tensor"), view, 0, (2,), (1,))
    yield admit(
        "legacy-view", "model.pt", legacy(ordered({"w": part}), {"1": (4, FOUR)}), "A view of a legacy storage."
    )
    bound = ordered({"w": value(7) + BINPERSID})
    yield admit(
        "tar", "model.pt", tar_checkpoint(pickled(bound)), "A state dict in the oldest format, a tar of three files."
    )


@family("torch")
def programs() -> Iterator[Draft]:
    """A call in every pickle that a checkpoint holds."""
    evil = pickled(STATE, payload(), POP)
    says = "os.system in {}; it runs as torch.load reads it."
    yield block("zip-call", "model.pt", checkpoint(evil, *PAIR), says.format("data.pkl"))
    yield block("zip-call-bin", "pytorch_model.bin", checkpoint(evil, *PAIR), says.format("data.pkl of a .bin"))
    yield block(
        "zip-call-no-extension", "weights", checkpoint(evil, *PAIR), says.format("data.pkl of a file without extension")
    )
    yield block(
        "zip-call-as-safetensors",
        "model.safetensors",
        checkpoint(evil, *PAIR),
        says.format("a zip called .safetensors"),
    )
    yield block(
        "zip-call-deflated",
        "model.pt",
        zips.named({"archive/data.pkl": evil, "archive/version": b"3\n"}, DEFLATED),
        says.format("a compressed data.pkl"),
    )
    yield block(
        "zip-call-proto-0",
        "model.pt",
        zips.named({"archive/data.pkl": attack(0), "archive/version": b"3\n"}),
        says.format("a data.pkl of protocol 0"),
    )
    yield block(
        "zip-call-in-tensor",
        "model.pt",
        checkpoint(
            pickled(
                ordered(
                    {
                        "w": call(
                            named("torch._utils", "_rebuild_tensor_v2"),
                            storage("0"),
                            0,
                            (2, 2),
                            (2, 1),
                            False,
                            payload(),
                        )
                    }
                )
            ),
            FOUR,
        ),
        says.format("a tensor's hooks"),
    )
    yield block(
        "zip-call-in-id",
        "model.pt",
        checkpoint(pickled(value(("storage", payload(), "0", "cpu", 4)), BINPERSID), FOUR),
        says.format("a persistent id"),
    )
    yield block(
        "zip-call-in-parameter",
        "model.pt",
        checkpoint(
            pickled(
                call(
                    named("torch._utils", "_rebuild_parameter_with_state"), tensor("0"), True, ORDERED, {"x": payload()}
                )
            ),
            FOUR,
        ),
        says.format("a parameter's state"),
    )
    yield block(
        "zip-call-exec",
        "model.pt",
        checkpoint(pickled(call(named("__builtin__", "exec"), "print('freehold')")), FOUR),
        "builtins.exec by its Python 2 name, in data.pkl.",
    )
    yield block(
        "zip-load-from-bytes",
        "model.pt",
        checkpoint(pickled(call(named("torch.storage", "_load_from_bytes"), blob(legacy(payload(), {})))), FOUR),
        "torch.storage._load_from_bytes unpickles a whole checkpoint that is hidden in a byte string.",
    )
    yield block(
        "load-from-bytes",
        "model.pkl",
        pickled(call(named("torch.storage", "_load_from_bytes"), blob(attack()))),
        "The same in a plain pickle.",
    )
    yield block(
        "zip-two-pickles",
        "model.pt",
        torch_zip(
            {"data.pkl": pickled(STATE), "data/0": FOUR, "data/1": FOUR[:8], "extra.pkl": attack(), "version": b"3\n"}
        ),
        "A second pickle, with a call, beside data.pkl.",
    )
    yield block(
        "zip-storage-pickle",
        "model.pt",
        torch_zip({"data.pkl": pickled(value({"a": 1})), "constants.pkl": attack(4), "version": b"3\n"}),
        "A call in constants.pkl.",
    )
    yield block(
        "zip-two-roots",
        "model.pt",
        zips.named(
            {
                "archive/data.pkl": pickled(STATE),
                "archive/data/0": FOUR,
                "archive/data/1": FOUR[:8],
                "evil/data.pkl": attack(),
                "archive/version": b"3\n",
            }
        ),
        "Two folders with a data.pkl each: which one is loaded depends on the reader.",
    )
    yield block(
        "zip-duplicate",
        "model.pt",
        zips.archive(
            [
                Member("archive/data.pkl", pickled(value({}))),
                Member("archive/data.pkl", evil),
                Member("archive/version", b"3\n"),
            ]
        ),
        "Two members of one name: one reader takes the first, another the last.",
    )
    yield block(
        "zip-duplicate-first",
        "model.pt",
        zips.archive(
            [
                Member("archive/data.pkl", evil),
                Member("archive/data.pkl", pickled(value({}))),
                Member("archive/version", b"3\n"),
            ]
        ),
        "The same the other way round.",
    )
    yield block(
        "zip-case",
        "model.pt",
        zips.named({"archive/data.pkl": pickled(value({})), "archive/DATA.PKL": evil, "archive/version": b"3\n"}),
        "data.pkl and DATA.PKL: PyTorch's reader looks members up without regard to case.",
    )
    yield block(
        "legacy-call", "model.pt", legacy(ordered({"w": payload()}), {}), says.format("a legacy checkpoint's object")
    )
    yield block(
        "legacy-call-info",
        "model.pt",
        legacy(ORDERED, {}, payload()),
        says.format("a legacy checkpoint's third pickle"),
    )
    yield block(
        "legacy-call-magic",
        "model.pt",
        pickled(payload(), POP, MAGIC[2:-1]) + legacy(ORDERED, {})[len(MAGIC) :],
        says.format("the very first pickle, which still gives the magic number"),
    )
    yield block(
        "legacy-call-keys",
        "model.pt",
        MAGIC + pickled(value(1001)) + pickled(value({})) + pickled(ORDERED) + attack(),
        says.format("a legacy checkpoint's fifth pickle, the list of storages"),
    )
    yield block(
        "legacy-behind",
        "model.pt",
        legacy(ORDERED, {}) + attack(),
        "A pickle behind the last storage of a legacy checkpoint.",
    )
    yield block(
        "legacy-call-module",
        "model.pt",
        legacy(value(("module", payload(), "a.py", "x")) + BINPERSID, {}),
        says.format("a persistent id of the kind module"),
    )
    yield block(
        "tar-call",
        "model.pt",
        tar_checkpoint(attack()),
        "CVE-2025-32434: the tar format ignored weights_only; os.system in pickle.",
    )
    yield block(
        "tar-call-storages", "model.pt", tar_checkpoint(pickled(ORDERED), attack()), "The same in the member storages."
    )
    yield block(
        "tar-call-tensors",
        "model.ckpt",
        tar({"storages": pickled(value(0)), "tensors": attack(), "pickle": pickled(ORDERED)}),
        "The same in the member tensors.",
    )
    yield block(
        "tar-call-dotted",
        "model.pt",
        tar({"./pickle": attack(0), "./storages": pickled(value(0)), "./tensors": pickled(value(0))}),
        "The same with a dot before each name and protocol 0.",
    )


@family("torch")
def code() -> Iterator[Draft]:
    """Archives that carry a program on purpose: a person decides."""
    source = (
        b"class M(Module):\n  def forward(self: __torch__.M,\n    x: Tensor) -> Tensor:\n    return torch.add(x, 1)\n"
    )
    scripted = pickled(named("__torch__", "M"), EMPTY_TUPLE, NEWOBJ, value({"training": True}), BUILD)
    script = {
        "data.pkl": scripted,
        "code/__torch__.py": source,
        "constants.pkl": pickled(EMPTY_TUPLE),
        "version": b"3\n",
    }
    yield hold(
        "torchscript", "model.pt", torch_zip(script, "script"), "TorchScript: a program in PyTorch's own language."
    )
    yield hold(
        "torchscript-lite",
        "model.ptl",
        torch_zip(script | {"bytecode.pkl": pickled(value((4,)))}, "script"),
        "TorchScript with bytecode for phones.",
    )
    yield hold(
        "torchscript-no-version",
        "model",
        zips.named({"script/data.pkl": scripted, "script/code/__torch__.py": source}),
        "TorchScript without its version.",
    )
    yield block(
        "torchscript-call",
        "model.pt",
        torch_zip(script | {"constants.pkl": attack()}, "script"),
        "TorchScript with os.system in constants.pkl.",
    )
    yield block(
        "torchscript-debug",
        "model.pt",
        torch_zip(script | {"code/__torch__.py.debug_pkl": attack()}, "script"),
        "TorchScript with os.system in its debug pickle.",
    )
    package = {
        "model/model.pkl": pickled(value({"a": 1})),
        "model.py": b"x = 1\n",
        ".data/extern_modules": b"os\n",
        ".data/python_version": b"3.11.7",
        ".data/version": b"6\n",
        "byteorder": b"little",
    }
    yield hold("package", "model.pt", torch_zip(package, "pkg"), "torch.package: Python modules beside the weights.")
    mar = {
        "MAR-INF/MANIFEST.json": b'{"model": {"serializedFile": "model.pt", "handler": "handler.py"}}',
        "handler.py": b"print('freehold')\n",
        "model.pt": checkpoint(pickled(STATE), *PAIR),
    }
    yield hold(
        "mar",
        "model.mar",
        zips.named(mar, DEFLATED),
        "A TorchServe archive: its handler is Python that the server runs.",
    )
    yield block(
        "mar-call",
        "model.mar",
        zips.named(mar | {"model.pt": checkpoint(attack())}, DEFLATED),
        "A TorchServe archive with a malicious checkpoint.",
    )
    yield hold(
        "zip-python",
        "model.pt",
        torch_zip({"data.pkl": pickled(STATE), "data/0": FOUR, "data/1": FOUR[:8], "run.py": b"print('freehold')\n"}),
        "A checkpoint with a Python file inside.",
    )
    yield hold(
        "zip-shared-library",
        "model.pt",
        torch_zip(
            {"data.pkl": pickled(STATE), "data/0": FOUR, "data/1": FOUR[:8], "ops.so": b"\x7fELF\2\1\1" + b"\0" * 57}
        ),
        "A checkpoint with a shared library inside.",
    )
    yield hold(
        "exported",
        "model.pt2",
        torch_zip(
            {"archive_format": b"pt2", "models/model.json": b'{"graph_module": {}}', "data/weights/weight_0": FOUR},
            "model",
        ),
        "torch.export: a graph that the engine compiles.",
    )


@family("torch")
def lies() -> Iterator[Draft]:
    """Tensors and storages that do not fit each other."""
    huge = ordered({"w": tensor("0", (1 << 20, 1 << 20))})
    yield hold(
        "zip-shape",
        "model.pt",
        checkpoint(pickled(huge), FOUR),
        "A tensor of 2**40 values over a storage of four: memory, or bytes that are not its own.",
    )
    yield hold(
        "zip-stride",
        "model.pt",
        checkpoint(
            pickled(
                call(named("torch._utils", "_rebuild_tensor_v2"), storage("0"), 0, (2, 2), (1 << 40, 1), False, ORDERED)
            ),
            FOUR,
        ),
        "A stride of 2**40.",
    )
    yield hold(
        "zip-offset",
        "model.pt",
        checkpoint(pickled(tensor("0", offset=-64)), FOUR),
        "A tensor that begins before its storage.",
    )
    yield hold(
        "zip-count",
        "model.pt",
        checkpoint(pickled(tensor("0", count=1 << 40)), FOUR),
        "A storage that claims 2**40 values and has four.",
    )
    yield hold(
        "zip-missing",
        "model.pt",
        checkpoint(pickled(tensor("9")), FOUR),
        "A tensor whose storage is not in the archive.",
    )
    yield hold(
        "zip-no-pickle", "model.pt", torch_zip({"data/0": FOUR, "version": b"3\n"}), "A checkpoint without its pickle."
    )
    yield hold(
        "zip-unlisted-storage",
        "model.pt",
        checkpoint(pickled(STATE), *PAIR, b"\x7fELF" + b"\1" * 60),
        "A storage that no tensor uses, with a program in it.",
    )
    yield hold(
        "zip-key-climbs",
        "model.pt",
        checkpoint(pickled(tensor("../../secret")), FOUR),
        "A storage key that climbs out of the archive.",
    )
    yield hold(
        "legacy-count",
        "model.pt",
        legacy(ordered({"w": tensor("1", legacy=True)}), {"1": (1 << 60, FOUR)}),
        "A legacy storage that claims 2**60 values.",
    )
    yield hold(
        "legacy-negative",
        "model.pt",
        legacy(ordered({"w": tensor("1", legacy=True)}), {"1": (-1, FOUR)}),
        "A legacy storage of -1 values.",
    )
    yield hold(
        "legacy-cut",
        "model.pt",
        legacy(ordered({"w": tensor("1", legacy=True)}), {"1": (4, FOUR[:7])}),
        "A legacy checkpoint that ends inside a storage.",
    )
    yield hold(
        "legacy-trailing",
        "model.pt",
        legacy(ordered({"w": tensor("1", legacy=True)}), {"1": (4, FOUR)}) + b"\x7fELF" * 20,
        "Bytes behind the last storage of a legacy checkpoint.",
    )
    yield hold(
        "tar-missing",
        "model.pt",
        tar({"storages": pickled(value(0)), "pickle": pickled(ORDERED)}),
        "A tar checkpoint without its tensors.",
    )
