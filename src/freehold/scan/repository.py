"""A folder as a whole: what no file shows by itself, but its name, its neighbours or what it points at do.

Sources: Unicode Technical Standard 39 on confusable characters, CVE-2021-42574, the ONNX description of external data,
the index of safetensors shards, llama.cpp's split files, the documentation of transformers on custom code.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from freehold.scan import loaders, templates
from freehold.scan.base import BLOCK, HOLD, NOTE, Rule
from freehold.scan.walk import Entry
from freehold.types import Finding, Judged

MAX_FINDINGS = 200
MAX_KEPT = 64 << 10  # characters of a template that its file's record keeps

RENAME = "Ask the publisher why, and for a folder without it; decide by name and reason."
COMPLETE = "Fetch the whole repository again."
ALIKE = Rule(
    "repository.alike", HOLD, "Two names differ only in case, in normalisation or by letters that look alike.", RENAME,
    "Unicode Technical Standard 39",
)  # fmt: skip
NAME = Rule(
    "repository.name", HOLD, "A name holds characters that are not shown or turn it around, or is not UTF-8.", RENAME,
    "CVE-2021-42574",
)  # fmt: skip
MIXED = Rule(
    "repository.look-alike", HOLD, "A name mixes alphabets whose letters look alike.", RENAME,
    "Unicode Technical Standard 39",
)  # fmt: skip
MISSING = Rule("repository.incomplete", HOLD, "Files that an index or the others name are missing.", COMPLETE,
               "transformers: sharded checkpoints; llama.cpp: split files")  # fmt: skip
EXTERNAL = Rule(
    "repository.external-data", BLOCK, "A model's external data lies where it may not.",
    "Do not load the model. Fetch it again with its data beside it.",
    "ONNX: external data; CVE-2024-27318, CVE-2026-27489, CVE-2026-34446",
)  # fmt: skip
TRAINING = Rule(
    "repository.training-state", NOTE, "This is left over from training: nothing that serves the model needs it.",
    "Leave it out.", "transformers: Trainer checkpoints",
)  # fmt: skip
TEMPLATES = Rule(
    "repository.templates-differ", HOLD, "Two files bring different chat templates of the same name.",
    templates.COMPARE, "arXiv 2602.04653",
)  # fmt: skip
CODE = Rule(
    "repository.code", NOTE, "The configuration names code that is in this folder.",
    "Read it before anybody trusts it; load the model without it.", "transformers: trust_remote_code",
)  # fmt: skip
CODE_MISSING = Rule(
    "repository.code-missing", HOLD, "The configuration names code that is not here: it would come from elsewhere.",
    "Load the model without it; decide by name and reason.", "CVE-2025-66448",
)  # fmt: skip
DISGUISED = Rule(
    "repository.disguised", BLOCK, "A file is not of the format that its name promises.",
    "Ask the publisher for the file that the name promises.", "Freehold: content decides the format",
)  # fmt: skip

PROMISES = {".safetensors": "safetensors", ".gguf": "gguf", ".npy": "npy", ".onnx": "onnx"}
_TRAINING = re.compile(
    r"(training_args|optimizer|scheduler|scaler)\.(bin|pt|pth)|rng_state(_\d+)?\.pth|trainer_state\.json"
    r"|(zero_pp_rank|global_step|bf16_zero).*|events\.out\.tfevents.*"
)
# Letters of other alphabets that are drawn like Latin ones.
_LOOKS = str.maketrans({
    other: latin
    for others, latins in (
        ("асԁеһіјӏорԛѕѵԝху", "acdehijlopqsvwxy"), ("АВСЕНІЈКМОРЅТԜХУӀ", "ABCEHIJKMOPSTWXYl"),  # Cyrillic
        ("αινορυγκ", "aivopuyk"), ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX"),  # Greek
        ("ɡıſ", "gis"),
    )
    for other, latin in zip(others, latins, strict=True)
})  # fmt: skip


def look(files: Sequence[Judged], entries: Sequence[Entry], *, alone: bool = False) -> list[Finding]:
    """What is to be said of a folder as a whole: ``files`` as they were judged, ``entries`` as they were met. Where one
    file was given ``alone``, its neighbours may well be there, and what it misses holds it at most."""
    folder = _Folder(files, entries, alone=alone)
    looks = (folder.names, folder.indexes, folder.splits, folder.external, folder.leftovers,
             folder.templates, folder.code, folder.promises)  # fmt: skip
    found = [_finding(*row) for each in looks for row in each()]
    return list(dict.fromkeys(found))[:MAX_FINDINGS]


Row = tuple[Rule, str, str]


def _finding(rule: Rule, path: str, meaning: str) -> Finding:
    shown = path.encode("utf-8", "backslashreplace").decode()
    return Finding(
        rule.id, rule.severity, shown, "", " ".join((meaning or rule.meaning).split())[:4000], rule.remedy, rule.source
    )


class _Folder:
    """The files by their paths, and one question after the other."""

    def __init__(self, files: Sequence[Judged], entries: Sequence[Entry], *, alone: bool):
        self.alone = alone
        self.files = {judged.file: judged for judged in files}
        self.entries = {entry.path: entry for entry in entries}
        self.paths = list(dict.fromkeys([*self.files, *self.entries]))

    def names(self) -> Iterator[Row]:
        seen: dict[str, str] = {}
        for path in self.paths:
            if _unseen(path):
                yield NAME, path, ""
            if mixed := _mixed(path):
                yield MIXED, path, f"The name mixes {mixed} letters with Latin ones that look like them."
            other = seen.setdefault(skeleton(path), path)
            if other != path:
                yield ALIKE, path, f"It differs from {_shown(other)} only in case, normalisation or look-alike letters."

    def indexes(self) -> Iterator[Row]:
        for path, judged in self.files.items():
            names = [name for name in judged.facts.get("index", ()) if not loaders.escapes(name)]
            missing = [name for name in names if _beside(path, name) not in self.files]
            if missing:
                yield MISSING, path, f"It names {len(missing)} files that are not here: {_some(missing)}."

    def splits(self) -> Iterator[Row]:
        """Parts of one GGUF model say how many there are."""
        parts: dict[tuple[str, int], set[int]] = {}
        for path, judged in self.files.items():
            if judged.format == "gguf" and (split := judged.facts.get("split")):
                stem = re.sub(r"-?\d{5}-of-\d{5}", "", path)
                parts.setdefault((stem, split[1]), set()).add(split[0])
        for (stem, count), numbers in parts.items():
            if len(numbers) < count:
                yield MISSING, stem, f"The model is split into {count} files, and {len(numbers)} of them are here."

    def external(self) -> Iterator[Row]:
        for path, judged in self.files.items():
            for part in judged.facts.get("external", ()):
                why, shown = self.misplaced(path, part), _shown(str(part.get("location", "")))
                if why == "is missing" and self.alone:
                    yield MISSING, path, f"Its external data {shown} is a file beside it, which was not given."
                elif why:
                    yield EXTERNAL, path, f"Its external data {shown} {why}."

    def misplaced(self, path: str, part: dict[str, Any]) -> str:
        location = str(part.get("location", ""))
        if loaders.escapes(location):
            return "is outside the folder"
        target = _beside(path, location)
        entry, judged = self.entries.get(target), self.files.get(target)
        own = self.entries.get(path)  # in a hub's cache everything is a link, and so is the model
        if entry is not None and entry.kind != "file" and not (entry.kind == "link" and own and own.kind == "link"):
            return "is a link or no regular file"
        if entry is not None and entry.links > 1:
            return "has more than one name (a hard link)"
        if judged is None:
            return "is missing"
        begin, length = part.get("offset") or 0, part.get("length") or 0
        return "reaches past the end of the file" if begin + length > judged.size else ""

    def leftovers(self) -> Iterator[Row]:
        served = any(judged.format in ("safetensors", "gguf") for judged in self.files.values())
        for path in self.files if served else ():
            if _TRAINING.fullmatch(path.rpartition("/")[2]):
                yield TRAINING, path, ""

    def templates(self) -> Iterator[Row]:
        known: dict[str, tuple[str, str, str]] = {}
        for path, judged in self.files.items():
            texts = judged.facts.get("template_texts", {})
            for name, digest in judged.facts.get("templates", {}).items():
                first, other, text = known.setdefault(name, (path, digest, texts.get(name, "")))
                cut = len(text) >= MAX_KEPT  # then what differs may lie past what is kept
                if other != digest and (cut or text.strip() != texts.get(name, "").strip()):
                    rows = templates.compare(text, texts.get(name, ""))
                    yield (
                        TEMPLATES,
                        path,
                        f"Its chat template {name!r} differs from that of {_shown(first)}: " + " / ".join(rows[2:40]),
                    )

    def code(self) -> Iterator[Row]:
        for path, judged in self.files.items():
            for module in _modules(judged.facts.get("config")):
                if _beside(path, module) in self.paths:
                    yield CODE, path, f"The configuration names code that is in this folder: {module}."
                else:
                    yield CODE_MISSING, path, f"The configuration names {module}, which is not in this folder."

    def promises(self) -> Iterator[Row]:
        for path, judged in self.files.items():
            promised = PROMISES.get("." + path.lower().rpartition(".")[2])
            if promised and judged.format not in (promised, "opaque", "text"):
                yield DISGUISED, path, f"Its name promises {promised}, and it is {judged.format or 'unknown'}."


def skeleton(path: str) -> str:
    """What a name looks like: the same for names that a person may take for one another."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).translate(_LOOKS).casefold())


def _mixed(path: str) -> str:
    """The alphabet, other than Latin, of a letter that stands among Latin ones and looks like one."""
    for word in re.findall(r"[^\W\d_]+", path):
        if any(char.isascii() for char in word):
            for char in word:
                if ord(char) in _LOOKS and (alphabet := unicodedata.name(char, "").split(" ")[0]) != "LATIN":
                    return alphabet.capitalize()
    return ""


def _unseen(path: str) -> bool:
    """Control characters, characters that turn text around or take no room, broken UTF-8; the walk escapes them."""
    return "\\" in path or any(
        unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for char in path
    )


def _modules(config: object) -> set[str]:
    """The files of the repository itself that ``auto_map`` names."""
    mapped = config.get("auto_map") if isinstance(config, dict) else None
    values = mapped.values() if isinstance(mapped, dict) else mapped if isinstance(mapped, list) else []
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    names = [item for item in flat if isinstance(item, str) and re.fullmatch(r"[\w.]+\.\w+", item)]
    return {name.rpartition(".")[0].replace(".", "/") + ".py" for name in names}


def _beside(path: str, name: str) -> str:
    folder = path.rpartition("/")[0]
    return _resolved(path, name) if "/" in name else f"{folder}/{name}".lstrip("/")


def _resolved(path: str, target: str) -> str:
    """Where a name leads from where it stands, without looking at the disk; ``..`` is left where it leads out."""
    parts: list[str] = path.split("/")[:-1]
    for part in target.replace("\\", "/").split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) or "."


def _some(names: list[str]) -> str:
    return ", ".join(_shown(name) for name in names[:5]) + (", and more" if len(names) > 5 else "")


def _shown(name: str) -> str:
    return ascii(name) if not name.isprintable() else repr(name)
