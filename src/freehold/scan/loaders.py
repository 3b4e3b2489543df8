"""What a configuration tells whoever loads the model to do: keys that name code, and the code they name.

A configuration is looked at leaf by leaf: the way to a value (keys and list positions) and the value. Each leaf is
judged by itself, so that a document of any size can be, in any order.

Sources: CVE-2025-66448 and CVE-2026-22807 (vLLM follows ``auto_map``), CVE-2025-23304 (NeMo instantiates ``_target_``),
the documentation of transformers, diffusers, PEFT and Sentence Transformers on custom code.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from typing import Any

from freehold.scan import globals as imports
from freehold.scan.base import BLOCK, HOLD, NOTE, Report, Rule

WITHOUT = "Load the model without it, or ask the publisher for one that needs no code; decide by name and reason."
REFUSE = "Do not load it. Ask the publisher why it is there."
AUTO_MAP = Rule(
    "config.auto-map", HOLD, "The configuration names Python code to load with the model.", WITHOUT, "CVE-2026-22807"
)
OTHER_REPOSITORY = Rule(
    "config.code-elsewhere", BLOCK,
    "The configuration has code loaded from another repository, which may change at any time.", REFUSE,
    "CVE-2025-66448",
)  # fmt: skip
TRUST = Rule(
    "config.trust-remote-code", HOLD, "The configuration asks to be trusted with running code.", WITHOUT,
    "transformers: trust_remote_code",
)  # fmt: skip
CUSTOM = Rule(
    "config.custom-code", HOLD, "The configuration names code of the model's own to be run.", WITHOUT,
    "transformers: custom_generate; diffusers: custom pipelines; PEFT: auto_mapping; "
    "Sentence Transformers: modules.json",
)  # fmt: skip
TARGET = Rule(
    "config.target", BLOCK, "The configuration has a function called that runs commands or code.", REFUSE,
    "CVE-2025-23304",
)  # fmt: skip
TARGET_UNKNOWN = Rule(
    "config.target-unknown", HOLD, "The configuration has something called that is no known part of a model.",
    "See what it is; decide by name and reason.", "CVE-2025-23304",
)  # fmt: skip
EXPRESSION = Rule(
    "config.expression", HOLD, "The configuration holds a Python expression, which its loader evaluates.", WITHOUT,
    "MONAI: bundle configuration",
)  # fmt: skip
ESCAPES = Rule("config.index-escapes", BLOCK, "An index names files outside the model's own folder.", REFUSE, "CWE-22")
NOT_WEIGHTS = Rule(
    "config.index-names", BLOCK, "An index of weights names a file that is none by its name.", REFUSE,
    "transformers: sharded checkpoints",
)  # fmt: skip
FLAVOUR = Rule(
    "config.loader-module", HOLD, "The model says which Python module is imported to load it.", WITHOUT,
    "MLflow: the python_function flavour",
)  # fmt: skip
SKOPS = Rule(
    "skops.known", HOLD, "The file has classes and functions of a known library called by their names.",
    "See that the library is up to date, and which names these are; decide by name and reason.", "skops: schema.json",
)  # fmt: skip
SKOPS_CODE = Rule("skops.code", BLOCK, "The file has something called that can run code.", REFUSE, "skops: schema.json")
CLASSES = Rule(
    "config.target-known", NOTE, "The configuration has classes of a known library built by their names.",
    "Nothing, if that library is up to date.", "CVE-2025-23304",
)  # fmt: skip

LIBRARIES = frozenset((  # whose classes a configuration may name
    "apex", "audiocraft", "diffusers", "flax", "hydra", "jax", "keras", "lightning", "lightning_fabric", "megatron",
    "monai", "nemo", "nemo_automodel", "nemo_rl", "nemo_text_processing", "numpy", "omegaconf", "onnxruntime",
    "open_clip", "optimum", "peft", "pytorch_lightning", "sentence_transformers", "sgm",
    "tensorflow", "timm", "torch", "torchaudio",
    "torchmetrics", "torchvision", "transformer_engine", "transformers",
))  # fmt: skip
_PIPELINE_LIBRARIES = LIBRARIES | {"stable_diffusion", "onnx", "k_diffusion"}
_HARMLESS = re.compile(
    r"collections\.(OrderedDict|defaultdict|deque|Counter)|datetime\.\w+|fractions\.Fraction|decimal\.Decimal|math\.\w+"
    r"|builtins\.(dict|list|tuple|set|frozenset|int|float|str|bool|bytes|range|slice)|pathlib\.(Pure)?Path"
)
_CLASS = re.compile(r"[A-Za-z_]\w*(\.\w+)*\.[A-Z]\w*(\.from_pretrained|\.from_config)?")
# Calls of known libraries that run or fetch code.
_RUNS = re.compile(
    r"torch\.(hub|load|jit|ops|classes|package|utils\.cpp_extension|serialization|_C|distributed\.\w*elastic)\b.*"
    r"|numpy\.(load|f2py|distutils|ctypeslib|testing)\b.*|hydra\.utils\.\w+|hydra\.(core|_internal|main)\b.*"
    r"|(tensorflow|keras)\.(load_op_library|load_library|utils\.get_file)\b.*|.*\b(os|sys|subprocess|builtins|importlib)\b\..*"
)
_REACHES = frozenset(
    ("pip", "setuptools", "pkg_resources", "cloudpickle", "dill", "joblib", "requests", "fire", "IPython")
)
_ATTENTION = frozenset(("_attn_implementation", "attn_implementation", "_attn_implementation_internal",
                        "_experts_implementation", "experts_implementation"))  # fmt: skip

_INDEXED = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf", ".onnx", ".onnx_data",
            ".distcp", ".pdparams")  # fmt: skip
_SENTENCES = re.compile(
    r"sentence_transformers\.(?:(?:models|modules|base|cross_encoder|sparse_encoder|sentence_transformer|util)\.)*"
    r"(?:[a-z_]+\.(?=[A-Z]\w*\Z))?[A-Z]\w*"
)
_NOT_SENTENCES = re.compile(r".*\.(os|sys|subprocess|builtins|importlib|shutil|pickle)\..*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+")
_RUNNERS = frozenset(("os", "posix", "nt", "subprocess", "builtins", "importlib", "shutil", "ctypes", "pty", "runpy",
                      "pickle", "marshal", "webbrowser"))  # fmt: skip
_TRUE = frozenset(("true", "1", "yes", "on", "y"))
_REFERENCE = re.compile(r"[@%][\w#:.-]+")  # of one part of a bundle to another

Path = tuple[str | int, ...]
WATCHED = frozenset((  # keys under which every leaf is looked at
    "auto_map", "trust_remote_code", "custom_generate", "custom_pipelines", "custom_pipeline", "_target_",
    "chat_template", "_template", "weight_map", "parent_library", "_class_name", "target", "__module__", "__loader__",
    *_ATTENTION,
))  # fmt: skip


def judge_leaf(path: Path, value: Any, report: Report) -> None:
    """Judge one value by the keys that lead to it."""
    key = next((part for part in reversed(path) if isinstance(part, str)), "")
    if isinstance(value, str):
        _by_file(path, key, value, report)
    if WATCHED.isdisjoint(path):
        return
    if "auto_map" in path and isinstance(value, str):
        _named(AUTO_MAP, path, value, report)
    elif "trust_remote_code" in path and (value == 1 or (isinstance(value, str) and value.strip().lower() in _TRUE)):
        report.add(TRUST, where(path))
    elif {"custom_generate", "custom_pipelines", "custom_pipeline"} & set(path) and value:
        _named(CUSTOM, path, str(value), report)
    elif "_target_" in path:
        judge_target(value, where(path), report)
    elif "weight_map" in path and isinstance(value, str):
        _indexed(path, value, report)
    elif key == "target" and isinstance(value, str):
        judge_plain_target(value, where(path), report)
    elif key in _ATTENTION and isinstance(value, str) and "/" in value:
        report.add(OTHER_REPOSITORY, where(path), f"Its attention is loaded as code from {value[:200]!r}.")
    elif "_class_name" in path and isinstance(path[-1], int) and isinstance(value, str):
        report.add(CUSTOM, where(path), f"The pipeline's class comes from a module of its own: {value[:200]!r}.")
    elif key == "parent_library" and isinstance(value, str) and value.partition(".")[0] not in LIBRARIES:
        report.add(CUSTOM, where(path), f"The module {value[:200]!r} is imported when the adapter is loaded.")


def _by_file(path: Path, key: str, value: str, report: Report) -> None:
    """What a key means in one kind of file alone."""
    vocabulary = report.name == "tokenizer.json" and not {"merges", "vocab"}.isdisjoint(path)
    if not vocabulary and evaluates(value):
        report.add(EXPRESSION, where(path), f"{value[:100]!r} is evaluated by loaders that take it for an expression.")
    if report.name == "modules.json":
        _module(path, key, value, report)
    elif report.name == "model_index.json" and len(path) == 2:
        if path[1] == 0 and value not in _PIPELINE_LIBRARIES:
            report.add(CUSTOM, where(path), f"A part of the pipeline comes from {value[:200]!r}, no known library.")
        elif path[1] == 1 and not re.fullmatch(r"[A-Za-z]\w*", value):
            report.add(CUSTOM, where(path), f"A part of the pipeline is said to be {value[:200]!r}, which is no class.")


def _module(path: Path, key: str, value: str, report: Report) -> None:
    """One module of a pipeline of Sentence Transformers: its class, and the folder that it lies in."""
    if key == "type" and (not _SENTENCES.fullmatch(value) or _NOT_SENTENCES.fullmatch(value)):
        report.add(CUSTOM, where(path), f"A module of the pipeline is {value[:200]!r}, no known part of the library.")
    elif key == "path" and value and escapes(value):
        report.add(ESCAPES, where(path), f"A module lies in {value[:200]!r}, which is not in the model's own folder.")


def _indexed(path: Path, value: str, report: Report) -> None:
    if escapes(value):
        report.add(ESCAPES, where(path), f"The index names {value[:200]!r}, which is not in the model's own folder.")
    elif not value.lower().endswith(_INDEXED):
        report.add(NOT_WEIGHTS, where(path), f"The index names {value[:200]!r}, which is no file of weights.")


def evaluates(value: str) -> bool:
    """Is this text an expression of MONAI's: ``$`` and Python that imports, calls or loops?"""
    if not value.startswith("$") or len(value) < 3:
        return False
    if re.match(r"\$\s*(import\b|from\b|__import__|exec\b|eval\b|open\b|\w*os\.|subprocess)", value):
        return True
    if not re.search(r"[(\[]", value):
        return False
    if len(value) > 4000:
        return True
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(_REFERENCE.sub("x", value[1:]).strip(), mode="eval")
    except SyntaxError:
        return "__" in value
    except (ValueError, RecursionError, MemoryError):
        return True
    acts = (ast.Call, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return any(
        (isinstance(node, acts) and not isinstance(getattr(node, "func", None), ast.Constant))
        or str(getattr(node, "attr", "")).startswith("__")
        for node in ast.walk(tree)
    )


def _named(rule: Rule, path: Path, value: str, report: Report) -> None:
    if "--" in value or "://" in value:
        meaning = f"The code {value[:200]!r} is loaded from another repository, which may change at any time."
        report.add(OTHER_REPOSITORY, where(path), meaning)
    else:
        report.add(rule, where(path), f"{rule.meaning[:-1]}: {value[:200]!r}.")


def judge_target(value: Any, place: str, report: Report) -> None:
    """Judge what a Hydra configuration has called by its name."""
    if not isinstance(value, str) or len(value) > 500 or not re.fullmatch(r"\w+(\.\w+)*", value):
        report.add(TARGET_UNKNOWN, place, f"It is written {str(value)[:200]!r}, which cannot be told beforehand.")
        return
    first = value.partition(".")[0]
    if _HARMLESS.fullmatch(value):
        return
    if first in sys.stdlib_module_names or first in _REACHES or _RUNS.fullmatch(value):
        report.add(TARGET, place, f"The configuration has {value[:200]} called, which can run commands or code.")
    elif first in LIBRARIES and _CLASS.fullmatch(value):
        report.add(CLASSES)
    else:
        report.add(TARGET_UNKNOWN, place, f"The configuration has {value[:200]} called, no known part of a model.")


def judge_plain_target(value: str, place: str, report: Report, *, called: bool = False) -> None:
    """Judge ``target``, which configurations of diffusion models have called with the ``params`` beside it. The word
    means other things too, so without those only what runs code is named."""
    if not _DOTTED.fullmatch(value[:500]):
        return
    module, _, name = value.rpartition(".")
    if called or module.partition(".")[0] in _RUNNERS or imports.is_infamous(module, name):
        judge_target(value, place, report)


def judge_object(value: dict[str, Any], place: str, report: Report) -> None:
    """Judge what only a whole object tells: a target with its parameters, a part of a skops file."""
    target, module = value.get("target"), value.get("__module__")
    if isinstance(target, str) and "params" in value:
        judge_plain_target(target, place, report, called=True)
    if "__loader__" in value and "__module__" in value:
        judge_skops(module, value.get("__class__"), place, report)


def judge_skops(module: Any, name: Any, place: str, report: Report) -> None:
    """Judge what skops imports by ``module`` and ``name`` when it loads a schema."""
    if not isinstance(module, str) or not isinstance(name, str | None):
        report.add(SKOPS_CODE, place, "Something is imported that is named by no text.")
        return
    _, rule, meaning = imports.look(module, name or "", 4)
    if rule is imports.CODE and not _SKOPS_PLAIN.fullmatch(f"{module}.{name}"):
        report.add(SKOPS_CODE, place, meaning)
    elif module.partition(".")[0] in _SKOPS_KNOWN:
        report.add(SKOPS)
    else:
        report.add(TARGET_UNKNOWN, place, f"Loading it imports {module[:100]}.{name!s:.100}, no known library's.")


_SKOPS_KNOWN = frozenset(("sklearn", "numpy", "scipy", "builtins", "collections", "xgboost", "lightgbm"))
_SKOPS_PLAIN = re.compile(
    r"builtins\.(dict|list|tuple|set|frozenset|int|float|str|bool|bytes|bytearray|slice|type|NoneType|complex)"
    r"|collections\.(OrderedDict|defaultdict|deque|Counter)"
)


def escapes(name: str) -> bool:
    """Does a file's name lead out of the folder that it stands in?"""
    parts = name.replace("\\", "/").split("/")
    return (
        not name
        or name.startswith(("/", "\\", "~"))
        or ".." in parts
        or "\0" in name
        or bool(re.match(r"[A-Za-z]:|\w+://", name))
    )


def where(path: Path) -> str:
    """The way to a value, as one reads it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:60]}" for part in path[-12:])
    return text.lstrip(".")[:300]
