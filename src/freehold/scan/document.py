"""JSON: configurations, indexes, tokenizers, notebooks. What they tell a loader to do is judged, templates too.

Small documents are parsed whole, large ones (a tokenizer may have thirty megabytes) leaf by leaf.

Facts: ``config`` (the document, for the configurations that others read), ``index`` (sorted names of the files that an
index names), ``templates``, ``template_texts``; what `keras` says of a Keras configuration.
"""

from __future__ import annotations

import json
import re
from typing import Any

from freehold.scan import keras, leaves, loaders, templates
from freehold.scan.base import HOLD, NOTE, Malformed, Report, Rule
from freehold.scan.tape import Tape

FORMAT = "json"
MAX_WHOLE = 2 << 20  # bytes of a document that is parsed at once
MAX_CONFIG = 64 << 10  # of a document that is kept for others to read
MAX_INDEX = 20_000

TWICE = Rule(
    "json.key-twice", NOTE, "A key appears twice in one object; readers take one or the other.",
    "Nothing, where both are harmless: both were judged.", "RFC 8259, section 4",
)  # fmt: skip
NOTEBOOK = Rule(
    "text.code", HOLD, "A notebook is code, which runs when somebody opens and runs it.",
    "Leave it out: no engine needs it. Or read it, and decide by name and reason.", "Freehold: code is not data",
)  # fmt: skip
LARGE_KERAS = Rule(
    "json.large-keras", HOLD, "The document may configure a Keras model, and is too large to be judged as one.",
    "Ask the publisher for the model in another format; decide by name and reason.", "Freehold: memory is bounded",
)  # fmt: skip

_START = re.compile(
    rb'(?:\xef\xbb\xbf)?[ \t\r\n]*(?:\{[ \t\r\n]*["}]|\[[ \t\r\n]*(?:["{\[\]0-9-]|true|false|null|$)|\{$)'
)
_OTHER_TEXT = (
    ".md",
    ".txt",
    ".py",
    ".yaml",
    ".yml",
    ".toml",
    ".cfg",
    ".ini",
    ".csv",
    ".tsv",
    ".rst",
    ".jinja",
    ".html",
)
_CONFIG = re.compile(r"(?:\w+_)?config\.json|config_\w+\.json|model_index\.json|modules\.json|chat_template\.json")


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """Text that begins as an object or a list does; what is named as another kind of text is that."""
    return b"\0" not in head and bool(_START.match(head)) and not name.lower().endswith(_OTHER_TEXT)


def scan(tape: Tape, report: Report) -> None:
    """Read the document and judge its leaves. Raises Malformed."""
    found = _Found(report)
    lines = report.name.lower().endswith((".jsonl", ".ndjson"))
    if tape.size > MAX_WHOLE or lines:
        found.streamed = True
        leaves.stream(tape, found.leaf, loaders.WATCHED | {"class_name", "cell_type"}, many=lines)
        if found.keras and not lines:
            report.add(LARGE_KERAS)
    else:
        _whole(tape.read(tape.left), found, report)
    found.tell()


class _Found:
    """What the leaves of one document come to."""

    def __init__(self, report: Report):
        self.report = report
        self.keras = self.streamed = False
        self.index: set[str] = set()
        self.names: dict[loaders.Path, str] = {}  # of the templates in a list
        self.unnamed: dict[loaders.Path, str] = {}

    def leaf(self, path: loaders.Path, value: Any) -> None:
        loaders.judge_leaf(path, value, self.report)
        self.keras = self.keras or path[-1:] == ("class_name",)
        if not isinstance(value, str):
            return
        if self.streamed and path[-1:] == ("__module__",):  # no object is seen whole here
            loaders.judge_skops(value, "", loaders.where(path), self.report)
        if path[:1] == ("cells",) and path[2:] == ("cell_type",):
            self.report.add(NOTEBOOK)
        if "weight_map" in path[:1] and len(self.index) < MAX_INDEX:
            self.index.add(value[:4096])
        elif (at := _template_at(path)) >= 0 and ("chat_template" in path or "{%" in value or "{{" in value):
            self.template(path, at, value)

    def template(self, path: loaders.Path, at: int, value: str) -> None:
        """A template is a string; or one of a list of objects with ``name`` and ``template``; or by its name."""
        after = path[at + 1 :]
        if after and path[-1] == "name":
            self.names[path[:-1]] = value[:100]
        elif after and path[-1] == "template":
            self.unnamed[path[:-1]] = value
            if len(self.unnamed) > 100:
                raise Malformed(
                    templates.LARGE, loaders.where(path), "The configuration holds over a hundred templates."
                )
        else:
            name = str(after[-1]) if after else "default" if path[at] == "chat_template" else str(path[at])[:100]
            templates.judge(value, name, self.report, loaders.where(path))

    def tell(self) -> None:
        for path, text in self.unnamed.items():
            templates.judge(text, self.names.get(path, loaders.where(path)), self.report, loaders.where(path))
        if self.index:
            self.report.facts["index"] = sorted(self.index)


def _template_at(path: loaders.Path) -> int:
    """Where on the way to a value the key of a template stands; -1 where none does."""
    keys = enumerate(path)
    return next((at for at, key in keys if isinstance(key, str) and key.endswith("_template")), -1)


def _whole(content: bytes, found: _Found, report: Report) -> None:
    shadowed: list[tuple[str, Any]] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(items)
        if len(value) != len(items):
            shadowed.extend(item for item in items if item[1] is not value[item[0]])
        return value

    try:
        document = json.loads(content.decode("utf-8-sig"), object_pairs_hook=pairs)
    except UnicodeDecodeError as fault:
        raise Malformed(leaves.SYNTAX, fault.start, "The document is not UTF-8.") from None
    except RecursionError:
        raise Malformed(leaves.DEEP, "") from None
    except json.JSONDecodeError as fault:
        raise Malformed(leaves.SYNTAX, fault.pos, f"The document is not sound JSON: {fault.msg}.") from None
    except ValueError:
        raise Malformed(leaves.SYNTAX, "", "The document holds a number of thousands of digits.") from None
    if shadowed:
        report.add(TWICE, "", f"The key {shadowed[0][0][:100]!r} appears twice; readers take one or the other.")
    for part in [document, *({key: value} for key, value in shadowed)]:
        for path, value in leaves.of(part):
            found.leaf(path, _clean(value))
        for path, value in leaves.objects(part):
            loaders.judge_object(value, loaders.where(path), report)
    if keras.is_config(document):
        keras.judge_config(document, report, "")
    _kinds(document, len(content), report)


def _kinds(document: Any, size: int, report: Report) -> None:
    """What only a whole document is: a configuration for others to read."""
    if size <= MAX_CONFIG and isinstance(document, dict) and _CONFIG.fullmatch(report.name.lower()):
        text = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        report.facts["config"] = json.loads(text, parse_int=_number)


def _number(digits: str) -> int | float:
    """Whole numbers of 64 bits; larger ones as near as may be, for others to write down."""
    return int(digits) if len(digits) < 19 else float(digits)


def _clean(value: Any) -> Any:
    """Half a surrogate pair is no text that could be written down."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
