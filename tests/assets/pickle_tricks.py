"""Pickles that hide what they do from whoever reads them: decoys, broken tails, lying lengths, odd names, bombs."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from assets.opcodes import (
    APPEND,
    APPENDS,
    BUILD,
    DUP,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    MARK,
    MEMOIZE,
    NONE,
    POP,
    REDUCE,
    SETITEM,
    STACK_GLOBAL,
    STOP,
    TUPLE,
    TUPLE1,
    TUPLE2,
    attack,
    blob,
    call,
    frame,
    get,
    line,
    named,
    payload,
    pickled,
    proto,
    put,
    short,
    stacked,
    text,
    value,
)
from assets.shelf import ECHO, Draft, block, family, hold

HARMLESS = pickled(value({"epoch": 3}))
ARGUMENT = value((ECHO,)) + REDUCE


@family("pickle")
def ways_to_call() -> Iterator[Draft]:
    """The same call by every opcode that can make it."""
    for number in range(6):
        yield block(f"protocol-{number}", f"protocol{number}.pkl", attack(number), f"os.system by protocol {number}.")
    inst = MARK + line(ECHO) + b"ios\nsystem\n"
    obj = MARK + named("os", "system") + line(ECHO) + b"o"
    yield block("inst", "model.pkl", pickled(inst, number=0), "INST names and calls os.system in one opcode.")
    yield block("obj", "model.pkl", pickled(obj), "OBJ calls os.system from a mark.")
    yield block(
        "obj-pop",
        "model.pkl",
        pickled(obj, POP, value({"w": [1.0]})),
        "OBJ calls os.system, POP drops the result, and a plain dictionary is what is left.",
    )
    yield block(
        "inst-pop-mark",
        "model.pkl",
        pickled(MARK, inst, b"1", value({"w": [1.0]})),
        "INST calls, POP_MARK clears the traces.",
    )
    yield block(
        "reduce-inside-key",
        "model.pkl",
        pickled(EMPTY_DICT, payload(), NONE, SETITEM),
        "The call is the key of a dictionary.",
    )
    yield block("reduce-deep", "model.pkl", pickled(MARK * 200, payload(), TUPLE * 200), "The call is 200 tuples deep.")
    yield block(
        "reduce-late", "model.pkl", pickled(value(list(range(5000))), payload(), POP), "5,000 numbers, then the call."
    )
    yield block(
        "dup-argument",
        "model.pkl",
        pickled(named("os", "system"), text(ECHO), TUPLE1, DUP, POP, REDUCE),
        "DUP and POP between the function and its call.",
    )
    yield block(
        "memo-function",
        "model.pkl",
        pickled(named("os", "system"), put(0), POP, get(0), ARGUMENT),
        "The function is put away, and fetched again from the memo for the call.",
    )
    yield block(
        "long-memo",
        "model.pkl",
        pickled(named("os", "system"), put(70000), POP, get(70000), ARGUMENT),
        "The same through LONG_BINPUT 70000.",
    )
    yield block(
        "text-memo",
        "model.pkl",
        pickled(named("os", "system"), b"p007\n0g7\n", ARGUMENT),
        "The same through PUT 007 and GET 7, which are one place.",
    )


def joined(slug: str, says: str, *parts: bytes) -> Draft:
    return block(f"stack-global-{slug}", "model.pkl", pickled(*parts, STACK_GLOBAL, ARGUMENT, number=4), says)


@family("pickle")
def decoys() -> Iterator[Draft]:
    """STACK_GLOBAL takes its two names from the stack, wherever they came from."""
    yield joined(
        "memo", "Both names come from the memo.", short("os"), MEMOIZE, short("system"), MEMOIZE, b"00", get(0), get(1)
    )
    yield joined(
        "memo-overwritten",
        "A place in the memo holds 'math', and 'os' is put over it.",
        short("math"),
        put(0),
        POP,
        short("os"),
        put(0),
        POP,
        short("sqrt"),
        put(1),
        POP,
        short("system"),
        put(1),
        POP,
        get(0),
        get(1),
    )
    yield joined(
        "memo-later-decoy",
        "The memo is overwritten with harmless names after the real ones were fetched.",
        short("os"),
        put(0),
        POP,
        short("system"),
        put(1),
        POP,
        get(0),
        get(1),
        short("math"),
        put(0),
        POP,
        short("sqrt"),
        put(1),
        POP,
    )
    yield joined(
        "pushed-decoys",
        "Harmless names stand right before the opcode, and POP removes them.",
        short("os"),
        short("system"),
        short("collections"),
        short("OrderedDict"),
        POP,
        POP,
    )
    yield joined(
        "pop-mark",
        "Harmless names stand right before the opcode, and POP_MARK removes them.",
        short("os"),
        short("system"),
        MARK,
        short("collections"),
        short("OrderedDict"),
        b"1",
    )
    yield joined(
        "memoize-count",
        "MEMOIZE counts places by what is in the memo, and one is already taken.",
        NONE,
        put(1),
        POP,
        short("os"),
        MEMOIZE,
        POP,
        short("system"),
        put(2),
        POP,
        get(1),
        get(2),
    )
    encodings = {
        "unicode": b"Vos\n" + b"Vsystem\n",
        "unicode-escapes": rb"V\u006f\u0073" + b"\n" + rb"V\u0073ystem" + b"\n",
        "string": line("os") + line("system"),
        "string-escapes": rb"S'\x6f\x73'" + b"\n" + rb'S"\x73ystem"' + b"\n",
        "binstring": b"T\x02\0\0\0os" + b"U\x06system",
        "binunicode8": b"\x8d" + struct.pack("<Q", 2) + b"os" + b"\x8d" + struct.pack("<Q", 6) + b"system",
    }
    for slug, names in encodings.items():
        yield joined(slug, f"The two names are written as {slug}.", names)
    dotted = {
        "collections": ("collections", "_sys.exit"),
        "torch": ("torch", "storage.os.system"),
        "numpy": ("numpy", "lib.format.pickle.loads"),
        "ordered-dict": ("collections", "OrderedDict.__class__"),
        "codecs": ("codecs", "builtins.eval"),
    }
    for slug, (module, name) in dotted.items():
        yield block(
            f"dotted-{slug}",
            "model.pkl",
            pickled(call(stacked(module, name), ECHO), number=4),
            f"A dotted name walks from {module}, which is allowed, to {name}, which is not.",
        )
    yield block(
        "dotted-global",
        "model.pkl",
        proto(4) + call(named("torch", "serialization.os.system"), ECHO) + STOP,
        "GLOBAL under protocol 4 follows dots too.",
    )
    yield block(
        "dotted-late-proto",
        "model.pkl",
        proto(2) + proto(4) + call(named("torch", "_utils.sys.exit")) + STOP,
        "A second PROTO raises the protocol, and from then on GLOBAL follows dots.",
    )


@family("pickle")
def broken_tails() -> Iterator[Draft]:
    """The call is made before the unpickler meets the fault."""
    tails = {
        "no-stop": b"",
        "bad-opcode": b"\xff",
        "underflow": b"0" * 40,
        "no-mark": b"t",
        "cut-string": b"X\xff\0\0\0abc",
        "cut-int": b"J\0",
        "bad-proto": b"\x80\x63",
        "bad-get": get(99),
        "bad-frame": b"\x95" + b"\xff" * 8,
        "bad-utf8": b"X\x01\0\0\0\xff.",
        "bad-int": b"Iabc\n.",
        "bad-global": b"cos\n",
        "unhashable": b"}]Ns.",
        "bad-ext": b"\x82\x00.",
        "bad-append": b"NNa.",
        "bad-build": b"NNb.",
        "huge-string": b"\x8d" + b"\xff" * 8,
        "zeros": b"\0" * 64,
        "nul-stop": b"\0.",
    }
    for slug, tail in tails.items():
        yield block(
            f"tail-{slug}",
            "model.pkl",
            proto(2) + payload() + tail,
            f"os.system is called, then the pickle breaks ({slug}): who parses first and judges later is late.",
        )
    yield block("after-plain", "model.pkl", HARMLESS + attack(), "A second pickle behind a harmless first one.")
    yield block("after-many", "model.pkl", HARMLESS * 300 + attack(4), "The 301st pickle of a stream is the bad one.")
    yield block("after-gap", "model.pkl", HARMLESS + b"\0" * 4096 + attack(), "A page of zeros, then a second pickle.")
    yield block(
        "after-blob",
        "model.pkl",
        pickled(value({"w": blob(b"\1" * 300_000)}), payload(), POP),
        "The call comes after 300,000 bytes of plain data.",
    )
    yield hold("cut", "model.pkl", HARMLESS[:-3], "A plain pickle that is cut off: not whole, so not judged.")
    yield hold("junk-behind", "model.pkl", HARMLESS + b"\x7fELF" + b"\1" * 60, "Bytes of a program behind a pickle.")


@family("pickle")
def names_of_files() -> Iterator[Draft]:
    """The content decides: what a file is called says nothing."""
    names = {
        "config.p": 4,
        "model.bin": 2,
        "weights": 0,
        "model": 2,
        "data.json": 4,
        "model.safetensors": 2,
        "model.gguf": 4,
        "vocab.txt": 0,
        "tokenizer.model": 2,
        "model.onnx": 3,
        "weights.h5": 5,
        "archive.zip": 2,
        "README.md": 2,
        "x.PKL": 1,
        "notes.md": 0,
        "logo.png": 4,
        ".hidden": 4,
        "weights.npy": 2,
    }
    for name, number in names.items():
        yield block(
            f"named-{name.replace('.', '-').strip('-').lower()}",
            name,
            attack(number),
            f"A malicious pickle of protocol {number}, called {name}.",
        )
    yield block(
        "proto-0-prefix", "data", b"(lp0\nI1\naI2\na0" + attack(0), "Protocol 0 text: a plain list, then the call."
    )
    yield block("no-proto", "data", call(stacked("os", "system"), ECHO) + STOP, "Protocol 4 opcodes without any PROTO.")
    yield block("proto-lies", "data", proto(0) + call(stacked("os", "system"), ECHO) + STOP, "PROTO 0, opcodes of 4.")
    yield block("proto-midway", "data", b"N0" + proto(2) + payload() + STOP, "PROTO is not the first opcode.")
    yield block("first-none", "data", b"N" + payload() + STOP, "A pickle that begins with NONE.")
    yield block("first-mark", "data", b"(0" + attack(0), "A pickle that begins with a mark that is dropped.")
    yield block("first-int", "data.txt", b"I42\n0" + attack(0), "A pickle that begins like a line of text.")


@family("pickle")
def frames() -> Iterator[Draft]:
    """FRAME lengths: the C unpickler believes them, pickletools does not (cpython#154848)."""
    body = call(stacked("os", "system"), ECHO) + STOP
    lines = named("os", "system") + ARGUMENT + STOP
    shapes = {
        "none": (proto(4) + body, "no frame at all"),
        "zero": (proto(4) + frame(body, 0), "a frame of no bytes"),
        "short": (proto(4) + frame(body, 3), "a frame that ends inside a name"),
        "long": (proto(4) + frame(body, len(body) + 100), "a frame that is longer than the file"),
        "huge": (proto(4) + frame(body, 1 << 63), "a frame of 2**63 bytes"),
        "nested": (proto(4) + frame(frame(body)), "a frame inside a frame"),
        "overlap": (proto(4) + frame(frame(b"N0", 2 + len(body)) + body, 11), "a frame that leaves its frame"),
        "in-a-line": (proto(4) + frame(lines, 3), "a frame that ends in the middle of a text line"),
        "protocol-2": (proto(2) + frame(body), "a frame in protocol 2"),
        "half-opcode": (proto(4) + frame(b"J\1\0", 3) + b"\0\0" + b"0" + body, "a frame that cuts a number in two"),
    }
    for slug, (data, what) in shapes.items():
        yield block(f"frame-{slug}", "model.pkl", data, f"os.system in a pickle with {what}.")
    # The C unpickler drops the rest of a frame when it looks for the end of a line and finds none: it reads
    # 'posix' where pickletools reads 'not_posix'.
    split = frame(b"cnot_", 5) + b"posix\nsystem\n" + ARGUMENT + STOP
    yield block(
        "frame-two-readings",
        "model.pkl",
        proto(4) + split,
        "The frame ends inside a module's name: pickletools reads not_posix, the C unpickler of Python 3.11 "
        "reads posix (cpython#154848).",
    )
    hidden = frame(b"cnot_", 5) + b"collections\nOrderedDict\n)R" + STOP
    yield hold(
        "frame-two-readings-plain",
        "model.pkl",
        proto(4) + hidden,
        "The same with a harmless name: nothing runs, but two readers see two programs.",
    )
    yield hold("frame-cut", "model.pkl", proto(4) + frame(value({"a": 1}) + STOP, 5000), "A frame past the file's end.")


def doubled(times: int) -> bytes:
    """A tuple of a tuple twice, and so on: 2**times leaves in a few hundred bytes."""
    return EMPTY_TUPLE + b"".join(put(i) + get(i) + TUPLE2 for i in range(times))


@family("pickle")
def bombs() -> Iterator[Draft]:
    """Few bytes that ask for much memory or time, of the loader or of whoever looks."""
    big = struct.pack("<Q", 1 << 40)
    claims = {
        "binunicode8": (b"\x8d" + big, "a text of 2**40 bytes"),
        "binbytes8": (b"\x8e" + big, "2**40 bytes"),
        "bytearray8": (b"\x96" + big, "a bytearray of 2**40 bytes"),
        "binbytes": (b"B\xff\xff\xff\xff", "4 GiB of bytes"),
        "binunicode": (b"X\xff\xff\xff\xff", "a text of 4 GiB"),
        "long4": (b"\x8b\xff\xff\xff\x7f", "a number of 2 GiB"),
        "long4-negative": (b"\x8b\xff\xff\xff\xff", "a number of -1 bytes"),
        "binstring-negative": (b"T\xff\xff\xff\xff", "a text of -1 bytes"),
        "frame": (b"\x95" + big, "a frame of 2**40 bytes"),
    }
    for slug, (opcode, what) in claims.items():
        yield hold(f"claims-{slug}", "model.pkl", proto(4) + opcode + b"abc.", f"A few bytes that claim {what}.")
    yield hold("memo-bomb", "model.pkl", pickled(NONE, b"r\xff\xff\xff\x7f"), "LONG_BINPUT 2**31: an array of 16 GiB.")
    yield hold("memo-bomb-text", "model.pkl", pickled(NONE, b"p99999999999\n"), "PUT 99999999999.")
    yield hold("doubling", "model.pkl", pickled(doubled(60)), "60 tuples, each of the last one twice: 2**60 leaves.")
    yield hold(
        "doubling-key",
        "model.pkl",
        pickled(EMPTY_DICT, doubled(60), NONE, SETITEM),
        "The same as the key of a dictionary: its hash takes 2**60 steps.",
    )
    yield hold("deep", "model.pkl", pickled(EMPTY_LIST * 100_000, APPEND * 99_999), "Lists 100,000 deep.")
    yield hold(
        "long-decimal",
        "model.pkl",
        pickled(b"L" + b"9" * 400_000 + b"L\n"),
        "A number of 400,000 decimal digits, which takes quadratic time to read.",
    )
    yield hold(
        "bytearray-call",
        "model.pkl",
        pickled(call(named("builtins", "bytearray"), 1 << 42)),
        "The harmless bytearray, asked for 4 TiB of zeros.",
    )
    yield hold(
        "list-range",
        "model.pkl",
        pickled(call(named("builtins", "list"), call(named("builtins", "range"), 10**12))),
        "list(range(10**12)).",
    )
    shape = pickled(
        call(named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), (1 << 42,), blob(b"b"))
    )
    yield hold("ndarray-shape", "model.pkl", shape, "numpy's _reconstruct, asked for an array of 2**42 bytes.")
    marks = pickled(MARK * 200_000, TUPLE * 200_000)
    yield hold("marks", "model.pkl", marks, "Tuples 200,000 deep: whoever frees or prints them runs out of stack.")
    items = pickled(EMPTY_LIST, put(0), MARK, get(0) * 20, APPENDS, value({}), BUILD)
    yield block(
        "build-list", "model.pkl", items + attack(), "BUILD on a list fails, and a second pickle with a call follows."
    )
