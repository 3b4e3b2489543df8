"""Whole repositories: code that the configuration calls for, pickles beside the weights, names that deceive."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping

from assets import zips
from assets.gguf_files import ROW, gguf, tensor
from assets.onnx_files import graph as onnx_graph
from assets.onnx_files import inside, onnx
from assets.opcodes import BUILD, EMPTY_TUPLE, NEWOBJ, attack, named, pickled, value
from assets.pieces import (
    ATTRIBUTES,
    CONFIG,
    GIF,
    JPEG,
    README,
    VOCABULARY,
    WEIGHTS,
    png,
    repository,
    sentencepiece,
    tokenizer,
)
from assets.shelf import Content, Draft, Link, admit, block, family, hold
from assets.template_files import CHATML
from assets.torches import PAIR, STATE, checkpoint
from assets.torches import tensor as torch_tensor

CODE = "print('freehold')\n"


def around(slug: str, says: str, files: Mapping[str, Content], expect: str = "hold") -> Draft:
    """A sound repository with these files on top."""
    return Draft(slug, "", {**repository(), **files}, expect, says)


def configured(**more: object) -> dict[str, Content]:
    return {"config.json": json.dumps(CONFIG | more)}


@family("repository")
def code_by_configuration() -> Iterator[Draft]:
    """Configurations that make the engine import and run something."""
    own = {"AutoConfig": "configuration_acme.AcmeConfig", "AutoModelForCausalLM": "modeling_acme.AcmeModel"}
    other = {"AutoConfig": "other-org/other-repo--configuration_x.XConfig"}
    yield around(
        "auto-map",
        "auto_map with its own code beside it.",
        {**configured(auto_map=own), "modeling_acme.py": CODE, "configuration_acme.py": CODE},
    )
    yield around("auto-map-without-code", "auto_map whose code is not here.", configured(auto_map=own))
    yield around(
        "auto-map-elsewhere",
        "CVE-2025-66448: auto_map that fetches its code from another repository.",
        configured(auto_map=other),
    )
    yield around(
        "auto-map-nested",
        "CVE-2025-66448: the same in vision_config, which engines resolve without asking.",
        configured(vision_config={"auto_map": other}),
    )
    yield around(
        "auto-map-deep",
        "The same three configurations deep.",
        configured(text_config={"audio_config": {"encoder": {"auto_map": own}}}),
    )
    yield around(
        "auto-map-list",
        "auto_map whose values are lists.",
        configured(auto_map={"AutoTokenizer": [None, "tokenization_acme.Fast"]}),
    )
    for name in (
        "tokenizer_config.json",
        "processor_config.json",
        "preprocessor_config.json",
        "generation_config.json",
        "video_preprocessor_config.json",
        "feature_extractor_config.json",
    ):
        yield around(
            f"auto-map-{name.split('_config')[0].replace('_', '-')}",
            f"auto_map in {name}.",
            {name: json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_acme.Slow", None]}})},
        )
    yield around(
        "auto-map-escaped",
        "auto_map, spelt with an escape.",
        {"config.json": json.dumps(CONFIG | {"X": own}).replace('"X"', '"auto\\u005fmap"')},
    )
    yield around(
        "auto-map-twice",
        "auto_map twice: null, then the code.",
        {"config.json": '{"model_type": "llama", "auto_map": null, "auto_map": {"AutoModel": "m.M"}}'},
    )
    yield around(
        "auto-mapping",
        "An adapter whose auto_mapping imports a library of its choosing.",
        {
            "adapter_config.json": json.dumps(
                {"peft_type": "LORA", "auto_mapping": {"base_model_class": "Net", "parent_library": "acme.models"}}
            )
        },
    )
    yield around(
        "trust-remote-code", "A configuration that asks for remote code itself.", configured(trust_remote_code=True)
    )
    yield around(
        "trust-remote-code-tokenizer",
        "The same in tokenizer_config.json.",
        {"tokenizer_config.json": json.dumps({"trust_remote_code": True})},
    )
    yield around(
        "custom-generate", "custom_generate: Python that generate() runs.", {"custom_generate/generate.py": CODE}
    )
    yield around(
        "custom-generate-key",
        "custom_generate by name, from another repository.",
        {"generation_config.json": json.dumps({"custom_generate": "other-org/decoder"})},
    )
    yield around(
        "custom-pipelines",
        "custom_pipelines: an implementation by name.",
        configured(custom_pipelines={"acme": {"impl": "acme_pipeline.Pipe", "pt": ["AutoModel"]}}),
    )
    yield around(
        "diffusers-pipeline",
        "A diffusers pipeline of its own code.",
        {
            "model_index.json": json.dumps(
                {"_class_name": ["pipeline_acme", "AcmePipeline"], "unet": ["unet_acme", "Net"]}
            ),
            "pipeline_acme.py": CODE,
        },
    )
    yield around(
        "diffusers-library",
        "A diffusers index that imports a module of its choosing.",
        {"model_index.json": json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["acme_evil", "Net"]})},
    )
    yield around(
        "sentence-transformers",
        "modules.json with a class of its own.",
        {
            "modules.json": json.dumps([{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}]),
            "custom_st.py": CODE,
        },
    )
    yield around(
        "hydra-system",
        "CVE-2025-23304: Hydra's _target_ is os.system.",
        {"config.yaml": "model:\n  _target_: os.system\n  command: echo freehold\n"},
        "block",
    )
    yield around(
        "hydra-json",
        "The same in JSON.",
        configured(trainer={"_target_": "subprocess.run", "args": ["echo", "freehold"]}),
        "block",
    )
    yield around(
        "hydra-class",
        "Hydra's _target_ is a class of the publisher's.",
        {"config.yaml": "model:\n  _target_: acme.models.Net\n  size: 3\n"},
    )
    yield around(
        "hydra-flow",
        "The same in YAML's flow style, with quotes and an escape.",
        {"model_config.yaml": '{model: {"\\u005ftarget_": "builtins.eval", x: 1}}\n'},
        "hold",
    )
    yield around(
        "yaml-python",
        "YAML that makes Python objects.",
        {"config.yaml": "a: !!python/object/apply:os.system ['echo freehold']\n"},
        "block",
    )
    yield around(
        "yaml-python-long",
        "The same by the long form of the tag.",
        {"settings.yml": "a: !<tag:yaml.org,2002:python/object/new:os.system> [echo freehold]\n"},
        "block",
    )
    yield around("yaml-bomb", "YAML whose anchors double thirty times.", {"config.yaml": _laughs()})
    yield around(
        "card-bomb",
        "The same in the front matter of the card.",
        {"README.md": "---\n" + _laughs() + "---\n# A model\n"},
    )
    yield around(
        "card-python",
        "Front matter that makes Python objects.",
        {"README.md": "---\nlicense: !!python/object/apply:os.system ['echo freehold']\n---\n"},
    )
    yield around("config-cut", "A configuration that is cut off.", {"config.json": json.dumps(CONFIG)[:-20]})
    yield around(
        "config-deep", "A configuration 100,000 deep.", {"config.json": '{"a":' * 100_000 + "1" + "}" * 100_000}
    )
    yield around(
        "config-html",
        "A hub's error page in place of the configuration.",
        {"config.json": "<!DOCTYPE html><title>404</title>\n"},
    )
    yield around(
        "config-pickle", "A malicious pickle in place of the configuration.", {"config.json": attack(0)}, "block"
    )


def _laughs() -> str:
    rows = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    return "\n".join(rows) + "\n"


@family("repository")
def code_beside() -> Iterator[Draft]:
    """Programs in the folder."""
    programs = {
        "handler.py": CODE,
        "setup.py": CODE,
        "modeling_acme.py": CODE,
        "install.sh": "#!/bin/sh\necho freehold\n",
        "run.bat": "@echo freehold\r\n",
        "ops.so": b"\x7fELF\2\1\1" + b"\0" * 57,
        "ops.dll": b"MZ\x90\0" + b"\0" * 60,
        "ops.dylib": b"\xcf\xfa\xed\xfe" + b"\0" * 60,
        "cached.pyc": b"\xa7\x0d\x0d\x0a" + b"\0" * 12 + b"\xe3" + b"\0" * 30,
        "model.wasm": b"\0asm\1\0\0\0",
        "Tool.class": b"\xca\xfe\xba\xbe\0\0\0\x37" + b"\0" * 20,
        "site.pth": "import os; os.system('echo freehold')\n",
        "noextension": "#!/usr/bin/env python3\n" + CODE,
        ".git/hooks/post-checkout": "#!/bin/sh\necho freehold\n",
        "tool.jar": b"PK\3\4\n\0" + b"\0" * 24,
        "postinstall.js": "console.log('freehold')\n",
        "acme-1.0-py3-none-any.whl": b"PK\5\6" + b"\0" * 18,
        "model.engine": b"ptrt" + b"\0" * 60,
        "blob.dat": bytes(range(256)) * 4,
    }
    for name, content in programs.items():
        slug = name.strip(".").replace("/", "-").replace(".", "-").lower()
        yield around(
            f"beside-{slug}",
            f"{name} beside the weights: a program, or something that nobody here can read.",
            {name: content},
        )


@family("repository")
def pickles_beside() -> Iterator[Draft]:
    """What training leaves behind."""
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "scaler.pt",
        "vocab.p",
        "extra/deep/er/state",
    ):
        content = checkpoint(attack()) if name.endswith((".pt", ".pth")) else attack(4)
        yield around(
            f"training-{name.replace('.', '-').replace('/', '-').replace('_', '-')}",
            f"A malicious {name} beside sound weights.",
            {name: content},
            "block",
        )
    arguments = pickled(
        named("transformers.training_args", "TrainingArguments"), EMPTY_TUPLE, NEWOBJ, value({"lr": 1e-4}), BUILD
    )
    yield around(
        "training-args",
        "training_args.bin as the Trainer writes it: a class that is not here.",
        {"training_args.bin": checkpoint(arguments)},
    )
    yield around(
        "hidden-folder",
        "A malicious pickle in a folder whose name begins with a dot.",
        {".cache/x/model.bin": attack(2)},
        "block",
    )
    yield around(
        "bin-beside-safetensors",
        "A malicious pytorch_model.bin beside sound safetensors.",
        {"pytorch_model.bin": checkpoint(attack())},
        "block",
    )


@family("repository")
def names() -> Iterator[Draft]:
    """Names that deceive, links that lead out, files that are not there."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 4877660776\n"
    yield around(
        "lfs-pointer",
        "A Git-LFS pointer in place of the weights: the model is not here.",
        {"model.safetensors": pointer},
    )
    yield around("lfs-pointer-tokenizer", "A Git-LFS pointer in place of the tokenizer.", {"tokenizer.json": pointer})
    yield hold("lfs-pointer-alone", "model.gguf", pointer, "A Git-LFS pointer, called .gguf.")
    yield around(
        "case", "Two names that differ by case: on many disks they are one file.", {"Model.safetensors": WEIGHTS}
    )
    yield around("case-config", "Config.json beside config.json.", {"Config.json": json.dumps(CONFIG)})
    yield around(
        "lookalike", "A Cyrillic о in сonfig's name: two files that look the same.", {"cоnfig.json": json.dumps(CONFIG)}
    )
    yield around(
        "lookalike-normal", "One name in two Unicode forms.", {"mo\u0301del.txt": "a\n", "m\u00f3del.txt": "b\n"}
    )
    yield around(
        "right-to-left",
        "A name that is written backwards: it reads exe.png and ends in .exe.",
        {"weights\u202egnp.exe": b"MZ" + b"\0" * 60},
    )
    yield around("zero-width", "A name with an invisible character.", {"config\u200b.json": "{}"})
    yield around("control", "A name with an escape sequence for the terminal.", {"a\x1b[2Kb.txt": "x\n"})
    yield around("newline", "A name with a line end.", {"a\nb.txt": "x\n"})
    yield around("broken-utf8", "A name that is not UTF-8.", {os.fsdecode(b"weights\xff.txt"): "x\n"})
    yield around(
        "symlink",
        "A configuration that is a symbolic link out of the folder.",
        {"config.json": Link("../../../../../../etc/hostname")},
    )
    yield around("symlink-folder", "A folder that is a symbolic link to /.", {"data": Link("/")})
    yield around("symlink-loop", "A symbolic link to itself.", {"loop": Link("loop")})
    yield around("symlink-parent", "A symbolic link to the folder that it is in.", {"again": Link(".")})
    yield around("symlink-dangling", "A symbolic link to nothing.", {"weights.bin": Link("nothing")})
    shards = {
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        )
    }
    yield around(
        "shard-missing",
        "An index whose second shard is not there.",
        {**shards, "model-00001-of-00002.safetensors": WEIGHTS},
    )
    yield around(
        "bin-index-climbs",
        "An index of PyTorch shards that climbs.",
        {"pytorch_model.bin.index.json": json.dumps({"weight_map": {"a": "../../other/x.bin"}})},
        "block",
    )


@family("repository")
def sound() -> Iterator[Draft]:
    """Repositories as publishers have them."""
    yield admit("plain", "", repository(), "A small and complete repository.")
    yield around(
        "pictures",
        "Pictures and tables beside the weights.",
        {
            "figure.png": png(),
            "photo.jpg": JPEG,
            "dot.gif": GIF,
            "results.csv": "task,score\nmmlu,0.5\n",
            "log.jsonl": '{"a": 1}\n{"a": 2}\n',
        },
        "admit",
    )
    yield around(
        "sentencepiece",
        "A sentencepiece tokenizer.",
        {"tokenizer.model": sentencepiece(), "added_tokens.json": "{}"},
        "admit",
    )
    yield around("null-auto-map", "auto_map that is null.", configured(auto_map=None), "admit")
    yield around("empty-auto-map", "auto_map with nothing in it.", configured(auto_map={}), "admit")
    yield around("no-remote-code", "trust_remote_code that is false.", configured(trust_remote_code=False), "admit")
    yield around(
        "words",
        "A configuration whose texts name functions.",
        configured(task_specific_params={"summary": {"prefix": "os.system eval _target_ auto_map: "}}),
        "admit",
    )
    yield around(
        "generation",
        "A plain generation configuration.",
        {"generation_config.json": json.dumps({"max_new_tokens": 64, "stop": ["</s>", "import os"]})},
        "admit",
    )
    yield around(
        "trainer-state",
        "What the Trainer writes in JSON.",
        {
            "trainer_state.json": json.dumps({"global_step": 3, "log_history": [{"loss": 0.5}]}),
            "all_results.json": "{}",
        },
        "admit",
    )
    yield around(
        "optimizer",
        "A plain optimizer.pt.",
        {"optimizer.pt": checkpoint(pickled(value({"state": {0: {"exp_avg": torch_tensor("0")}}})), PAIR[0])},
        "admit",
    )
    yield around(
        "pytorch",
        "A plain pytorch_model.bin beside safetensors.",
        {"pytorch_model.bin": checkpoint(pickled(STATE), *PAIR)},
        "admit",
    )
    yield around("onnx", "An ONNX export in a folder.", {"onnx/model.onnx": onnx(onnx_graph(inside()))}, "admit")
    yield around(
        "yaml",
        "Plain settings in YAML.",
        {"config.yaml": "model:\n  name: acme\n  layers: [1, 2]\n  target: os.system as a word\n"},
        "admit",
    )
    yield around(
        "yaml-anchor",
        "YAML with an anchor that is used twice.",
        {"config.yaml": "base: &base {lr: 0.1}\na: *base\nb: *base\n"},
        "admit",
    )
    yield around(
        "hidden", "Files of Git's that are text.", {".gitignore": "*.tmp\n", ".gitattributes": ATTRIBUTES}, "admit"
    )
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    yield around(
        "sentence-transformers",
        "modules.json with the library's own classes.",
        {"modules.json": json.dumps(modules), "1_Pooling/config.json": '{"word_embedding_dimension": 2}'},
        "admit",
    )
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
    }
    diffusers = {
        "model_index.json": json.dumps(index),
        "unet/config.json": '{"_class_name": "UNet2DConditionModel"}',
        "unet/diffusion_pytorch_model.safetensors": WEIGHTS,
        "README.md": README,
    }
    yield admit("diffusers", "", diffusers, "A diffusers pipeline of the library's own parts.")
    base = gguf({"general.license": "apache-2.0", "tokenizer.chat_template": CHATML}, [tensor()], ROW)
    yield admit(
        "gguf",
        "",
        {"model-Q8_0.gguf": base, "README.md": README, ".gitattributes": ATTRIBUTES},
        "A repository of one GGUF.",
    )
    yield admit(
        "quantisations",
        "",
        {"model-Q8_0.gguf": base, "model-Q4_0.gguf": base, "README.md": README},
        "Two quantisations with one template.",
    )
    adapter = {
        "adapter_config.json": json.dumps(
            {"peft_type": "LORA", "r": 8, "auto_mapping": None, "base_model_name_or_path": "org/base"}
        ),
        "adapter_model.safetensors": WEIGHTS,
        "README.md": README,
    }
    yield admit("adapter", "", adapter, "A LoRA adapter.")
    yield around("unicode", "A name in another script.", {"説明.md": "# モデル\n", "größe.txt": "1\n"}, "admit")
    yield around("empty-file", "An empty text file.", {"NOTICE": ""}, "admit")
    yield around(
        "large-vocabulary",
        "A vocabulary of 30,000 words.",
        {"vocab.json": json.dumps(VOCABULARY | {f"word{n}": n + 9 for n in range(30_000)})},
        "admit",
    )


@family("text")
def texts() -> Iterator[Draft]:
    """Single files of words and pictures."""
    files = {
        "README.md": README,
        "notes.txt": "cos\nand sin\n",
        "vocab.txt": "os.system\neval\n__reduce__\n",
        "merges.txt": "#version: 0.2\no s\n",
        "vocab.json": json.dumps(VOCABULARY),
        "tokenizer.json": tokenizer(),
        "tokenizer.model": sentencepiece(),
        "figure.png": png(),
        "photo.jpg": JPEG,
        "dot.gif": GIF,
        "table.csv": "a,b\n1,2\n",
        "table.tsv": "a\tb\n1\t2\n",
        "data.jsonl": '{"text": "cos\\nsystem\\n(S"}\n',
        "config.json": json.dumps(CONFIG),
        "settings.yaml": "a: 1\n",
        ".gitattributes": ATTRIBUTES,
        "LICENSE": "You may use this.\n",
        "pickle-opcodes.txt": "A list in protocol 0 reads (lp0\nI1\na. and no more.\n",
        "begins-with-c.txt": "colours\nof the sea\n",
        "begins-with-bracket.txt": "(see below)\n]\n}\n.\n",
        "number.txt": "I42\n",
        "crlf.txt": "a\r\nb\r\n",
        "bom.txt": "\ufeffwords\n",
        "settings.toml": "[a]\nb = 1\n",
        "cite.bib": "@misc{a, title={b}}\n",
    }
    for name, content in files.items():
        slug = name.strip(".").replace(".", "-").lower()
        yield admit(slug, name, content, f"{name}: an ordinary file that runs nothing.")


@family("text")
def disguised() -> Iterator[Draft]:
    """Files that say text or picture, and are more."""
    yield block(
        "png-zip",
        "figure.png",
        png() + zips.named({"archive/data.pkl": attack(2)}),
        "A picture with a malicious zip behind it.",
    )
    yield block("png-pickle", "figure.png", attack(4), "A malicious pickle, called .png.")
    yield hold("png-elf", "figure.png", png() + b"\x7fELF" + b"\1" * 60, "A program behind a picture.")
    yield hold("png-cut", "figure.png", png()[:30], "A picture that is cut off.")
    yield hold("jpg-elf", "photo.jpg", b"\x7fELF\2\1\1" + b"\0" * 57, "A program, called .jpg.")
    yield hold("txt-binary", "notes.txt", bytes(range(256)) * 2, "Bytes that are not text, called .txt.")
    yield hold("json-binary", "config.json", b"\x93\x01\x02\0" * 30, "Bytes that are not JSON, called .json.")
    yield hold("json-deep", "vocab.json", "[" * 200_000 + "]" * 200_000, "Brackets 200,000 deep.")
    yield hold("unknown", "weights.xyz", bytes((n * 37 + 11) % 256 for n in range(512)), "A format that nobody knows.")
    yield block("md-pickle", "notes.md", attack(0), "A malicious pickle of protocol 0, called .md.")
    yield block("csv-pickle", "table.csv", attack(2), "A malicious pickle, called .csv.")
    yield block(
        "tokenizer-model-pickle", "tokenizer.model", attack(4), "A malicious pickle in place of a sentencepiece model."
    )
    yield hold("script", "run.sh", "#!/bin/sh\necho freehold\n", "A shell script.")
    yield hold("python", "model.py", CODE, "A Python program.")


@family("opaque")
def opaque() -> Iterator[Draft]:
    """Formats without a parser here: not clean, for nobody has looked."""
    formats: dict[str, Content] = {
        "flax_model.msgpack": b"\x81\xa6params\x81\xa1w\xc7\x04\x01\0\0\0\0",
        "openvino_model.bin": bytes((n * 91 + 7) % 256 for n in range(256)),
        "model.mlmodel": b"\x08\x04\x12\x0a\x0a\x08freehold\xa2\x1f\x00",
        "model.ubj": b"{L\0\0\0\0\0\0\0\x07learner{}}",
        "model.pte": b"\x1c\0\0\0ET12" + b"\0" * 56,
        "model.cbm": b"CBM1" + b"\x10\0\0\0" + b"\1" * 40,
        "model.rds": b"X\n\0\0\0\3\0\4\3\1\0\3\5\0" + b"\1" * 40,
        "rust_model.ot": b"\x9d\x1b\xa4" * 40,
        "model.mnn": b"\x20\0\0\0\0\0\x1c\0" * 12,
        "weights": bytes((n * n + 3) % 251 for n in range(400)),
    }
    for name, content in formats.items():
        yield hold(name.replace("_", "-").replace(".", "-"), name, content, f"{name}: nothing here can read it.")
    yield hold("zeros", "weights.bin", b"\0" * 4096, "Four pages of zeros, called weights.")
    yield hold("empty-weights", "model.bin", b"", "Weights of no bytes.")
    yield hold(
        "skops",
        "model.skops",
        zips.named({"schema.json": b'{"__class__": "eval", "__module__": "builtins"}'}),
        "A skops file, whose schema names what to call.",
    )
