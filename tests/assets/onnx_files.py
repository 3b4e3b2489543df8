"""ONNX: external data that leads out, custom operators, and lies. Format: onnx/onnx, ``onnx.proto`` and
``docs/ExternalData.md``."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping

from assets.opcodes import attack
from assets.protobuf import claiming, field, message
from assets.shelf import Content, Draft, Link, admit, block, family, hold

FLOAT = 1
FOUR = struct.pack("<4f", 0, 1, 2, 3)
# field numbers of onnx.proto
IR, PRODUCER, GRAPH, OPSET, FUNCTIONS = 1, 2, 7, 8, 25
NODE, NAME, INITIALIZER, INPUT, OUTPUT, SPARSE = 1, 2, 5, 11, 12, 15


def external(**entries: object) -> bytes:
    """The entries of a tensor whose bytes are elsewhere."""
    pairs = (message((1, key), (2, str(value))) for key, value in entries.items())
    return b"".join(field(13, pair) for pair in pairs) + field(14, 1)


def tensor(body: bytes, shape: tuple[int, ...] = (4,), name: str = "w", kind: int = FLOAT) -> bytes:
    return b"".join(field(1, extent) for extent in shape) + message((2, kind), (8, name)) + body


def inside(data: bytes = FOUR, shape: tuple[int, ...] = (4,)) -> bytes:
    return tensor(field(9, data), shape)


def value_info(name: str) -> bytes:
    shape = field(1, message((1, 4)))
    return message((1, name), (2, field(1, message((1, FLOAT), (2, shape)))))


def node(operator: str = "Add", domain: str = "", attributes: bytes = b"", inputs: str = "xw") -> bytes:
    out = b"".join(field(1, one) for one in inputs) + message((2, "y"), (3, "n"), (4, operator)) + attributes
    return out + (field(7, domain) if domain else b"")


def graph(*initializers: bytes, nodes: tuple[bytes, ...] = (), extra: bytes = b"") -> bytes:
    steps = b"".join(field(NODE, step) for step in nodes or (node(),))
    held = b"".join(field(INITIALIZER, one) for one in initializers)
    return steps + field(NAME, "g") + held + field(INPUT, value_info("x")) + field(OUTPUT, value_info("y")) + extra


def opset(version: int = 17, domain: str = "") -> bytes:
    return (field(1, domain) if domain else b"") + field(2, version)


def onnx(
    body: bytes, *, opsets: tuple[bytes, ...] = (opset(),), extra: bytes = b"", producer: str = "freehold"
) -> bytes:
    head = message((IR, 8), (PRODUCER, producer), (GRAPH, body))
    return head + b"".join(field(OPSET, one) for one in opsets) + extra


def outside(**entries: object) -> bytes:
    """A model with one tensor in another file."""
    return onnx(graph(tensor(external(**entries))))


def beside(
    slug: str, says: str, expect: str, files: Mapping[str, Content] | None = None, /, **entries: object
) -> Draft:
    return Draft(slug, "", {"model.onnx": outside(**entries), **(files or {})}, expect, says)


@family("onnx")
def paths() -> Iterator[Draft]:
    """External data that is not beneath the model."""
    places = {
        "absolute": "/etc/passwd",
        "climbs": "../../../../etc/passwd",
        "climbs-inside": "data/../../secret.bin",
        "climbs-windows": "..\\..\\secret.bin",
        "drive": "C:\\secret.bin",
        "share": "\\\\freehold.invalid\\share\\x",
        "url": "file:///etc/passwd",
        "environment": "/proc/self/environ",
        "nul": "weights.bin\0/../../etc/passwd",
        "home": "~/.ssh/id_ed25519",
    }
    for slug, place in places.items():
        least = "hold" if slug in ("home", "url") else "block"
        yield beside(f"external-{slug}", f"External data at {place!r}.", least, location=place, offset=0, length=16)
    data = {"weights.bin": FOUR}
    yield beside(
        "external-symlink",
        "External data that is a symbolic link out of the folder.",
        "block",
        {"weights.bin": Link("../../../../../../../etc/hostname")},
        location="weights.bin",
    )
    yield beside(
        "external-symlink-folder",
        "External data beneath a folder that is a symbolic link.",
        "block",
        {"data": Link("../../../../../../../etc")},
        location="data/hostname",
    )
    yield beside(
        "external-hardlink",
        "External data that has a second name: a hard link to some other file.",
        "block",
        {"secret": FOUR, "weights.bin": Link("secret", hard=True)},
        location="weights.bin",
    )
    yield beside("external-negative-offset", "An offset of -16.", "block", data, location="weights.bin", offset=-16)
    yield beside("external-negative-length", "A length of -1.", "block", data, location="weights.bin", length=-1)
    yield beside("external-huge-length", "A length of 2**63.", "block", data, location="weights.bin", length=1 << 63)
    yield beside(
        "external-huge-offset",
        "An offset of 2**64 - 8: with its length, it wraps round.",
        "block",
        data,
        location="weights.bin",
        offset=(1 << 64) - 8,
        length=16,
    )
    yield beside(
        "external-beyond", "A length beyond the end of the data.", "block", data, location="weights.bin", length=4096
    )
    yield beside(
        "external-not-a-number", "An offset that is not a number.", "block", data, location="weights.bin", offset="0x10"
    )
    yield beside("external-missing", "External data that is not there.", "hold", location="weights.bin", length=16)
    yield beside("external-no-location", "External data without a location.", "block", data, offset=0)
    yield beside(
        "external-basepath", "A basepath that climbs.", "block", data, location="weights.bin", basepath="../.."
    )
    yield beside(
        "external-length-and-shape",
        "A length that disagrees with the shape.",
        "block",
        data,
        location="weights.bin",
        length=8,
    )
    yield beside(
        "external-pickle",
        "External data that is a malicious pickle in front of whoever loads it by name.",
        "hold",
        {"weights.pkl": attack(2)},
        location="weights.pkl",
    )
    unknown = tensor(external(location="weights.bin", loader="os.system"))
    yield hold(
        "external-unknown-key",
        "",
        {"model.onnx": onnx(graph(unknown)), **data},
        "A key that external data does not have: exporters have set attributes by it.",
    )
    twice = tensor(external(location="weights.bin") + external(location="/etc/passwd"))
    yield block(
        "external-twice",
        "",
        {"model.onnx": onnx(graph(twice)), **data},
        "Two locations: one reader takes the first, another the last.",
    )


@family("onnx")
def hiding_places() -> Iterator[Draft]:
    """The same absolute path, wherever a tensor can stand."""
    bad = tensor(external(location="/etc/passwd", length=16))
    attribute = message((1, "value"), (5, bad), (20, 4))
    nested = message((1, "then_branch"), (6, graph(bad)), (20, 5))
    constant = node("Constant", attributes=field(5, attribute))
    deep = node("If", attributes=field(5, message((1, "else_branch"), (6, graph(nodes=(constant,))), (20, 5))))
    listed = message((1, "values"), (10, bad), (20, 9))
    graphs = message((1, "bodies"), (11, graph(bad)), (20, 10))
    sparse = field(SPARSE, message((1, bad), (2, tensor(field(7, 0), (1,), "i", 7)), (3, 4)))
    sparse_attribute = message((1, "value"), (22, message((1, bad))), (20, 11))
    function = message((1, "f"), (4, "x"), (5, "y"), (7, constant), (10, "custom"))
    places = {
        "attribute": graph(inside(), nodes=(constant,)),
        "attribute-list": graph(inside(), nodes=(node(attributes=field(5, listed)),)),
        "sub-graph": graph(inside(), nodes=(node("If", attributes=field(5, nested)),)),
        "sub-graphs": graph(inside(), nodes=(node("X", attributes=field(5, graphs)),)),
        "two-deep": graph(inside(), nodes=(deep,)),
        "sparse": graph(inside(), extra=sparse),
        "sparse-attribute": graph(inside(), nodes=(node(attributes=field(5, sparse_attribute)),)),
        "second-tensor": graph(inside(), bad),
    }
    for slug, body in places.items():
        yield block(
            f"hidden-{slug}", "model.onnx", onnx(body), f"External data at /etc/passwd, in a {slug.replace('-', ' ')}."
        )
    yield block(
        "hidden-function",
        "model.onnx",
        onnx(graph(inside()), extra=field(FUNCTIONS, function)),
        "The same in a function of the model.",
    )
    training = field(20, message((1, graph(bad)), (2, graph(bad))))
    yield block(
        "hidden-training", "model.onnx", onnx(graph(inside()), extra=training), "The same in the graphs for training."
    )
    split = onnx(graph(inside())) + field(GRAPH, graph(bad))
    yield block("hidden-second-graph", "model.onnx", split, "A second graph field: protobuf merges it into the first.")
    flag_first = tensor(field(14, 1) + field(13, message((2, "/etc/passwd"), (1, "location"))))
    yield block("hidden-order", "model.onnx", onnx(graph(flag_first)), "The same with its fields in another order.")
    yield block("hidden-no-extension", "model", onnx(graph(bad)), "The same in a file without an extension.")


@family("onnx")
def operators() -> Iterator[Draft]:
    """Operators that a library brings along, and broken files."""
    custom = (opset(), opset(1, "acme.ops"))
    yield hold(
        "custom-domain",
        "model.onnx",
        onnx(graph(inside(), nodes=(node("Fancy", "acme.ops"),)), opsets=custom),
        "An operator of a domain that needs a library of its own.",
    )
    yield hold(
        "custom-library",
        "",
        {
            "model.onnx": onnx(graph(inside(), nodes=(node("Fancy", "acme.ops"),)), opsets=custom),
            "libops.so": b"\x7fELF\2\1\1" + b"\0" * 57,
        },
        "And the library beside it.",
    )
    yield hold(
        "python-op",
        "model.onnx",
        onnx(graph(inside(), nodes=(node("PyOp", "ai.onnx.contrib"),)), opsets=(opset(), opset(1, "ai.onnx.contrib"))),
        "An operator that runs Python.",
    )
    context = message((1, "ep_cache_context"), (4, "../../x.so"), (20, 3))
    yield hold(
        "ep-context",
        "model.onnx",
        onnx(
            graph(inside(), nodes=(node("EPContext", "com.microsoft", field(5, context)),)),
            opsets=(opset(), opset(1, "com.microsoft")),
        ),
        "EPContext: a compiled program for an accelerator, at a path that climbs.",
    )
    yield hold(
        "shape-overflow",
        "model.onnx",
        onnx(graph(inside(FOUR, (1 << 40, 1 << 40)))),
        "A shape whose product overflows.",
    )
    yield hold("shape-negative", "model.onnx", onnx(graph(inside(FOUR, (-4,)))), "A shape of -4.")
    yield hold("shape-more", "model.onnx", onnx(graph(inside(FOUR, (4096,)))), "A shape of more values than there are.")
    whole = onnx(graph(inside()))
    yield hold("cut", "model.onnx", whole[:-30], "A model that is cut off.")
    yield hold(
        "length-2-40",
        "model.onnx",
        field(IR, 8) + claiming(GRAPH, 1 << 40, graph(inside())),
        "A graph that claims 2**40 bytes.",
    )
    yield hold("length-2-63", "model.onnx", field(IR, 8) + claiming(GRAPH, 1 << 63), "A graph that claims 2**63 bytes.")
    yield hold("varint-endless", "model.onnx", field(IR, 8) + b"\x3a" + b"\xff" * 64, "A number that does not end.")
    yield hold("deep", "model.onnx", _deep(3000), "Graphs 3,000 deep.")
    yield hold("groups", "model.onnx", whole + b"\x0b" * 5000, "Five thousand groups that are opened and never closed.")
    yield hold("trailing", "model.onnx", whole + b"\x7fELF" + b"\1" * 60, "A program behind the model.")
    yield block("pickle", "model.onnx", attack(2), "A malicious pickle, called .onnx.")
    yield hold("text", "model.onnx", "ir_version: 8\ngraph { name: 'g' }\n", "The text form, called .onnx.")


def _deep(times: int) -> bytes:
    body = graph(inside())
    for _ in range(times):
        body = field(NODE, field(5, field(6, body)))
    return onnx(body)


@family("onnx")
def sound() -> Iterator[Draft]:
    """Models that the checker accepts."""
    yield admit("plain", "model.onnx", onnx(graph(inside())), "One addition.")
    yield admit("no-extension", "model", onnx(graph(inside())), "The same without an extension.")
    yield admit("floats", "model.onnx", onnx(graph(tensor(field(4, FOUR)))), "A tensor as a packed list of floats.")
    yield admit("scalar", "model.onnx", onnx(graph(inside(FOUR[:4], ()))), "A tensor of no dimensions.")
    yield admit(
        "producer",
        "model.onnx",
        onnx(graph(inside()), producer="os.system('echo freehold')"),
        "A producer with an odd name: text that nobody runs.",
    )
    yield beside(
        "external",
        "Data beside its model.",
        "admit",
        {"weights.bin": FOUR},
        location="weights.bin",
        offset=0,
        length=16,
    )
    yield beside(
        "external-bare",
        "Data beside its model, without offset and length.",
        "admit",
        {"model.onnx.data": FOUR},
        location="model.onnx.data",
    )
    yield beside(
        "external-folder", "Data in a folder beneath.", "admit", {"data/w.bin": FOUR}, location="data/w.bin", length=16
    )
    yield beside("external-dots", "A location with a dot before it.", "admit", {"w.bin": FOUR}, location="./w.bin")
    yield beside(
        "external-checksum", "Data with a checksum.", "admit", {"w.bin": FOUR}, location="w.bin", checksum="0" * 40
    )
    two = onnx(
        graph(
            tensor(external(location="w.bin", offset=0, length=16)),
            tensor(external(location="w.bin", offset=4096, length=16), name="v"),
        )
    )
    yield admit(
        "external-two",
        "",
        {"model.onnx": two, "w.bin": FOUR.ljust(4096, b"\0") + FOUR},
        "Two tensors in one file, aligned to a page.",
    )
    contrib = (opset(), opset(1, "com.microsoft"))
    yield admit(
        "contrib",
        "model.onnx",
        onnx(graph(inside(), nodes=(node("FusedMatMul", "com.microsoft"),)), opsets=contrib),
        "An operator that ONNX Runtime itself brings.",
    )
    ml = (opset(), opset(3, "ai.onnx.ml"))
    yield admit(
        "ml",
        "model.onnx",
        onnx(graph(inside(), nodes=(node("Normalizer", "ai.onnx.ml", inputs="x"),)), opsets=ml),
        "An operator of the standard's own second domain.",
    )
    info = field(14, message((1, "config"), (2, json.dumps({"url": "https://example.org", "cmd": "eval"}))))
    yield admit("metadata", "model.onnx", onnx(graph(inside()), extra=info), "Metadata with a URL.")
    branch = field(5, message((1, "then_branch"), (6, graph(inside())), (20, 5)))
    yield admit(
        "sub-graph",
        "model.onnx",
        onnx(graph(inside(), nodes=(node("If", attributes=branch),))),
        "A branch with a tensor of its own.",
    )
