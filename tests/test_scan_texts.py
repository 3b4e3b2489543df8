"""Configurations, cards, code and other texts: what a loader would obey is found, what is only text passes."""

# ruff: noqa: E501 - a document stands on one line

import json
import tempfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.scan import formats, leaves, matter
from freehold.scan.base import Malformed
from freehold.scan.tape import MemoryTape
from freehold.types import Judged


def judge(content: str | bytes | dict | list, name: str = "config.json") -> Judged:
    if isinstance(content, (dict, list)):
        content = json.dumps(content)
    content = content.encode() if isinstance(content, str) else content
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return formats.judge(file.fileno(), len(content), name)


def found(judged: Judged) -> set[tuple[str, str]]:
    return {(finding.rule, finding.severity.value) for finding in judged.findings}


def whole(judged: Judged) -> None:
    """What holds for every file whatever."""
    assert judged.parsed + judged.data + sum(span.end - span.start for span in judged.unjudged) == judged.size
    assert all(finding.rule != "scan.fault" for finding in judged.findings)
    assert judged.findings or not judged.unjudged


LARGE = "x" * (3 << 20)  # a document of that size is read leaf by leaf

SOUND = {
    "a configuration": ({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope": None, "eps": 1e-5}, "config.json"),
    "a vocabulary with commands": ({"os.system": 1, "eval(": 2, "__import__": 3, "auto_map": 4, "trust_remote_code": 5}, "vocab.json"),
    "trust that is not asked for": ({"trust_remote_code": False}, "config.json"),
    "an empty auto_map": ({"auto_map": {}}, "config.json"),
    "no own generation": ({"custom_generate": None, "custom_pipelines": {}}, "config.json"),
    "an attention of the library": ({"_attn_implementation": "flash_attention_2"}, "config.json"),
    "a pipeline of the library": ({"_class_name": "FluxPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
                                   "safety_checker": [None, None]}, "model_index.json"),
    "modules of the library": ([{"idx": 0, "type": "sentence_transformers.models.Transformer"}], "modules.json"),
    "an adapter": ({"auto_mapping": {"parent_library": "transformers.models.bert.modeling_bert"}}, "adapter_config.json"),
    "an index": ({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "sub/model.safetensors"}}, "x.index.json"),
    "a template": ({"chat_template": "{{ messages }}"}, "tokenizer_config.json"),
    "a price": ({"text": "$5 import duty"}, "config.json"),
    "NaN, as Python writes it": ("{\"loss\": NaN, \"best\": -Infinity}", "trainer_state.json"),
    "a byte order mark": (b"\xef\xbb\xbf{\"a\": 1}", "config.json"),
    "half a surrogate pair": (b"{\"a\": \"\\ud800\"}", "config.json"),
    "lines of documents": ("{\"a\": 1}\n{\"a\": 2}\n", "data.jsonl"),
    "nothing much": ("[]", "added.json"),
    "a card that shows code": ("# Model\n\n```python\nimport pickle\nimport os\npickle.load(open('x', 'rb'))\nos.system('ls')\n```\n", "README.md"),
    "merges": ("#version: 0.2\nt h\ni n\nos .system\n", "merges.txt"),
    "requirements": ("torch>=2\ntransformers\n", "requirements.txt"),
    "a licence": ("Apache License\nVersion 2.0\n", "LICENSE"),
    "a table": ("a,b\n1,=2+3\n", "results.csv"),
    "a picture": ("<svg xmlns='http://www.w3.org/2000/svg'><circle r='1'/></svg>", "logo.svg"),
    "a page": ("<!DOCTYPE html><html><body>Model</body></html>", "index.html"),
    "YAML": ("model:\n  name: x\n  # _target_: os.system\n  dtype: bfloat16\n", "recipe.yaml"),
    "a NeMo configuration": ("encoder:\n  _target_: nemo.collections.asr.modules.ConformerEncoder\n", "model_config.yaml"),
    "harmless parts": ("a:\n  _target_: datetime.timedelta\n", "model_config.yaml"),
    "an old alphabet": ("Modèle de langue français, licence libre.".encode("latin-1"), "NOTICE"),
    "UTF-16": ("A licence in another coding.".encode("utf-16"), "LICENSE.txt"),
    "attributes": ("*.bin filter=lfs diff=lfs merge=lfs -text\n", ".gitattributes"),
    "a text about pointers": ("Each file begins with: version https://git-lfs.github.com/spec/v1\n", "NOTES.txt"),
    "text with the colours of a terminal": ("\x1b[31mred\x1b[0m\n", "train.log"),
    "a large vocabulary": ({"v": {f"t{n}": n for n in range(200_000)}, "x": LARGE}, "tokenizer.json"),
}  # fmt: skip


SOUND |= {
    "a reference of OmegaConf": ({"$schema": "http://x.org/(a)", "home": "${oc.env:HOME}", "price": "$5 (approx)"}, "conf.json"),
    "merges with dollars": ({"model": {"merges": ["$ (", "$f ()", "$ ["]}}, "tokenizer.json"),
    "a target that is none": ({"target": "test.csv"}, "config.json"),
    "folders of modules": ([{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
                            {"type": "sentence_transformers.sparse_encoder.models.SpladePooling", "path": ""}], "modules.json"),
    "a template with braces of one kind": ({"prompt_template": "Say {this}"}, "config.json"),
    "an operation of Keras": ({"class_name": "function", "module": "keras.ops", "config": "expand_dims"}, "x.json"),
    "YAML's own tags": ("a: !!float 1\nb: !!set {a, b}\nc: !<tag:yaml.org,2002:str> x\n", "x.yaml"),
    "aliases that do not multiply": ("a: &a 1\n" + "b: [" + "*a, " * 100 + "1]\n", "x.yaml"),
    "shouting": ("title: Hello !world\nb: 'a ! b'\nc: **bold**\n", "x.yaml"),
    "a NeMo model": ("target: nemo.collections.asr.models.EncDecCTCModel\nlabels: ['!', '?', '*']\n", "model_config.yaml"),
    "YAML with a template": ("chat_template: |\n  {{ messages }}\nx: 1\n", "x.yaml"),
    "merges with exclamation": ("#version: 0.2\n! !\n!! !!\n", "merges.txt"),
    "a project without a build": ("[tool.ruff]\nline-length = 120\n", "pyproject.toml"),
    "a template of nothing": ("Dear reader,\n", "letter.template"),
    "Whisper": ({"model_type": "whisper", "begin_suppress_tokens": [220, 50257], "architectures": ["WhisperForConditionalGeneration"]}, "config.json"),
    "an adapter of LoRA": ({"peft_type": "LORA", "target_modules": ["q_proj"], "auto_mapping": None}, "adapter_config.json"),
    "a preprocessor": ({"image_processor_type": "CLIPImageProcessor", "image_mean": [0.5]}, "preprocessor_config.json"),
    "a generation": ({"do_sample": True, "temperature": 0.6, "eos_token_id": [1, 2]}, "generation_config.json"),
}  # fmt: skip


@pytest.mark.parametrize("how", SOUND)
def test_what_is_only_text_passes(how):
    """Nothing but notes, every byte parsed."""
    judged = judge(*SOUND[how])
    assert {severity for _, severity in found(judged)} <= {"note"} and judged.format in ("json", "text")
    assert judged.parsed == judged.size


ATTACKS = {
    "auto_map": ({"auto_map": {"AutoModel": "modeling_x.Model"}}, "config.json", "config.auto-map", "hold"),
    "auto_map, deep inside": ({"a": [{"b": {"auto_map": {"AutoTokenizer": ["tok.Slow", None]}}}]}, "config.json", "config.auto-map", "hold"),
    "auto_map to another repository": ({"auto_map": {"AutoConfig": "evil/repo--configuration.Config"}}, "config.json",
                                       "config.code-elsewhere", "block"),
    "auto_map by an escaped key": ("{\"auto\\u005fmap\": {\"AutoConfig\": \"e/r--c.C\"}}", "config.json", "config.code-elsewhere", "block"),
    "auto_map, once for each reader": ("{\"auto_map\": {\"A\": \"e/r--c.C\"}, \"auto_map\": {}}", "config.json", "config.code-elsewhere", "block"),
    "auto_map in a large document": ({"x": LARGE, "auto_map": {"A": "evil/repo--c.C"}}, "config.json", "config.code-elsewhere", "block"),
    "auto_map behind a vocabulary": ({"v": {f"t{n}": n for n in range(300_000)}, "auto_map": {"A": ["e/r--c.C"]}, "z": 1},
                                     "tokenizer.json", "config.code-elsewhere", "block"),
    "trust_remote_code": ({"tokenizer": {"trust_remote_code": True}}, "config.json", "config.trust-remote-code", "hold"),
    "custom_generate": ({"custom_generate": "custom_generate/generate.py"}, "generation_config.json", "config.custom-code", "hold"),
    "custom_generate elsewhere": ({"custom_generate": "https://example.org/x"}, "generation_config.json", "config.code-elsewhere", "block"),
    "custom_pipelines": ({"custom_pipelines": {"p": {"impl": "pipe.Pipe", "pt": ["AutoModel"]}}}, "config.json", "config.custom-code", "hold"),
    "a kernel for attention": ({"_attn_implementation": "evil/kernel"}, "config.json", "config.code-elsewhere", "block"),
    "a module of a pipeline": ({"unet": ["pipeline_own", "Net"]}, "model_index.json", "config.custom-code", "hold"),
    "a module of sentences": ([{"type": "own_module.Thing"}], "modules.json", "config.custom-code", "hold"),
    "an adapter's library": ({"auto_mapping": {"parent_library": "own_module"}}, "adapter_config.json", "config.custom-code", "hold"),
    "a target": ({"_target_": "os.system", "_args_": ["echo hello"]}, "config.json", "config.target", "block"),
    "a target of the library": ({"_target_": "torch.hub.load"}, "config.json", "config.target", "block"),
    "a target by way of a library": ({"_target_": "nemo.utils.os.system"}, "config.json", "config.target", "block"),
    "an unknown target": ({"_target_": "acme.Thing"}, "config.json", "config.target-unknown", "hold"),
    "a target of functions": ({"_target_": "torch.compile"}, "config.json", "config.target-unknown", "hold"),
    "a target that is put together": ({"_target_": "${name}.system"}, "config.json", "config.target-unknown", "hold"),
    "an expression": ({"imports": ["$import os"]}, "metadata.json", "config.expression", "hold"),
    "an index that escapes": ({"weight_map": {"a": "../../etc/passwd"}}, "model.safetensors.index.json", "config.index-escapes", "block"),
    "an index by a drive": ({"weight_map": {"a": "C:\\\\x"}}, "model.safetensors.index.json", "config.index-escapes", "block"),
    "an absolute index": ({"weight_map": {"a": "/etc/passwd"}}, "model.safetensors.index.json", "config.index-escapes", "block"),
    "a template": ({"chat_template": "{{ ''.__class__ }}"}, "tokenizer_config.json", "template.attribute", "block"),
    "a template of a list": ({"chat_template": [{"name": "default", "template": "{{ x }}"}, {"name": "rag", "template": "{% include 'x' %}"}]},
                             "tokenizer_config.json", "template.loads", "block"),
    "a template of a map": ({"chat_template": {"default": "{{ ''.__class__ }}"}}, "processor_config.json", "template.attribute", "block"),
    "a template in a large document": ({"x": LARGE, "chat_template": "{{ ''.__class__ }}"}, "tokenizer_config.json", "template.attribute", "block"),
    "a notebook": ({"cells": [{"cell_type": "code", "source": ["1"]}], "nbformat": 4}, "demo.ipynb", "text.code", "hold"),
    "a Keras configuration too large to judge": ({"class_name": "Functional", "config": {"x": LARGE}}, "config.json",
                                                 "json.large-keras", "hold"),
    "broken JSON": ("{\"a\": }", "config.json", "json.syntax", "hold"),
    "something behind": ("{\"a\": 1} {\"b\": 2}", "config.json", "json.syntax", "hold"),
    "no JSON at all": ("hello", "config.json", "json.syntax", "hold"),
    "broken UTF-8": (b"{\"a\": \"\xff\"}", "config.json", "json.syntax", "hold"),
    "a number of 100,000 digits": ("{\"a\": " + "9" * 100_000 + "}", "config.json", "json.syntax", "hold"),
    "deep": ("[" * 100_000 + "]" * 100_000, "config.json", "json.deep", "hold"),
    "deep in a large document": ("[" * 3_000_000, "config.json", "json.deep", "hold"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "model.safetensors", "text.pointer", "block"),
    "a page in place of weights": ("<!doctype html><html>Not found</html>", "model.gguf", "text.instead", "block"),
    "code": ("import os\n", "modeling_x.py", "text.python", "hold"),
    "code without its name": ("import os\nfrom sys import argv\n\ndef main():\n    pass\n", "modeling", "text.python", "hold"),
    "code by its first line": ("#!/usr/bin/env python3\nprint('hello')\n", "run", "text.python", "hold"),
    "a script": ("#!/bin/sh\necho hello\n", "run", "text.script", "hold"),
    "a script by its name": ("echo hello\n", "install.sh", "text.script", "hold"),
    "a picture with a script": ("<svg><script>alert(1)</script></svg>", "logo.svg", "text.active", "hold"),
    "a picture that reacts": ("<svg onload = 'x()'/>", "logo", "text.active", "hold"),
    "a page with a script": ("<html><SCRIPT src=x></SCRIPT></html>", "index.html", "text.active", "hold"),
    "YAML that builds": ("a: !!python/object/apply:os.system ['echo hello']\n", "model_config.yaml", "yaml.python", "block"),
    "YAML that builds, in full": ("a: !<tag:yaml.org,2002:python/name:os.system>\n", "x.yml", "yaml.python", "block"),
    "YAML that renames": ("%TAG ! tag:yaml.org,2002:\n---\na: !python/x\n", "x.yml", "yaml.hidden", "hold"),
    "YAML target": ("a:\n  _target_: subprocess.Popen\n", "model_config.yaml", "config.target", "block"),
    "YAML target, in a line": ("a: {b: 1, '_target_': \"builtins.exec\"}\n", "model_config.yaml", "config.target", "block"),
    "YAML target, below": ("a:\n  _target_: >-\n    os.system\n", "model_config.yaml", "config.target-unknown", "hold"),
    "YAML target, escaped": ("a:\n  \"\\x5ftarget_\": os.system\n", "model_config.yaml", "yaml.hidden", "hold"),
    "YAML target, asked": ("a:\n  ? _target_\n  : os.system\n", "model_config.yaml", "yaml.hidden", "hold"),
    "YAML auto_map": ("auto_map:\n  AutoModel: x.Y\n", "config.yaml", "config.auto-map", "hold"),
    "front matter that builds": ("---\na: !!python/name:os.system\n---\n# Card\n", "README.md", "yaml.python", "block"),
    "text, then not": (b"hello\n" * 2000 + b"\x00\x01", "notes.txt", "text.binary", "hold"),
}  # fmt: skip


_ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 20))
ATTACKS |= {
    **{f"YAML behind {mark!r}": (f"# c{mark}_target_: os.system\na: 1\n", "x.yaml", "config.target", "block")
       for mark in ("\r", "\x85", "\u2028", "\u2029")},
    "YAML that builds behind a comment": ("# c\x85x: !!python/object/apply:os.system [x]", "x.yaml", "yaml.python", "block"),
    "YAML on a long line": ('{a: "' + "x" * 70_000 + '", _target_: os.system}', "x.yaml", "yaml.hidden", "hold"),
    "YAML without its name": ("a: !!python/name:os.system\n", "hparams", "yaml.python", "block"),
    "YAML as configuration": ("_target_: os.system\n", "y.conf", "config.target", "block"),
    "YAML as text": ("x:\n  _target_: os.system\n", "y.txt", "config.target", "block"),
    "YAML for Java": ("a: !!javax.script.ScriptEngineManager [x]\n", "x.yaml", "yaml.tag", "hold"),
    "YAML for Ruby": ("- !ruby/object:Gem::Installer\n", "x.yaml", "yaml.tag", "hold"),
    "YAML for JavaScript": ("{a: !!js/function 'x'}\n", "x.yaml", "yaml.tag", "hold"),
    "YAML that unfolds": (_ALIAS_BOMB, "x.yaml", "yaml.aliases", "hold"),
    "a graph as text that reads": ('node { name: "a" op: "ReadFile" }', "saved_model.pbtxt", "tensorflow.files", "block"),
    "a graph as text that runs": ('node { op: "Eager" \'PyFunc\' }', "x.pbtxt", "tensorflow.code", "block"),
    "a graph as text": ('node { op: "Add" }', "x.prototxt", "text.proto", "hold"),
    "a schema of skops": ({"__class__": "system", "__module__": "os", "__loader__": "TypeNode"}, "schema.json", "skops.code", "block"),
    "a model of skops": ({"__class__": "SVC", "__module__": "sklearn.svm", "__loader__": "ObjectNode"}, "schema.json", "skops.known", "hold"),
    "a large schema of skops": ({"x": LARGE, "a": {"__module__": "os", "__loader__": "T"}}, "schema.json", "skops.code", "block"),
    "an expression of MONAI": ({"a": "$(lambda: __import__('os'))()"}, "config.json", "config.expression", "hold"),
    "an expression that loops": ({"a": "$[x for x in ().__class__.__base__]"}, "config.json", "config.expression", "hold"),
    "an expression in YAML": ("a: $@x.run('ls')\n", "x.yaml", "config.expression", "hold"),
    "a plain target": ({"target": "os.system", "params": {}}, "config.json", "config.target", "block"),
    "a plain target of the publisher": ({"target": "own.Thing", "params": {}}, "config.json", "config.target-unknown", "hold"),
    "a plain target in YAML": ("model:\n  target: os.system\n  params: {}\n", "x.yaml", "config.target", "block"),
    "trust as a number": ({"trust_remote_code": 1}, "config.json", "config.trust-remote-code", "hold"),
    "trust as a word": ({"trust_remote_code": "true"}, "config.json", "config.trust-remote-code", "hold"),
    "a module by way of the library": ([{"type": "sentence_transformers.os.system"}], "modules.json", "config.custom-code", "hold"),
    "a module outside": ([{"type": "sentence_transformers.models.Pooling", "path": "../x"}], "modules.json", "config.index-escapes", "block"),
    "a pipeline by way of the library": ({"a": ["diffusers.os", "Y"]}, "model_index.json", "config.custom-code", "hold"),
    "a pipeline of its own": ({"_class_name": ["pipe", "Own"]}, "model_index.json", "config.custom-code", "hold"),
    "an index of code": ({"weight_map": {"a": "evil.py"}}, "x.index.json", "config.index-names", "block"),
    "a loader of MLflow": ("flavors:\n  python_function:\n    loader_module: own\n", "MLmodel", "config.loader-module", "hold"),
    "a template by another key": ({"custom_chat_template": "{{ ''.__class__ }}"}, "config.json", "template.attribute", "block"),
    "a template in YAML": ("chat_template: |\n  {{ ''.__class__ }}\n", "x.yaml", "template.attribute", "block"),
    "a template by its name": ("{% include 'x' %}", "chat.template", "template.loads", "block"),
    **{f"code by the name {name}": ("x: 1\n", name, "text.script", "hold") for name in (
        "Makefile", "Dockerfile", "Jenkinsfile", "CMakeLists.txt", "x.cmake", "x.gradle", "x.tcl", "x.pyx", "x.desktop", "x.reg", "setup.cfg")},
    "a project that is built": ("[build-system]\nbuild-backend = 'x'\n", "pyproject.toml", "text.build", "hold"),
    "requirements from elsewhere": ("torch\n--extra-index-url https://example.org\n", "requirements.txt", "text.build", "hold"),
    "requirements from git": ("a @ git+https://example.org/a\n", "requirements.txt", "text.build", "hold"),
    "two rows of code": ("import os\nos.system('x')\n", "conftest", "text.python", "hold"),
    "text as a pickle": ("hello", "x.dill", "text.instead", "hold"),
    "a list of Keras objects": ([{"module": "os", "class_name": "system", "config": {}}], "x.json", "keras.callable", "block"),
    "an operation of Keras that is none": ({"class_name": "function", "module": "keras.ops.numpy", "config": "save"}, "x.json", "keras.callable", "block"),
    "a PDF": ("%PDF-1.4 hello", "x.pdf", "opaque.unknown", "hold"),
}  # fmt: skip


@pytest.mark.parametrize("how", ATTACKS)
def test_what_a_loader_would_obey_is_named(how):
    """By its rule and gravity, with what to do."""
    content, name, rule, severity = ATTACKS[how]
    judged = judge(content, name)
    assert (rule, severity) in found(judged)
    assert all(finding.meaning.endswith(".") and finding.remedy for finding in judged.findings)
    whole(judged)


def test_named_code_says_when_it_runs():
    """A handler and a setup say what runs them."""
    assert "endpoint" in judge("import os\n", "handler.py").findings[0].meaning
    assert "installed" in judge("import os\n", "setup.py").findings[0].meaning


def test_a_configuration_and_its_templates_are_facts():
    """The document, the templates by their names; the names of an index, sorted."""
    document = {"a": [1, {"b": None}], "chat_template": [{"name": "rag", "template": "{{ x }}"}]}
    facts = judge(document, "tokenizer_config.json").facts
    assert facts["config"] == document and facts["template_texts"] == {"rag": "{{ x }}"}
    assert judge({"weight_map": {"a": "b.safetensors", "c": "a.safetensors"}}, "x.index.json").facts["index"] == [
        "a.safetensors", "b.safetensors"
    ]  # fmt: skip
    assert "config" not in judge({"a": "x" * 70_000}, "config.json").facts


def test_facts_can_be_written_down():
    """Whatever numbers and letters a document holds."""
    facts = judge('{"a": 123456789012345678901234567890, "b": "\\ud800", "c": NaN}').facts
    assert json.dumps(facts["config"]).encode() and facts["config"]["a"] > 1e29 and facts["config"]["b"] == "?"


def test_texts_are_kept_for_those_who_read_them():
    """Licences and cards, cut; other texts not."""
    assert judge("Apache License", "LICENSE").facts["text"] == "Apache License"
    assert len(judge("a" * 400_000, "NOTICE.txt").facts["text"]) == 256 << 10
    assert "text" not in judge("a b\n", "merges.txt").facts


CARD = """---
license: apache-2.0
license_name: "a \\"name\\""
base_model:
- org/one
- org/two  # a comment
language: [en, de]
tags:
    - text-generation
    - 'it''s'
model-index:
- name: x
  results:
  - task:
      type: text
    metrics: [{a: 1}]
    value: 0.5
private: false
empty:
about: |
  two
  lines
long: one
  and two
url: https://example.org/a:b
---
# Card
"""


def test_a_cards_front_matter_is_data():
    """Scalars, lists, maps within lists, blocks, comments."""
    card = judge(CARD, "README.md").facts["card"]
    assert card["license"] == "apache-2.0" and card["license_name"] == 'a "name"'
    assert card["base_model"] == ["org/one", "org/two"] and card["language"] == ["en", "de"]
    assert card["tags"] == ["text-generation", "it's"] and card["private"] is False and card["empty"] is None
    assert card["model-index"][0]["results"][0]["task"] == {"type": "text"}
    assert card["model-index"][0]["results"][0]["value"] == 0.5
    assert card["about"] == "two\nlines" and card["long"] == "one and two" and card["url"] == "https://example.org/a:b"


def test_front_matter_that_cannot_be_read_is_said():
    """And nothing of it is taken; a card without any is no finding."""
    judged = judge("---\na: 1\na: 2\n---\n", "README.md")
    assert found(judged) == {("text.front-matter", "note")} and "card" not in judged.facts
    assert judge("# Card\n", "README.md").findings == ()
    with pytest.raises(matter.Unreadable):
        matter.read("a:\n" + "".join("  " * n + "- \n" for n in range(1, 40)) + "  " * 40 + "x: 1")


def test_a_large_tokenizer_is_quick_and_takes_little_memory():
    """Five megabytes in well under a second or so; merges as pairs and as strings."""
    merges = [[f"a{n}", f"b{n}"] for n in range(100_000)] + [f"a{n} b{n}" for n in range(100_000)]
    document = {"model": {"vocab": {f"token{n}": n for n in range(100_000)}, "merges": merges}, "added_tokens": []}
    for content in (json.dumps(document), json.dumps(document, indent=2)):
        start = time.perf_counter()
        judged = judge(content, "tokenizer.json")
        assert judged.findings == () and time.perf_counter() - start < 5


def test_many_escaped_keys_are_read_in_time():
    """A watched word in every key costs no more than reading each."""
    start = time.perf_counter()
    whole(judge("{" + ",".join(f'"\\u0061{n}":{n}' for n in range(100_000)) + ',"x":"' + LARGE + '"}', "a.json"))
    assert time.perf_counter() - start < 14


SLOW = {
    "quotes": "\"" * 100_000, "spaces": " " * 200_000 + "x", "colons": ":" * 100_000, "exclamation marks": "!" * 200_000,
    "tags": "!<tag:" * 30_000, "brackets": "<" * 200_000, "keys": "_target_:" * 20_000, "dashes": "- " * 50_000, "braces": "{" * 200_000,
    "commas": "[" + "1," * 2_000_000, "strings": "[" + "\"a\"," * 1_000_000, "backslashes": "[\"" + "\\" * 3_000_000,
    "one long string": "[\"" + "x" * 9_000_000, "imports": "import a" + "\n" * 250_000 + "import b",
}  # fmt: skip


@pytest.mark.parametrize("name", ["x.yaml", "README.md", "x.json", "x.svg", "x"])
@pytest.mark.parametrize("how", SLOW)
def test_time_is_bounded(how, name):
    """Whatever is repeated, whatever it is called."""
    content = SLOW[how]
    start = time.perf_counter()
    judged = judge("---\n" + content + "\n---\n" if name == "README.md" else content, name)
    whole(judged)
    assert time.perf_counter() - start < 10


def leaves_of(content: bytes, many: bool = False) -> list:
    found: list = []
    leaves.stream(MemoryTape(content), lambda path, value: found.append((path, value)), frozenset({"w"}), many=many)
    return found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=30,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(document=JSON, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_both_readers_see_the_same_leaves(document, indent, ascii_only):
    """Under a watched key, the reader of large documents tells of every leaf that a parser sees."""
    content = json.dumps({"w": document}, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    assert leaves_of(content) == list(leaves.of(json.loads(content)))


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet='{}[]",:\\u0 1-.eEtrufalsn\n\x01', max_size=30))
def test_both_readers_agree_on_what_is_json(text):
    """What one refuses, the other does."""
    try:
        json.loads(text)
        sound = True
    except ValueError:
        sound = False
    try:
        leaves_of(text.encode())
        taken = True
    except Malformed:
        taken = False
    assert sound == taken


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
       name=st.sampled_from(["config.json", "README.md", "x.yaml", "x.py", "x", "x.svg", "x.jsonl", "LICENSE"]))  # fmt: skip
def test_any_bytes_are_judged(content, name):
    """And so is noise, under any name."""
    if content:
        whole(judge(content, name))


@settings(max_examples=300, deadline=None)
@given(
    how=st.sampled_from([*SOUND, *ATTACKS]), at=st.integers(0, 200), put=st.binary(max_size=6), cut=st.integers(0, 9)
)
def test_damaged_texts_are_judged(how, at, put, cut):
    """Any bytes anywhere."""
    content, name = (SOUND.get(how) or ATTACKS[how])[:2]
    content = json.dumps(content).encode() if isinstance(content, (dict, list)) else content
    content = (content.encode() if isinstance(content, str) else content)[:5000]
    whole(judge(content[:at] + put + content[at + cut :] or b" ", name))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-#'\"[]{},|> \n", max_size=80))
def test_any_front_matter_is_read_or_refused(text):
    """It is data or Unreadable, and nothing else."""
    try:
        value = matter.read(text)
    except matter.Unreadable:
        return
    assert json.dumps(value) is not None
