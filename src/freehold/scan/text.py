"""Text: model cards and licences to keep, code and scripts to hold, YAML that builds objects to find, pointers to miss.

What a text is for is told by its content where that is plain (a shebang, a pointer of Git LFS, markup), and by its
name where content cannot tell: a card that shows ``pickle.load`` is a card, a ``.py`` file is code.

Facts: ``text`` (up to 256 KiB, of licences, notices, policies and Markdown), ``card`` (a README.md's front matter).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from freehold.scan import leaves, loaders, matter, savedmodel, templates
from freehold.scan.base import BLOCK, FETCH_AGAIN, HOLD, MAX_TEXT, NOTE, Malformed, Report, Rule
from freehold.scan.opaque import STRICT
from freehold.scan.tape import BLOCK as CHUNK
from freehold.scan.tape import Tape

FORMAT = "text"
MAX_LINE = 64 << 10  # bytes of a line that are looked at

READ_IT = "Read it. If no engine needs it, leave it out; else decide by name and reason."
CODE = Rule(
    "text.python", HOLD, "This is Python code: it runs when a loader is told to trust it, or imports it.", READ_IT,
    "transformers: trust_remote_code",
)  # fmt: skip
SCRIPT = Rule("text.script", HOLD, "This is a script or source code, which somebody may run.", READ_IT, "CWE-829")
ACTIVE = Rule(
    "text.active", HOLD, "This page or picture holds a script, which runs where it is opened.", READ_IT, "CWE-79"
)  # fmt: skip
POINTER = Rule(
    "text.pointer", BLOCK, "This is a Git LFS pointer in place of the file itself: the model is incomplete.",
    "Fetch the repository with its large files (git lfs pull), or from the hub.", "Git LFS specification, version 1",
)  # fmt: skip
INSTEAD = Rule(
    "text.instead", HOLD, "This is text where its name promises weights.", FETCH_AGAIN,
    "Freehold: content decides the format",
)  # fmt: skip
YAML_TAG = Rule(
    "yaml.python", BLOCK, "The YAML builds Python objects, which runs code when it is loaded.",
    "Do not load it. Ask the publisher why it is there.", "PyYAML: python tags",
)  # fmt: skip
YAML_HIDDEN = Rule(
    "yaml.hidden",
    HOLD,
    "The YAML writes its keys or tags in a roundabout way.",
    READ_IT,
    "YAML 1.2, sections 5.7 and 6.8",
)
YAML_OTHER = Rule(
    "yaml.tag", HOLD, "The YAML has a tag by which some loaders build objects of a program's own.", READ_IT,
    "YAML 1.2, section 6.8.2; SnakeYAML and others: global tags",
)  # fmt: skip
YAML_ALIASES = Rule(
    "yaml.aliases", HOLD, "The YAML repeats parts that repeat parts, and may unfold to more than any memory holds.",
    READ_IT, "CWE-776",
)  # fmt: skip
PROTO = Rule(
    "text.proto", HOLD, "This is a graph or message written as text, which is not parsed here.",
    "Ask the publisher for the binary form, or decide by name and reason.", "Protocol Buffers: text format",
)  # fmt: skip
BUILD = Rule(
    "text.build", HOLD, "It has code fetched or run when somebody installs from it.", READ_IT,
    "pip: requirements file format; PEP 517",
)  # fmt: skip
BINARY = Rule(
    "text.binary", HOLD, "The file begins as text and goes on as something else.", "Ask the publisher what it is.",
    "Freehold: what was not judged is never clean",
)  # fmt: skip
FRONT = Rule(
    "text.front-matter", NOTE, "The front matter of the card could not be read, so its licence is not known.", READ_IT,
    "Hugging Face: model cards",
)  # fmt: skip

WEIGHTS = (
    ".bin", ".ckpt", ".gguf", ".h5", ".keras", ".msgpack", ".nemo", ".npy", ".npz", ".onnx", ".pb", ".pdparams", ".pkl",
    ".pickle", ".pt", ".pth", ".safetensors", ".tflite", ".tar", ".zip", ".joblib",
    ".p", ".pk", ".dill", ".model",  # not .dat and .data, which are often tables
)  # fmt: skip
SOURCES = (
    ".awk", ".bash", ".bat", ".c", ".cmake", ".command", ".desktop", ".gradle", ".groovy", ".pyx", ".reg", ".scala",
    ".service", ".tcl", ".url", ".vbe",
    ".cc", ".cmd", ".cpp", ".cs", ".cu", ".cuh", ".fish", ".go", ".h", ".hpp",
    ".java", ".jl", ".js", ".kt", ".lua", ".mjs", ".php", ".pl", ".ps1", ".psm1", ".r", ".rb", ".rs", ".sh", ".swift",
    ".ts", ".vbs", ".wasm", ".zsh",
)  # fmt: skip
_BUILDS = re.compile(  # by their whole names
    r"(gnu)?makefile|dockerfile(\..*)?|containerfile|jenkinsfile|cmakelists\.txt|setup\.cfg|rakefile|vagrantfile"
)
_REQUIREMENTS = re.compile(r"[\w.-]*requirements[\w.-]*\.txt")
_FETCHES = re.compile(
    r"(?mi)^(?![ \t]*#).{0,2000}?(?:--(?:extra-)?index-url|--find-links|--trusted-host|\b(?:git|hg|svn|bzr)\+|\bhttps?://)"
    r"|^[ \t]*-[if][ \t=]"
)
_BACKEND = re.compile(r"build-backend|build-system")
_PROSE = (
    ".md",
    ".markdown",
    ".rst",
    ".txt",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".bib",
    ".tex",
    ".log",
    ".cff",
    ".vocab",
)
_MARKUP = (".htm", ".html", ".svg", ".xhtml", ".xml", ".mml", ".xsl")
_KEPT = re.compile(r"(licen[cs]e|copying|notice|readme).*|.*(policy|terms).*|.*\.md", re.IGNORECASE)
_POINTER = re.compile(rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/")
_IMPORTS = re.compile(r"(?m)^(?:import [\w.]|from [\w.]+ import )|^def |^class |^@")
_PYTHON = re.compile(
    r"(?m)^(?:import [\w.]+(?: as \w+)?[ \t\r]*$|from [\w.]+ import .+|def \w+\(.*|class \w+[(:].*|@\w[\w.]*(?:\(.*)?$"
    r"|[A-Za-z_][\w.]*\(.*\)[ \t\r]*$)"
)
_ACTIVE = re.compile(
    r"<\s*(?:\w+:)?script\b|javascript\s*:|\bon(?:load|error|click|mouse\w+|focus|begin|end)\s*=|<\s*(?:\w+:)?foreignObject\b"
    r"|<!ENTITY|<\s*(?:iframe|object|embed)\b|data\s*:\s*text/html", re.IGNORECASE,
)  # fmt: skip
_YAML_TAG = re.compile(r"!!python/|!<?tag:yaml\.org,2002:python|!python/|!<tag:[^>\s!]*python")
_YAML_ALIEN = re.compile(r"!!javax?\.|!ruby/|!!(?:js|perl|php)/")  # enough to tell in a text that is not named YAML
_YAML_OTHER = re.compile(
    r"""(?:^\s*|[:?-]\s+|["']\s*:\s*|[\[{,]\s*|&[^\s,\[\]{}]{1,100}\s+)!(?!\s|$)"""
    r"(?!(?:!|<tag:yaml\.org,2002:)(?:float|str|int|seq|map|binary|set|omap|pairs|timestamp|null|bool|merge|value)"
    r"(?:>|[\s,\[\]{}]|$))[\w!<]"
)
_YAML_HIDDEN = re.compile(
    r"""^%TAG\b|"[^"]*\\[xuU][^"]*"\s*:|^[\s?-]*\?(?:\s|$)|[\[{,]\s*\?(?:\s|$)|(?<!\S)![^\s%]*%"""
)
_YAML_ANY = re.compile(  # what a text has to hold before it is looked at line by line
    r"[!?*$]|%TAG|\\[xuU]|_target_|auto_map|trust_remote_code|custom_generate|custom_pipeline|target|_template"
    r"|loader_module"
)
_OTHER_ANY = re.compile(r"!python/|2002:python|!!python|!!javax?\.|!ruby/|!!(?:js|perl|php)/|_target_")
_YAML_KEY = re.compile(
    r"""(?<![\w.])["']?(_target_|auto_map|trust_remote_code|custom_generate|custom_pipelines?)["']?\s*:\s*([^,}#]*)"""
)
_TARGET_KEY = re.compile(r"""^[\s-]*["']?target["']?\s*:\s*([^,}#]*)|[{,]\s*["']?target["']?\s*:\s*([^,}#]*)""")
_PARAMS = re.compile(r"""(?m)(?:^[\s-]*|[{,]\s*)["']?params["']?\s*:""")
_DOLLAR = re.compile(r"""^[\s-]*(?:["']?[\w.-]{1,200}["']?\s*:\s+)?["']?(\$.*?)["']?\s*$""")
_TEMPLATE_KEY = re.compile(r"""^(\s*)(?:-\s+)?["']?(\w{0,100}_template)["']?\s*:\s*(.*)""")
_BREAK = re.compile("\r\n?|[\n\x85\u2028\u2029]")  # what YAML readers take for the end of a line, in 1.1 and 1.2
_ANCHOR = re.compile(r"(?:^|[\s\[{,])&[^\s,\[\]{}]")
_ALIAS = re.compile(r"(?:^|[\s\[{,])\*[\w-]+\s*(?=[,\]}]|$|\s)")
MAX_ALIASES = 20  # within what has an anchor itself: three in each of seven such are some two thousand parts
_PROTO_CODE = re.compile(r"PyFunc|LoadLibrary|RemoteCall|Rpc|GeneratorDataset|XlaHostCompute|CustomCall")
_PROTO_FILES = re.compile(
    r"ReadFile|WriteFile|MatchingFiles|Reader|FileSystem|Record|TextLine|Sql|CSV|SaveDataset|LoadDataset|Snapshot"
)
_OPERATOR = re.compile(r"""(?<!\w)op\s*:\s*((?:"[^"\n]*"\s*|'[^'\n]*'\s*)+)""")


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """UTF-8 without control characters; UTF-16 with its mark; or an older alphabet, where most of it is plain."""
    if not head or head.startswith(b"%PDF-"):
        return False
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _is_utf16(head)
    if _CONTROLS.search(head):
        return False
    return _is_utf8(head, whole=tape.size <= len(head)) or sum(byte >= 0x80 for byte in head) * 4 < len(head)


for _codec in ("utf-8-sig", "utf-16", "latin-1"):  # where they are used nothing more can be loaded
    codecs.lookup(_codec)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def _is_utf8(content: bytes, *, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, whole)
    except UnicodeDecodeError:
        return False
    return True


def _is_utf16(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-16")().decode(head)
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0e-\x1f\ufffe\uffff]", text)


def scan(tape: Tape, report: Report) -> None:
    """Read the text, in pieces, and look at it line by line. Raises Malformed."""
    head = tape.peek(tape.at, 4096)
    if _POINTER.match(head) and tape.left < 1024:
        tape.read(tape.left)
        report.add(POINTER)
        return
    name = report.name.lower()
    judge = _Text(report, name)
    for piece in _pieces(tape, head):
        judge.take(piece)
    judge.tell()


def _pieces(tape: Tape, head: bytes) -> Iterator[str]:
    """The text, decoded, some lines at a time. Raises Malformed where it stops being text."""
    encoding = "utf-8-sig"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif not _is_utf8(head, whole=tape.left <= len(head)):
        encoding = "latin-1"
    decoder = codecs.getincrementaldecoder(encoding)()
    rest = ""
    while tape.left:
        at = tape.at
        content = tape.read(min(CHUNK, tape.left))
        if encoding != "utf-16" and (found := _CONTROLS.search(content)):
            raise Malformed(BINARY, at + found.start())
        try:
            text = rest + decoder.decode(content, not tape.left)
        except UnicodeDecodeError as fault:
            raise Malformed(
                BINARY, at + max(fault.start, 0), "The file begins as UTF-8 text and goes on as something else."
            ) from None
        cut = max(map(text.rfind, "\n\r\x85\u2028\u2029")) + 1 or len(text)
        rest = text[cut:] if tape.left else ""
        yield text if not tape.left else text[:cut]


class _Text:
    """One text as it passes: what of it is kept, and what was seen."""

    def __init__(self, report: Report, name: str):
        self.report, self.name = report, name
        self.kept, self.line, self.python = "", 1, 0
        self.yaml = name.endswith((".yaml", ".yml")) or name == "mlmodel"
        self.markup = name.endswith(_MARKUP)
        self.code = ""
        self.looked = not name.endswith((".md", ".markdown", ".py", *SOURCES)) and not self.yaml
        self.nested, self.anchor, self.alone = 0, -1, False
        self.length = 0

    def take(self, text: str) -> None:
        if self.line == 1 and not self.kept:
            self.begin(text)
        if len(self.kept) < MAX_TEXT:
            self.kept += text[: MAX_TEXT - len(self.kept)]
        self.length += len(text)
        if self.yaml:
            self.look_at_yaml(text)
        elif self.looked and _OTHER_ANY.search(text):
            self.look_at_other(text)
        if self.name.endswith((".pbtxt", ".prototxt")):
            self.look_at_proto(text)
        if self.markup and (found := _ACTIVE.search(text)):
            self.report.add(ACTIVE, f"line {self.line + text.count(chr(10), 0, found.start())}")
        self.line += text.count("\n")

    def begin(self, text: str) -> None:
        """What the first lines say that it is."""
        start = text[:200].lstrip().lower()
        self.markup = self.markup or start.startswith(("<!doctype", "<html", "<svg", "<?xml"))
        shebang = start.split("\n")[0] if start.startswith("#!") else ""
        if self.name.endswith((".py", ".pyw", ".pyi")) or "python" in shebang:
            self.code = "python"
        elif shebang or self.name.endswith(SOURCES) or _BUILDS.fullmatch(self.name):
            self.code = "script"
        elif not self.name.endswith(_PROSE) and not self.yaml and not self.markup:
            rows = _PYTHON.findall(text[:MAX_TEXT])
            enough = len(rows) > 1 and len(rows) * 30 >= text[:MAX_TEXT].count("\n")
            self.code = "python" if enough and _IMPORTS.search(text[:MAX_TEXT]) else ""

    def look_at_yaml(self, text: str) -> None:
        if not _YAML_ANY.search(text):
            if len(text) >= CHUNK and not _BREAK.search(text):
                self.report.add(YAML_HIDDEN, f"line {self.line}", "A line is longer than can be looked at.")
            return
        called = bool(_PARAMS.search(text))
        rows, within = _BREAK.split(text), 0  # up to this row a template was taken already
        for at, row in enumerate(rows):
            place = f"line {self.line + at}"
            if len(row) > MAX_LINE:
                self.report.add(YAML_HIDDEN, place, "A line is longer than can be looked at.")
            row = row[:MAX_LINE]
            if row.lstrip().startswith("#"):
                continue
            self.look_at_row(row, place)
            for found in _TARGET_KEY.finditer(row):
                value = matter.scalar((found[1] or found[2] or "").strip())
                if isinstance(value, str):
                    loaders.judge_plain_target(value, place, self.report, called=called)
            if at >= within and (found := _TEMPLATE_KEY.match(row)):
                within = self.template(found, rows, at, place)
            if self.name == "mlmodel" and "loader_module" in row:
                self.report.add(loaders.FLAVOUR, place)

    def look_at_row(self, row: str, place: str) -> None:
        if _YAML_TAG.search(row):
            self.report.add(YAML_TAG, place)
        elif _YAML_OTHER.search(row):
            self.report.add(YAML_OTHER, place)
        if _YAML_HIDDEN.search(row):
            self.report.add(YAML_HIDDEN, place)
        for found in _YAML_KEY.finditer(row):
            self.key(found[1], found[2].strip(), place)
        if (found := _DOLLAR.match(row)) and loaders.evaluates(found[1]):
            self.report.add(loaders.EXPRESSION, place)
        if "*" in row or "&" in row:
            self.aliases(row)

    def look_at_other(self, text: str) -> None:
        """Any other text that a loader of YAML may be given: what no text holds by chance."""
        for at, row in enumerate(_BREAK.split(text), self.line):
            if row.lstrip().startswith("#"):
                continue
            if _YAML_TAG.search(row):
                self.report.add(YAML_TAG, f"line {at}")
            elif _YAML_ALIEN.search(row):
                self.report.add(YAML_OTHER, f"line {at}")
            for found in _YAML_KEY.finditer(row) if "_target_" in row else ():
                if found[1] == "_target_":
                    self.key(found[1], found[2].strip(), f"line {at}")

    def aliases(self, row: str) -> None:
        """Count those that stand within something that has an anchor: they multiply."""
        indent, listed = len(row) - len(row.lstrip(" ")), row.lstrip(" ").startswith("-")
        anchor = _ANCHOR.search(row)
        if anchor:
            self.anchor, self.alone = indent, listed
        within = anchor or (self.anchor >= 0 and indent > self.anchor)
        within = within or (indent == self.anchor and not self.alone and row.lstrip(" ")[:1] in ("-", "*", "[", "{"))
        if within:
            self.nested += sum(1 for _ in _ALIAS.finditer(row, anchor.start() if anchor else 0))
        if self.nested > MAX_ALIASES:
            self.report.add(YAML_ALIASES)

    def template(self, found: re.Match[str], rows: list[str], at: int, place: str) -> int:
        """A chat template that stands in YAML: on its line, or on the lines below that are further in. Gives the row
        after its last."""
        below = []
        for below_at in range(at + 1, len(rows)):
            row = rows[below_at]
            if row.strip() and len(row) - len(row.lstrip()) <= len(found[1]):
                break
            below.append(row.strip())
        first = "" if found[3][:1] in ("|", ">") else str(matter.scalar(found[3]) or "")
        text = "\n".join([first, *below]).strip()
        if "{%" in text or "{{" in text:
            templates.judge(text, "default" if found[2] == "chat_template" else found[2], self.report, place)
        return at + 1 + len(below)

    def look_at_proto(self, text: str) -> None:
        for found in _OPERATOR.finditer(text):
            name = "".join(re.findall(r"[^\s\"']+", found[1]))
            if "\\" in name or _PROTO_CODE.search(name):
                self.report.add(savedmodel.CODE, name[:100], f"The operator {name[:100]} runs code by name.")
            elif _PROTO_FILES.search(name):
                self.report.add(savedmodel.FILES, name[:100], f"The operator {name[:100]} reads or writes files.")

    def key(self, key: str, text: str, place: str) -> None:
        """A key that loaders act on. A value on a line of its own cannot be told, and is named as that."""
        value = matter.scalar(text)
        if key == "_target_":
            loaders.judge_target(value, place, self.report)
        elif key == "auto_map" and value is None:
            loaders.judge_leaf((place, key), "(on the lines below)", self.report)
        elif value is not None:
            loaders.judge_leaf((place, key), value, self.report)

    def tell(self) -> None:
        if self.name.endswith(WEIGHTS):
            meaning = INSTEAD.meaning[:-1] + ": perhaps the page of an error." if self.markup else ""
            self.report.add(INSTEAD, "", meaning, BLOCK if self.name.endswith(STRICT) else None)
        if self.name.endswith((".json", ".ipynb")):
            self.report.add(leaves.SYNTAX, "", "The document is no JSON, though its name says so.")
        if self.code:
            special = {
                "setup.py": " It runs when the folder is installed.",
                "handler.py": " It runs when an inference endpoint serves the model.",
            }.get(self.name, "")  # fmt: skip
            rule = CODE if self.code == "python" else SCRIPT
            self.report.add(rule, "", rule.meaning + special)
        self.tell_by_name()
        if _KEPT.fullmatch(self.name):
            self.report.facts["text"] = self.kept
        if self.name.endswith(".md"):
            self.card()

    def tell_by_name(self) -> None:
        """What only the name and the whole text tell."""
        if self.name.endswith((".pbtxt", ".prototxt")):
            self.report.add(PROTO)
        if _REQUIREMENTS.fullmatch(self.name) and _FETCHES.search(self.kept):
            self.report.add(BUILD)
        if self.name == "pyproject.toml" and _BACKEND.search(self.kept):
            self.report.add(BUILD)
        if self.name.endswith((".template", ".tmpl")) and ("{%" in self.kept or "{{" in self.kept):
            if self.length > MAX_TEXT:
                self.report.add(templates.LARGE)
            templates.judge(self.kept, self.name.rpartition(".")[0] or "default", self.report)

    def card(self) -> None:
        """The front matter, as data; and looked at as the YAML that it is."""
        front, _ = matter.split(self.kept)
        if not front:
            return
        self.line = 2
        self.look_at_yaml(front)
        try:
            card = matter.read(front)
        except matter.Unreadable as fault:
            if self.name == "readme.md":
                self.report.add(FRONT, "", f"The front matter of the card could not be read: {fault}.")
            return
        if self.name == "readme.md" and isinstance(card, dict):
            self.report.facts["card"] = card


__all__ = ["recognises", "scan"]
