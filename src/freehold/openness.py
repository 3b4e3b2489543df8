"""How open is a model? Its class in the Model Openness Framework, and whether it is Open Source AI.

The framework (White and others, 2024, arXiv:2403.13784) lists 17 components. Class III needs those of an open model,
class II adds its tools, class I everything that science would need to make it again. A component counts only if it is
here, or is code that a well-known library carries, under an open licence; what a card merely links to is told as
stated, and does not count, since neither the thing nor its licence can be read from here. The Open Source AI Definition
1.0 is answered yes, no, or unknown, by the same evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from freehold.types import Component, Judged, Licence, LicenceClass, Openness

CLASSES = ("III", "II", "I")
ENOUGH = 40  # words that make a section of a card more than a heading

# Architectures whose code is in the transformers library (Apache-2.0), by their model_type, or in llama.cpp (MIT).
ARCHITECTURES = frozenset(
    """
    bert bloom cohere cohere2 dbrx deepseek_v2 deepseek_v3 deepseek2 distilbert exaone4 falcon falcon_h1 gemma
    gemma2 gemma3 gemma3_text glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gpt-oss granite granitemoe
    granitemoehybrid jamba lfm2 llama llama4 mamba mamba2 mistral mistral3 mixtral mpt nemotron olmo olmo2 olmo3
    olmoe opt persimmon phi phi2 phi3 qwen2 qwen2moe qwen2_moe qwen2_vl qwen2_5_vl qwen3 qwen3moe qwen3_moe roberta
    smollm3 smolvlm stablelm starcoder starcoder2 t5 whisper xlm-roberta
    """.split()  # noqa: SIM905 - words read best as words
)

_WEIGHTS = {
    ".gguf",
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".onnx",
    ".h5",
    ".keras",
    ".npz",
    ".msgpack",
    ".nemo",
}
_DOCUMENT = {".pdf", ".md", ".tex", ".txt", ".rst", ".docx"}
_CODE = {".py", ".ipynb", ".sh", ".cpp", ".cu", ".rs", ".jl"}
_DATA = {".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".json"}
_HEADING = re.compile(r"^#{1,6}[ \t]+([^\n]{1,200})$", re.M)
_PAPER = re.compile(r"\barxiv(?:\.org/(?:abs|pdf)/|:\s?)(\d{4}\.\d{4,5})", re.I)


class Part(Struct, frozen=True):
    """A component of the framework: the class that needs it, what it is made of, and whether the class asks for it."""

    name: str
    needed_for: str
    type: str  # code, data or document
    required: bool = True


# White and others (2024), and the Model Openness Tool's list of the same components.
PARTS = (
    Part("Model architecture", "III", "code"),
    Part("Model parameters (final)", "III", "data"),
    Part("Technical report", "III", "document"),
    Part("Evaluation results", "III", "document"),
    Part("Model card", "III", "document"),
    Part("Data card", "III", "document"),
    Part("Sample model outputs", "III", "document", required=False),
    Part("Training code", "II", "code"),
    Part("Inference code", "II", "code"),
    Part("Evaluation code", "II", "code"),
    Part("Evaluation data", "II", "data"),
    Part("Supporting libraries and tools", "II", "code", required=False),
    Part("Research paper", "I", "document"),
    Part("Datasets", "I", "data"),
    Part("Data preprocessing code", "I", "code"),
    Part("Model parameters (intermediate)", "I", "data"),
    Part("Model metadata", "I", "data", required=False),
)


class _Seen(Struct, frozen=True):
    """Whether a component is here, and how that is known. ``elsewhere``: under a licence of its own, as named."""

    present: bool | None
    evidence: str
    elsewhere: str | None = None


_NOT_HERE = _Seen(False, "")


class _Evidence:
    """What there is to see of a model: its files, its card, and the card's sections."""

    def __init__(self, files: Sequence[Judged]):
        self.files = files
        self.card: dict[str, Any] = {}
        self.readme, self.text = "", ""
        for file in files:
            text = file.facts.get("text")
            if PurePosixPath(file.file).name.lower().startswith("readme") and isinstance(text, str) and not self.readme:
                card = file.facts.get("card")
                self.readme, self.text, self.card = file.file, text, card if isinstance(card, dict) else {}
        self.sections = _sections(self.text)

    def named(self, pattern: str, endings: Iterable[str]) -> list[str]:
        """The files whose path matches, of these kinds."""
        wanted = re.compile(pattern, re.I)
        paths = (PurePosixPath(file.file) for file in self.files)
        return [str(path) for path in paths if path.suffix.lower() in endings and wanted.search(str(path))]

    def section(self, pattern: str) -> str:
        """The heading of the first section with a text worth the name, or ''."""
        wanted = re.compile(pattern, re.I)
        return next((head for head, size in self.sections if wanted.search(head) and size >= ENOUGH), "")

    def strings(self, field: str) -> list[str]:
        """A field of the card as strings."""
        value = self.card.get(field)
        values = value if isinstance(value, list) else [value]
        return [item[:200] for item in values[:20] if isinstance(item, str) and item.strip()]

    def papers(self) -> list[str]:
        """The arXiv papers that the card links to."""
        return list(dict.fromkeys("arXiv:" + number for number in _PAPER.findall(self.text)[:8]))

    def architectures(self) -> list[tuple[str, str]]:
        """(file, architecture) where a file names one."""
        made = []
        for file in self.files:
            config = file.facts.get("config")
            name = config.get("model_type") if isinstance(config, dict) else file.facts.get("architecture")
            if isinstance(name, str) and name:
                made.append((file.file, name))
        return made


def grade(files: Sequence[Judged], licence: Licence) -> Openness:
    """The model's class and the definition's answer, with each component, what is missing and why."""
    evidence = _Evidence(files)
    seen = [(part, _FIND[part.name](evidence)) for part in PARTS]
    components = tuple(_component(part, found, licence) for part, found in seen)
    counted = {part.name for part, found in seen if _counts(found, licence)}
    counted |= {"Technical report"} if "Research paper" in counted else set()
    reached = _reached(counted)
    osaid, reasons = _osaid(counted, licence)
    return Openness(reached, osaid, components, _missing(reached, counted, components, licence), reasons)


def is_open(licence: Licence) -> bool:
    """An open licence, and nothing that contradicts it."""
    return licence.kind is LicenceClass.OPEN and not licence.conflicts


def _component(part: Part, found: _Seen, licence: Licence) -> Component:
    under = (
        found.elsewhere if found.elsewhere is not None else (licence.id or licence.kind.value) if found.present else ""
    )
    return Component(part.name, part.needed_for, found.present, under, found.evidence)


def _counts(found: _Seen, licence: Licence) -> bool:
    return found.present is True and (is_open(licence) if found.elsewhere is None else bool(found.elsewhere))


def _reached(counted: set[str]) -> str:
    reached = ""
    for name in CLASSES:
        if not all(part.name in counted for part in PARTS if part.needed_for == name and part.required):
            break
        reached = name
    return reached


def _missing(reached: str, counted: set[str], components: tuple[Component, ...], licence: Licence) -> tuple[str, ...]:
    """What the next class needs and does not find, each with the reason."""
    if reached == "I":
        return ()
    wanted = CLASSES[CLASSES.index(reached) + 1] if reached else "III"
    by_name = {component.name: component for component in components}
    return tuple(
        f"{part.name}: {_why(by_name[part.name], licence)}"
        for part in PARTS
        if part.needed_for == wanted and part.required and part.name not in counted
    )


def _why(component: Component, licence: Licence) -> str:
    if component.present is False:
        return "not here."
    if component.present is None:
        return f"cannot be told from what is here ({component.evidence})."
    if not component.licence:
        return f"{component.evidence}; its licence cannot be read from here."
    reason = "its licence is disputed" if licence.conflicts else f"{component.licence} is not an open licence"
    return f"it is here ({component.evidence}), but {reason}."


_ASKED = {
    "Training code": "the code that trains it",
    "Inference code": "the code that runs it",
    "Data preprocessing code": "the code that prepares its data",
    "Data card": "a full description of its training data",
}


def _osaid(counted: set[str], licence: Licence) -> tuple[str, tuple[str, ...]]:
    """The Open Source AI Definition 1.0: open terms for weights and code, and a full description of the data."""
    if licence.kind not in (LicenceClass.OPEN, LicenceClass.UNKNOWN):
        name = licence.id or "a changed licence"
        return "no", (f"The weights are under terms that are not open: {name}, {licence.kind.value}.",)
    doubts = []
    if licence.kind is LicenceClass.UNKNOWN:
        doubts.append("It cannot be told under which terms the weights are.")
    if licence.conflicts:
        doubts.append("What is said of the licence does not agree.")
    if "Model parameters (final)" not in counted:
        doubts.append("There are no weights here that are under open terms.")
    for name, what in _ASKED.items():
        if name not in counted:
            doubts.append(f"It asks for {what} under open terms; none is here, and it may be published elsewhere.")
    if "Data card" in counted and "Datasets" not in counted:
        doubts.append("Whether the description of its training data is full is for a person to judge.")
    return ("unknown" if doubts else "yes"), tuple(doubts)


def _sections(text: str) -> list[tuple[str, int]]:
    """Each heading with the number of words below it, up to the next."""
    heads = list(_HEADING.finditer(text))[:500]
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return [(head[1].strip(), len(text[head.end() : end].split())) for head, end in zip(heads, ends, strict=False)]


def _file(paths: list[str]) -> _Seen | None:
    return _Seen(True, paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")) if paths else None


def _section(evidence: _Evidence, pattern: str) -> _Seen | None:
    head = evidence.section(pattern)
    return _Seen(True, f"{evidence.readme}, section '{head}'") if head else None


def _linked(what: list[str], evidence: _Evidence) -> _Seen | None:
    """Stated in the card, and under a licence that cannot be read from here."""
    return _Seen(True, f"{', '.join(what[:4])}, stated in {evidence.readme}", "") if what else None


def _architecture(evidence: _Evidence) -> _Seen:
    code = _file(evidence.named(r"(?:^|/)(?:modeling|modelling|model)[\w-]*\.py$", _CODE))
    named = evidence.architectures()
    known = [(file, name) for file, name in named if name in ARCHITECTURES]
    if code:
        return code
    if known:
        file, name = known[0]
        where = "llama.cpp" if file.endswith(".gguf") else "the transformers library"
        return _Seen(
            True, f"{file} names {name}, whose code is in {where}", "MIT" if file.endswith(".gguf") else "Apache-2.0"
        )
    return _Seen(None, f"{named[0][0]} names {named[0][1]}, whose code is not here") if named else _NOT_HERE


def _weights(evidence: _Evidence) -> _Seen:
    paths = [file.file for file in evidence.files if _is_weights(file) and not _checkpoint(file.file)]
    return _file(paths) or _NOT_HERE


def _intermediate(evidence: _Evidence) -> _Seen:
    paths = [file.file for file in evidence.files if _is_weights(file) and _checkpoint(file.file)]
    return _file(paths) or _Seen(None, "intermediate weights are often kept as other revisions of a repository")


def _is_weights(file: Judged) -> bool:
    return bool(file.facts.get("tensors")) or PurePosixPath(file.file).suffix.lower() in _WEIGHTS


def _checkpoint(path: str) -> bool:
    return bool(re.search(r"(?:^|/)(?:checkpoint|step|ckpt)[-_]?\d+(?:[/.]|$)", path, re.I))


def _report(evidence: _Evidence) -> _Seen:
    here = _file(evidence.named(r"(?:tech(?:nical)?[-_ ]?)?report", _DOCUMENT))
    return here or _linked(evidence.papers(), evidence) or _NOT_HERE


def _paper(evidence: _Evidence) -> _Seen:
    here = _file(evidence.named(r"(?:^|[/_-])paper", _DOCUMENT))
    return here or _linked(evidence.papers(), evidence) or _NOT_HERE


def _results(evidence: _Evidence) -> _Seen:
    if evidence.card.get("model-index"):
        return _Seen(True, f"{evidence.readme}, model-index")
    here = _file(evidence.named(r"eval\w*[-_/]?results?|results?/", {*_DOCUMENT, *_DATA}))
    return here or _section(evidence, r"\b(?:evaluation|benchmark|results?|performance)") or _NOT_HERE


def _card(evidence: _Evidence) -> _Seen:
    if len(evidence.text.split()) >= 2 * ENOUGH:
        return _Seen(True, evidence.readme)
    return _file(evidence.named(r"model[-_]?card", _DOCUMENT)) or _NOT_HERE


def _data_card(evidence: _Evidence) -> _Seen:
    here = _file(evidence.named(r"data[-_]?(?:card|sheet|statement)", _DOCUMENT))
    return here or _section(evidence, r"\b(?:pre-?)?train\w* data|\bdata ?sets?\b|^data$") or _NOT_HERE


def _datasets(evidence: _Evidence) -> _Seen:
    here = _file(evidence.named(r"(?:^|/)(?:data|datasets?|train\w*)/", _DATA - {".json"}))
    return here or _linked(evidence.strings("datasets"), evidence) or _NOT_HERE


def _code(pattern: str) -> Callable[[_Evidence], _Seen]:
    return lambda evidence: _file(evidence.named(pattern, _CODE)) or _NOT_HERE


def _inference(evidence: _Evidence) -> _Seen:
    here = _file(evidence.named(r"(?:infer|generat|predict|pipeline|handler|chat|demo)\w*\.", _CODE))
    known = [name for _, name in evidence.architectures() if name in ARCHITECTURES]
    if here or not known:
        return here or _NOT_HERE
    return _Seen(
        None, f"open libraries run {known[0]} models; whether its publisher's own code is open is not told here"
    )


def _samples(evidence: _Evidence) -> _Seen:
    if evidence.card.get("widget"):
        return _Seen(True, f"{evidence.readme}, widget")
    return _file(evidence.named(r"samples?[/_.-]|outputs?/", {*_DOCUMENT, *_DATA})) or _NOT_HERE


def _eval_data(evidence: _Evidence) -> _Seen:
    return _file(evidence.named(r"(?:^|/)(?:eval|test|benchmark)\w*/", _DATA)) or _NOT_HERE


def _metadata(evidence: _Evidence) -> _Seen:
    names = r"(?:^|/)(?:training_args|trainer_state|optimizer|scheduler|training_config|hparams)"
    paths = [file.file for file in evidence.files if re.search(names, file.file, re.I)]
    return _file(paths) or _NOT_HERE


_FIND: dict[str, Callable[[_Evidence], _Seen]] = {
    "Model architecture": _architecture,
    "Model parameters (final)": _weights,
    "Technical report": _report,
    "Evaluation results": _results,
    "Model card": _card,
    "Data card": _data_card,
    "Sample model outputs": _samples,
    "Training code": _code(r"(?:^|/|_)(?:pre)?train\w*\.|(?:^|/)train(?:ing)?/|finetun\w*\."),
    "Inference code": _inference,
    "Evaluation code": _code(r"(?:^|/|_)eval\w*\.|(?:^|/)eval\w*/|benchmark\w*\."),
    "Evaluation data": _eval_data,
    "Supporting libraries and tools": _code(r"(?:^|/)(?:tools|scripts|utils)/"),
    "Research paper": _paper,
    "Datasets": _datasets,
    "Data preprocessing code": _code(
        r"preprocess\w*\.|(?:^|/|_)prepare_?data\w*\.|tokeni[sz]e_?data\w*\.|(?:clean|filter|dedup)\w*\."
    ),
    "Model parameters (intermediate)": _intermediate,
    "Model metadata": _metadata,
}
