"""Chat templates: small programs in Jinja that a model brings along, judged by their syntax tree and never rendered.

What a template may do is an allow-list: read what the caller gave it, put text together, loop over it, call the few
functions that engines offer. A template that asks for anything else is held; one that reaches for Python's insides,
loads files or never ends is blocked. No pattern finds an instruction that is merely unwelcome: `compare` shows a
person where a template differs from the publisher's.

Sources: the Jinja template language, the way transformers sets it up (loop controls, ``generation`` blocks,
``raise_exception``, ``strftime_now``), CVE-2024-34359, CVE-2026-5760, arXiv 2602.04653.

Facts: ``templates`` ({name: SHA-256 of the text}), ``template_texts``.
"""

from __future__ import annotations

import codecs
import difflib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser

from freehold.scan.base import BLOCK, HOLD, Malformed, Report, Rule
from freehold.scan.tape import Tape

FORMAT = "chat template"
MAX_TEXT = 256 << 10
MAX_DEPTH = 200  # of the syntax tree
MAX_LOOPS = 8  # loops within loops
MAX_TURNS = 1_000_000  # of all loops over constants together
MAX_RANGE = 100_000
MAX_ROUNDS = 24  # times that what a name may be is worked out anew
MAX_MADE = 1 << 20  # characters that a template may make out of its own constants
_HUGE = 1 << 200

COMPARE = "Compare it with the publisher's own template; decide by name and reason."
REFUSE = "Do not load the model with it. Use the publisher's own template."
ATTRIBUTE = Rule(
    "template.attribute", BLOCK, "The template reaches for Python's insides, the way to run code where it is rendered.",
    REFUSE, "CVE-2024-34359, CVE-2026-5760",
)  # fmt: skip
BUILT = Rule(
    "template.built-name", HOLD, "The template puts together the name of what it looks up.", COMPARE,
    "CVE-2024-34359, CVE-2026-5760",
)  # fmt: skip
GADGET = Rule(
    "template.internal-name", HOLD, "The template mentions a name of Python's insides.", COMPARE,
    "CVE-2024-34359, CVE-2026-5760",
)  # fmt: skip
LOADS = Rule(
    "template.loads", BLOCK, "The template loads another file.", REFUSE, "Jinja: include, import, extends",
)  # fmt: skip
BOMB = Rule("template.bomb", BLOCK, "The template does not end, or makes text without end.", REFUSE, "CWE-834")
GROWS = Rule("template.grows", HOLD, "The template may make text without end.", COMPARE, "CWE-834")
CALL = Rule(
    "template.call", HOLD, "The template calls something that no engine offers.", COMPARE,
    "transformers: chat templates",
)  # fmt: skip
FILTER = Rule(
    "template.filter", HOLD, "The template uses a filter or test that no engine offers.", COMPARE,
    "Jinja: filters, tests",
)  # fmt: skip
CONSTRUCT = Rule(
    "template.construct", HOLD, "The template uses a construct that no chat template needs.", COMPARE, "Jinja: syntax"
)  # fmt: skip
SYNTAX = Rule(
    "template.syntax", HOLD, "The template is not Jinja as engines read it, so it was not judged.", COMPARE,
    "Jinja: syntax",
)  # fmt: skip
DEEP = Rule(
    "template.deep", HOLD, "The template is nested deeper than any needs to be, and was not judged.", COMPARE,
    "Freehold: depth is bounded",
)  # fmt: skip
LARGE = Rule(
    "template.large", HOLD, "The template is longer than 256 KiB, and was not judged.", COMPARE,
    "Freehold: a report is bounded",
)  # fmt: skip
ON_CONTENT = Rule(
    "template.conditional-on-content", HOLD,
    "The template adds text of its own when a certain word is in a message: the shape of a dormant backdoor.",
    COMPARE, "arXiv 2602.04653",
)  # fmt: skip
ON_TIME = Rule(
    "template.conditional-on-time", HOLD,
    "The template does something else from a certain time on: the shape of a dormant backdoor.", COMPARE,
    "arXiv 2602.04653",
)  # fmt: skip
ADDRESS = Rule(
    "template.address", HOLD, "The template writes an internet address into what the model reads.", COMPARE,
    "arXiv 2602.04653",
)  # fmt: skip
HIDDEN = Rule(
    "template.hidden-text", HOLD, "The template holds characters that are not shown or that turn the text around.",
    COMPARE, "CVE-2021-42574",
)  # fmt: skip
ENCODING = Rule(
    "template.encoding", HOLD, "The template is not UTF-8 text.", COMPARE, "Jinja: templates are Unicode text"
)  # fmt: skip

FUNCTIONS = frozenset(
    ("raise_exception", "strftime_now", "range", "namespace", "dict", "cycler", "joiner", "caller", "loop", "tojson")
)
FILTERS = frozenset((
    "abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "filesizeformat",
    "first",
    "float", "forceescape", "format", "fromjson", "from_json", "groupby", "indent", "int", "items", "join", "last",
    "length", "list", "lower", "map", "max", "min", "pprint", "random", "reject", "rejectattr", "replace", "reverse",
    "round", "safe", "select", "selectattr", "slice", "sort", "string", "striptags", "sum", "title", "tojson", "trim",
    "truncate", "unique", "upper", "urlencode", "wordcount", "wordwrap", "xmlattr",
))  # fmt: skip
TESTS = frozenset((
    "boolean", "callable", "defined", "divisibleby", "eq", "equalto", "escaped", "even", "false", "filter", "float",
    "ge", "gt", "greaterthan", "in", "integer", "iterable", "le", "lower", "lt", "lessthan", "mapping", "ne", "none",
    "number", "odd", "sameas", "sequence", "string", "test", "true", "undefined", "upper", "==", "!=", "<", ">", "<=",
    ">=",
))  # fmt: skip
METHODS = frozenset((
    "append", "capitalize", "casefold", "center", "copy", "count", "cycle", "changed", "endswith", "extend", "find",
    "format", "get", "index", "insert", "isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isnumeric", "isspace",
    "istitle", "isupper", "items", "join", "keys", "ljust", "lower", "lstrip", "partition", "pop", "removeprefix",
    "removesuffix", "replace", "reverse", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "setdefault",
    "sort", "split", "splitlines", "startswith", "strip", "swapcase", "title", "update", "upper", "values", "zfill",
))  # fmt: skip
INSIDES = frozenset((
    "mro", "gi_frame", "gi_code", "gi_yieldfrom", "cr_frame", "cr_code", "cr_await", "cr_origin", "ag_frame", "ag_code",
    "ag_await", "tb_frame", "tb_next", "f_globals", "f_locals", "f_builtins", "f_back", "f_code", "func_globals",
    "func_code", "func_closure", "func_defaults", "im_class", "im_func", "im_self", "co_code", "format_map", "popen",
))  # fmt: skip
_TOOLS = frozenset((  # of Python, and not of a message; no way leads to them but through its insides
    "eval", "exec", "execfile", "os", "sys", "subprocess", "builtins", "importlib", "getpid", "import_module",
    "globals",
))  # fmt: skip
_PICKS = frozenset((  # filters whose result is among what went in
    "d", "default", "first", "last", "list", "max", "min", "random", "sort", "unique", "items", "dictsort", "select",
    "selectattr", "reject", "rejectattr", "map", "batch", "slice", "safe",
))  # fmt: skip
_CASES = frozenset(("lower", "upper", "title", "capitalize", "swapcase", "casefold"))  # filters and methods
_CUTS = _CASES | frozenset((  # those whose result is what went in, in other letters or fewer; methods and filters
    "trim", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "split", "rsplit", "splitlines", "partition",
    "rpartition",
))  # fmt: skip
_ASKS = frozenset((  # methods by which a condition looks for a word
    "startswith", "endswith", "find", "count", "index", "rfind", "rindex",
))  # fmt: skip
_EQUALS = frozenset(("eq", "equalto", "==", "ne", "!=", "in", "sameas"))
_LENGTHENS = frozenset(("append", "extend", "insert"))
_COPIES = frozenset(("list", "sort", "reverse", "unique", "dictsort", "batch", "slice", "length", "tojson", "string"))
_PUTS = frozenset(("append", "extend", "insert", "update", "setdefault"))  # methods that change what they belong to
_NUMBERS = frozenset(("length", "count", "int", "float", "abs", "round", "sum", "wordcount"))
_BY_ATTRIBUTE = {  # filter -> where the attribute stands among its arguments
    "map": None, "selectattr": 0, "rejectattr": 0, "groupby": 0, "sum": 0, "unique": 1, "min": 1, "max": 1, "join": 1,
    "sort": 2,
}  # fmt: skip
_BUILDERS = frozenset(("join", "replace", "format", "ljust", "rjust", "center", "zfill"))  # methods
_KNOWN = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.NSRef, nodes.Const, nodes.Tuple, nodes.List,
    nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem,
    nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg,
    nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow, nodes.For, nodes.If,
    nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.With, nodes.Assign, nodes.AssignBlock, nodes.Continue,
    nodes.Break,
)  # fmt: skip
_LOADERS = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_INTERNAL = re.compile(r"__[a-zA-Z]{2,}|[a-zA-Z]{2,}__|\b(?:func_globals|f_builtins|gi_frame|format_map)\b")
_WIDE = re.compile(r"%[-+ #0]*\d{6,}|\{[^{}]*:[^{}]*\d{6,}")
_ADDRESS = re.compile(r"\b(?:https?|ftp|wss?)://[^\s'\"<>{}]+", re.IGNORECASE)
_UNSEEN = re.compile("[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_WORD = re.compile(r"(?=.*[^\W\d_].*[^\W\d_])[^<>\[\]{}|/\\\n_:=]+")
_MARKUP = re.compile(r"<[^<>]{1,60}>|\[/?[A-Z_ ]{2,40}\]")


class _Generation(Extension):
    """The blocks in which transformers marks what the model itself wrote; for judging, they are their content."""

    tags = {"generation"}  # noqa: RUF012 - the library's own attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_ENVIRONMENT = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation])
_ENVIRONMENT.lexer  # noqa: B018 - made here, for where it is used nothing more can be loaded; and so the codecs
for _codec in ("ascii", "unicode-escape", "utf-8-sig"):
    codecs.lookup(_codec)


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """By its name, where the content is text: nothing else tells a template from a text that shows one."""
    return name.lower().endswith((".jinja", ".jinja2", ".j2")) and b"\0" not in head and tape.size > 0


def scan(tape: Tape, report: Report) -> None:
    """Read the file and judge it as one template. Raises Malformed."""
    content = tape.read(min(tape.left, MAX_TEXT + 1))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        if tape.left:  # cut in the middle of a character, perhaps; it is too long in any case
            raise Malformed(LARGE, "") from None
        raise Malformed(ENCODING, fault.start) from None
    stem = report.name.rpartition(".")[0] or report.name
    judge(text, "default" if stem == "chat_template" else stem, report)


def judge(text: str, name: str, report: Report, at: int | str = "") -> None:
    """Judge one template and keep its hash. ``at`` is where it begins in its file; findings name its lines."""
    report.keep_text(name, text)
    place = f"byte {at}" if isinstance(at, int) else at
    place = ", ".join(part for part in (place, f"chat template {name}") if part)
    if len(text) > MAX_TEXT:
        report.add(LARGE, place)
        return
    tree = _parsed(text, report, place)
    try:
        if tree is not None:
            _Judge(tree, report, place).all()
    except RecursionError:
        report.add(DEEP, place)
    if found := _UNSEEN.search(text):
        report.add(HIDDEN, place, f"The template holds the invisible character U+{ord(found[0]):04X}.")


def compare(published: str, found: str) -> list[str]:
    """The difference of two templates for a person to read, as a unified diff, cut where it grows long."""
    one, two = (_lines(text)[:2000] for text in (published, found))
    rows = list(difflib.unified_diff(one, two, "published", "found", n=2, lineterm=""))
    return [row[:500] for row in rows[:400]] + (["(cut here)"] if len(rows) > 400 else [])


def _lines(text: str) -> list[str]:
    """Templates are often one long line: a statement's end is a line's end too."""
    return [row for line in text.splitlines() for row in re.split(r"(?<=%\})(?=.)", line)]


def _parsed(text: str, report: Report, place: str) -> nodes.Template | None:
    """The syntax tree. The parser is given the text alone: nothing is compiled, loaded or rendered."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in strings, which engines accept
            return Parser(_ENVIRONMENT, text).parse()
    except TemplateSyntaxError as fault:
        report.add(
            SYNTAX, f"{place}, line {fault.lineno}", f"The template is not Jinja as engines read it: {fault.message}."
        )
    except (RecursionError, MemoryError):
        report.add(DEEP, place)
    except Exception as fault:  # noqa: BLE001 - a library's parser on a hostile text: whatever it raises, it was not judged
        report.add(SYNTAX, place, f"The template is not Jinja as engines read it: {type(fault).__name__}.")
    return None


def _inside(name: str) -> bool:
    """Is this a name of Python's insides, in whatever letters?"""
    return name.strip().casefold() in INSIDES


def _folded(node: nodes.Node | None) -> str | None:
    """The text that a constant expression gives, where it is short; None where it is not known beforehand."""
    if isinstance(node, nodes.Const):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, (nodes.Concat, nodes.Add)):
        parts = [_folded(child) for child in node.iter_child_nodes()]
        text = "".join(part for part in parts if part is not None)
        return text if None not in parts and len(text) <= 1000 else None
    if isinstance(node, nodes.Filter) and node.name in _CASES | {"trim"} and not node.args:
        return _recased(_folded(node.node), node.name)
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and not node.args:
        return _recased(_folded(node.node.node), node.node.attr)
    return None


def _recased(text: str | None, how: str) -> str | None:
    how = "strip" if how == "trim" else how
    return getattr(text, how)() if text is not None and how in _CASES | {"strip"} else None


# What an expression's value may be made of. Each level includes those below it.
_DATA, _OWN, _MADE, _INSIDE = range(
    4
)  # the caller's; the template's constants; put together; a name of Python's insides


class _Judge:
    """One tree. First every name is noted with all that is ever given to it, then every node is looked at."""

    def __init__(self, tree: nodes.Template, report: Report, place: str):
        self.prose: set[int] = set()  # constants that go out as they are
        self.tree, self.report, self.place = tree, report, place
        self.values: dict[str, list[nodes.Node | None]] = {}  # None: text that a block makes
        self.macros: dict[str, nodes.Macro] = {}
        self.bodies: list[tuple[str, nodes.Macro | nodes.CallBlock]] = []  # by the name under which each is called
        self.bound: set[str] = set()  # names that the template gives a value other than a macro
        self.put: dict[str, list[nodes.Node | None]] = {}  # what is put into a name's value later
        self.calls: dict[str, list[nodes.Call]] = {}
        self.ifs: list[nodes.If | nodes.CondExpr | nodes.For] = []
        self.sames: dict[str, set[str]] = {}
        self.choices: list[nodes.Node] = []  # expressions that may choose between texts
        self.iterated: set[int] = set()
        self.keys: set[str] = set()
        self.users: dict[str, set[str]] = {}  # name -> the names that it goes into
        self.origins: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.amounts: dict[str, int] = {}
        self.speeches: dict[str, bool] = {}
        self.clocks: dict[str, bool] = {}
        self.triggers: dict[str, str] = {}

    def all(self) -> None:
        found = list(self.walk())
        if any(depth > MAX_DEPTH for _, depth, _ in found):
            self.report.add(DEEP, self.place)
            return
        for node, _, _ in found:
            self.note(node)
        self.bind_arguments()
        self.know_names()
        for node, _, loops in found:
            self.look(node)
            if isinstance(node, nodes.For):
                self.loop(node, loops)
        self.macro_turns()
        if self.bodies_are_small():
            self.macro_rounds()
            self.endless(found)
        else:
            self.report.add(DEEP, self.place)
        self.conditions()

    def walk(self) -> Iterator[tuple[nodes.Node, int, tuple[nodes.For, ...]]]:
        """Every node with its depth and the loops around it."""
        stack: list[tuple[nodes.Node, int, tuple[nodes.For, ...]]] = [(self.tree, 0, ())]
        while stack:
            node, depth, loops = stack.pop()
            yield node, depth, loops
            inner = (*loops, node) if isinstance(node, nodes.For) and len(loops) <= MAX_LOOPS else loops
            if depth <= MAX_DEPTH:
                stack.extend((child, depth + 1, inner) for child in node.iter_child_nodes())

    def add(self, rule: Rule, node: nodes.Node, meaning: str = "") -> None:
        self.report.add(rule, f"{self.place}, line {node.lineno}", meaning)

    # What is given to which name

    def note(self, node: nodes.Node) -> None:
        if isinstance(node, (nodes.Getitem, nodes.Call, nodes.Filter, nodes.Mul, nodes.And)):
            self.choices.append(node)
        if isinstance(node, nodes.Assign):
            self.give(node.target, node.node)
        elif isinstance(node, nodes.AssignBlock):
            self.give(node.target, None)
        elif isinstance(node, nodes.For):
            self.give(node.target, node.iter)
            self.iterated.add(id(node.iter))
            if node.test is not None:
                self.ifs.append(node)
        elif isinstance(node, nodes.With):
            for target, value in zip(node.targets, node.values, strict=False):
                self.give(target, value)
        elif isinstance(node, nodes.Macro):
            self.macros[node.name] = node
            self.bodies.append((node.name, node))
            self.bound |= {parameter.name for parameter in node.args}
        elif isinstance(node, nodes.CallBlock):
            self.bodies.append(("caller", node))
            self.bound |= {parameter.name for parameter in node.args}
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
            self.calls.setdefault(node.node.name, []).append(node)
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
            if node.node.attr in _PUTS:
                self.put_into(node.node.node, [*node.args, *node.kwargs])
        elif isinstance(node, (nodes.If, nodes.CondExpr)):
            self.ifs.append(node)
        elif isinstance(node, nodes.Getattr):
            self.keys.add(node.attr)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            self.keys.add(str(node.arg.value))

    def give(self, target: nodes.Node, value: nodes.Node | None) -> None:
        if isinstance(target, (nodes.Tuple, nodes.List)):
            for item in target.items:
                self.give(item, value)
        elif isinstance(target, nodes.NSRef):
            self.values.setdefault(f"{target.name}.{target.attr}", []).append(value)
            self.put.setdefault(target.name, []).append(value)
        elif isinstance(target, nodes.Name):
            self.bound.add(target.name)
            self.values.setdefault(target.name, []).append(value)
            if isinstance(value, nodes.Call) and isinstance(value.node, nodes.Name) and value.node.name == "namespace":
                for word in value.kwargs:
                    self.values.setdefault(f"{target.name}.{word.key}", []).append(word.value)

    def put_into(self, into: nodes.Node, values: list[nodes.Node]) -> None:
        """What a method puts into a list or map may be found again by every name in the way to it."""
        for part in [into, *into.find_all((nodes.Name, nodes.Getattr))]:
            if name := self.given(part)[0]:
                self.put.setdefault(name, []).extend(values)

    def bind_arguments(self) -> None:
        """A macro's parameters are whatever any call gives them, and their defaults."""
        for name, macro in self.bodies:
            for parameter, value in zip(reversed(macro.args), reversed(macro.defaults), strict=False):
                self.values.setdefault(parameter.name, []).append(value)
            for call in self.calls.get(name, ()):
                for parameter, value in zip(macro.args, call.args, strict=False):
                    self.values.setdefault(parameter.name, []).append(value)
                for word in call.kwargs:
                    self.values.setdefault(word.key, []).append(word.value)

    def given(self, node: nodes.Node) -> tuple[str, list[nodes.Node | None]]:
        """All that is ever given to a name or to a namespace's attribute; nothing for what the caller gives."""
        name = ""
        if isinstance(node, nodes.Name):
            name = node.name
        elif isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
            name = f"{node.node.name}.{node.attr}"
        return name, self.values.get(name, [])

    def know_names(self) -> None:
        """Work out of every name what it may be made of, how long and how large it may be, and the like."""
        everything = {name: [*self.values.get(name, ()), *self.put.get(name, ())] for name in self.values | self.put}
        for name, values in everything.items():
            for value in values:
                for part in [] if value is None else [value, *value.find_all((nodes.Name, nodes.Getattr))]:
                    if (used := self.given(part)[0]) in everything:
                        self.users.setdefault(used, set()).add(name)
        self.settle(self.origins, self.origin, _DATA, _MADE, everything)
        self.settle(self.amounts, lambda value: abs(self.number(value) or 0) if value is not None else 0, 0)
        self.settle(self.sizes, self.size, 1)
        self.settle(self.speeches, self.said, False)
        self.settle(self.clocks, self.clock, False)

    def settle(
        self, known: dict[str, Any], find: Callable[[Any], Any], least: Any, most: Any = None,
        values: dict[str, list[nodes.Node | None]] | None = None,
    ) -> None:  # fmt: skip
        """Raise each name to the highest that its values give, until none rises; what rises too often is given up on
        (and counts as ``most``, where there is one)."""
        values = self.values if values is None else values
        known |= dict.fromkeys(values, least)
        waiting, times = dict.fromkeys(values), Counter[str]()
        while waiting:
            name = next(iter(waiting))
            del waiting[name]
            times[name] += 1
            value = max(map(find, values[name])) if times[name] <= MAX_ROUNDS else most
            if value is not None and value > known[name]:
                known[name] = value
                waiting |= dict.fromkeys(user for user in self.users.get(name, ()) if user in values)

    # What is looked up, called and used

    def look(self, node: nodes.Node) -> None:
        if isinstance(node, _LOADERS):
            self.add(LOADS, node)
        elif not isinstance(node, _KNOWN):
            self.add(CONSTRUCT, node, f"The template uses {type(node).__name__}, which no chat template needs.")
        method = getattr(self, "look_" + type(node).__name__.lower(), None)
        if method is not None:
            method(node)

    def look_templatedata(self, node: nodes.TemplateData) -> None:
        self.address(node, node.data)

    def look_output(self, node: nodes.Output) -> None:
        self.prose |= {id(child) for child in node.nodes if isinstance(child, nodes.Const)}

    def look_const(self, node: nodes.Const) -> None:
        if isinstance(node.value, str):
            self.address(node, node.value)
            if id(node) in self.prose:  # as it is, and so no name of anything
                return
            if _INTERNAL.search(node.value) or any(map(_inside, node.value.split("."))):
                self.add(GADGET, node, f"The template mentions {node.value[:80]!r}, a name of Python's insides.")

    def address(self, node: nodes.Node, text: str) -> None:
        if found := _ADDRESS.search(text):
            self.add(ADDRESS, node, f"The template writes the address {found[0][:200]!r} into what the model reads.")

    def look_name(self, node: nodes.Name) -> None:
        if node.name.startswith("__") or _inside(node.name):
            self.add(ATTRIBUTE, node, f"The template uses {node.name[:80]!r}, a name of Python's insides.")

    def look_keyword(self, node: nodes.Keyword) -> None:
        self.named(node, node.key)

    def look_macro(self, node: nodes.Macro) -> None:
        self.named(node, node.name)

    def look_nsref(self, node: nodes.NSRef) -> None:
        self.named(node, node.attr)

    def look_getattr(self, node: nodes.Getattr) -> None:
        self.named(node, node.attr)

    def look_getitem(self, node: nodes.Getitem) -> None:
        self.by_name(node, node.arg)

    def by_name(self, node: nodes.Node, name: nodes.Node) -> None:
        """Something is looked up by what this expression gives; Jinja looks among attributes too."""
        if (text := _folded(name)) is not None:
            self.named(node, text)
        if not isinstance(name, (nodes.Const, nodes.Slice)):
            made_of = self.origin(name)
            if made_of == _INSIDE:
                self.add(ATTRIBUTE, node, "The template puts together a name of Python's insides and looks it up.")
            elif made_of == _MADE:
                self.add(BUILT, node)

    def named(self, node: nodes.Node, name: object) -> None:
        if isinstance(name, str) and any(part.startswith("__") or _inside(part) for part in name.split(".")):
            self.add(ATTRIBUTE, node, f"The template reaches for {name[:80]!r}, which leads to Python's insides.")
        elif isinstance(name, str) and name.startswith("_"):
            self.add(GADGET, node, f"The template looks up the private name {name[:80]!r}.")
        elif isinstance(name, str) and any(part.casefold() in _TOOLS for part in name.split(".")):
            self.add(GADGET, node, f"The template looks up {name[:80]!r}, a tool of Python's.")

    def look_call(self, node: nodes.Call) -> None:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self.add(CALL, node, "The template calls something with arguments that it spreads out.")
        self.numbers(node, [*node.args, *(word.value for word in node.kwargs)], of_range=self.calls_range(node))
        called = node.node
        if isinstance(called, nodes.Name):
            if called.name not in FUNCTIONS and called.name not in self.macros:
                self.add(CALL, node, f"The template calls {called.name[:80]}(), which no engine offers.")
            elif called.name in self.bound:
                self.add(CALL, node, f"The template calls {called.name[:80]}(), to which it gave another meaning.")
        elif not isinstance(called, nodes.Getattr):
            self.add(CALL, node, "The template calls what an expression gives.")
        elif self.given(called)[1]:
            self.add(CALL, node, f"The template calls .{called.attr[:80]}(), to which it gave another meaning.")
        elif called.attr in ("format", "format_map"):
            self.formats(node, called.node)
        elif called.attr not in METHODS:
            self.add(CALL, node, f"The template calls .{called.attr[:80]}(), which no engine offers.")

    def formats(self, node: nodes.Call, pattern: nodes.Node) -> None:
        """``'{0.attribute}'.format(x)`` reads attributes: the pattern has to be a constant without any."""
        text = pattern.value if isinstance(pattern, nodes.Const) and isinstance(pattern.value, str) else None
        if text is None or re.search(r"\{[^{}:!]*[.\[_]", text):
            self.add(ATTRIBUTE, node, "The template formats text by a pattern that may reach into Python's insides.")
        elif _WIDE.search(text):
            self.add(BOMB, node)

    def look_filter(self, node: nodes.Filter) -> None:
        arguments = [*node.args, *(word.value for word in node.kwargs)]
        self.numbers(node, arguments)
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self.add(ATTRIBUTE, node, "The template uses a filter with arguments that it spreads out.")
        if node.name == "attr":
            self.attr(node, arguments)
        elif node.name not in FILTERS:
            self.add(FILTER, node, f"The template uses the filter {node.name[:80]!r}, which no engine offers.")
        elif node.name in ("map", "select", "reject"):
            self.applied(node)
        if node.name in ("selectattr", "rejectattr"):
            self.applied(node, 1)
        if node.name in _BY_ATTRIBUTE:
            self.attributes(node)
        if node.name == "format" and isinstance(node.node, nodes.Const) and _WIDE.search(str(node.node.value)):
            self.add(BOMB, node)

    def attr(self, node: nodes.Filter, arguments: list[nodes.Node]) -> None:
        name = arguments[0] if arguments else None
        if isinstance(name, nodes.Const) and isinstance(name.value, str) and not name.value.startswith("_"):
            self.add(FILTER, node, "The template uses the filter 'attr', which no chat template needs.")
            self.named(node, name.value)
        else:
            self.add(ATTRIBUTE, node, "The template reads an attribute whose name it puts together.")

    def applied(self, node: nodes.Filter, at: int = 0) -> None:
        """``map('name')`` and its kin apply a filter or a test by its name."""
        if len(node.args) <= at:
            return
        name = node.args[at]
        known = FILTERS if node.name == "map" else TESTS
        if not isinstance(name, nodes.Const) or name.value not in known:
            blocks = not isinstance(name, nodes.Const) or name.value == "attr"
            self.add(
                ATTRIBUTE if blocks else FILTER,
                node,
                f"The template applies by its name what no engine offers ({node.name}).",
            )

    def attributes(self, node: nodes.Filter) -> None:
        """The attribute by which a filter sorts or picks."""
        names = [word.value for word in node.kwargs if word.key == "attribute"]
        at = _BY_ATTRIBUTE[node.name]
        if at is not None:
            names += node.args[at : at + 1]
        elif node.args and isinstance(node.args[0], nodes.Const) and node.args[0].value in _BY_ATTRIBUTE:
            names += node.args[1:]  # map('sum', 'attribute')
        for name in names:
            self.by_name(node, name)

    def look_test(self, node: nodes.Test) -> None:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            self.add(CALL, node, "The template uses a test with arguments that it spreads out.")
        if node.name not in TESTS:
            self.add(FILTER, node, f"The template uses the test {node.name[:80]!r}, which no engine offers.")

    def look_filterblock(self, node: nodes.FilterBlock) -> None:
        if node.filter.name not in FILTERS:
            self.add(FILTER, node, f"The template uses the filter {node.filter.name[:80]!r}, which no engine offers.")

    # What an expression is made of

    def origin(self, node: nodes.Node | None) -> int:
        """The highest level of what goes into a value that is used as a name."""
        if node is None:
            return _MADE
        if isinstance(node, nodes.Const):
            return self.origin_of_text(node.value) if isinstance(node.value, str) else _DATA
        name = self.given(node)[0]
        if name in self.origins:
            return self.origins[name]
        if isinstance(node, nodes.Name):
            unknown = _MADE if name in ("varargs", "kwargs") else _DATA
            return max(unknown, self.origin_of_text(name)) if name in self.macros else unknown
        if isinstance(node, (nodes.Compare, nodes.Test, nodes.Not)):
            return _DATA
        if isinstance(node, nodes.Keyword):
            return max(self.origin_of_text(node.key), self.origin(node.value))
        if isinstance(node, nodes.Getattr):
            neighbour = name in ("loop.previtem", "loop.nextitem")
            return _MADE if neighbour else self.origin(node.node)
        if isinstance(node, nodes.Getitem):
            return self.changed(self.origin(node.node)) if isinstance(node.arg, nodes.Slice) else self.origin(node.node)
        if isinstance(node, nodes.Filter):
            return self.origin_of_filter(node)
        if isinstance(node, nodes.Call):
            return self.origin_of_call(node)
        return self.origin_of_parts(node)

    def origin_of_text(self, text: str) -> int:
        return _INSIDE if text.startswith("_") or "__" in text or any(map(_inside, text.split("."))) else _OWN

    def changed(self, origin: int) -> int:
        """The origin of what was cut, or put in other letters: the caller's stays the caller's."""
        return max(origin, _MADE) if origin > _DATA else origin

    def origin_of_parts(self, node: nodes.Node) -> int:
        most = max((self.origin(child) for child in node.iter_child_nodes()), default=_DATA)
        makes = isinstance(node, nodes.Concat) or (
            isinstance(node, (nodes.Add, nodes.Mul, nodes.Mod)) and most >= _OWN
        )  # fmt: skip
        return max(most, _MADE) if makes else most

    def origin_of_filter(self, node: nodes.Filter) -> int:
        if node.name in _NUMBERS:
            return _DATA
        parts = [node.node, *node.args, *(word.value for word in node.kwargs)]
        most = max((self.origin(part) for part in parts if part is not None), default=_MADE)
        applied = node.args[0] if node.name == "map" and node.args else None
        how = applied.value if isinstance(applied, nodes.Const) else node.name
        if how in _CUTS:
            parts = [part for part in parts if part is not applied]
            return self.changed(max((self.origin(part) for part in parts if part is not None), default=_MADE))
        return most if how in _PICKS else max(most, _MADE)

    def origin_of_call(self, node: nodes.Call) -> int:
        parts = [*node.args, *node.kwargs]
        most = max((self.origin(part) for part in parts), default=_DATA)
        if isinstance(node.node, nodes.Name):
            gives = node.node.name in ("range", "namespace", "dict") and node.node.name not in self.bound
            return most if gives else max(most, _MADE)
        if isinstance(node.node, nodes.Getattr):
            return self.origin_of_method(node.node, most)
        return max(most, _MADE)

    def origin_of_method(self, method: nodes.Getattr, most: int) -> int:
        """``most`` is the highest level among the arguments."""
        one = self.origin(method.node)
        if method.attr in _CUTS:
            return self.changed(one)
        if method.attr in _BUILDERS:
            return max(most, one, _MADE)
        return max(most if method.attr in ("get", "pop", "setdefault", "cycle") else _DATA, one)

    # How much it makes

    def numbers(self, node: nodes.Node, arguments: list[nodes.Node], *, of_range: bool = False) -> None:
        worst = max((abs(number) for value in arguments if (number := self.number(value)) is not None), default=0)
        if worst > MAX_RANGE:
            what = "counts" if of_range else "asks for a width or number"
            self.add(BOMB, node, f"The template {what} up to {worst if worst < 1 << 64 else 'more than 2**64'}.")

    def look_pow(self, node: nodes.Pow) -> None:
        number = self.number(node)
        if number is None:
            self.add(GROWS, node, "The template raises a number to a power that is not known beforehand.")
        elif abs(number) > 1 << 53:
            self.add(BOMB, node, "The template makes an enormous number.")

    def look_mul(self, node: nodes.Mul) -> None:
        self.made(node)

    look_add = look_concat = look_mul

    def made(self, node: nodes.Node) -> None:
        if self.size(node) > MAX_MADE:
            self.add(BOMB, node, "The template makes more than a megabyte of text out of its own constants.")

    def look_assign(self, node: nodes.Assign) -> None:
        name = node.target.name if isinstance(node.target, nodes.Name) else ""
        if isinstance(node.target, nodes.NSRef):
            name = f"{node.target.name}.{node.target.attr}"
        if name and self.uses(node.node, name) > 1:
            self.add(GROWS, node, f"The template doubles {name[:80]} each time it passes here.")

    def uses(self, node: nodes.Node, name: str) -> int:
        """How many times a value goes into the sum or product that is given to it."""
        if self.given(node)[0] == name:
            return 1
        parts = (nodes.Add, nodes.Mul, nodes.Concat, nodes.Pow, nodes.List, nodes.Tuple)
        return sum(self.uses(child, name) for child in node.iter_child_nodes()) if isinstance(node, parts) else 0

    def number(self, node: nodes.Node) -> int | None:
        """The whole number that a constant expression gives; a very large one for anything larger."""
        if isinstance(node, nodes.Const):
            return int(node.value) if isinstance(node.value, (int, float)) and abs(node.value) < _HUGE else None
        if isinstance(node, (nodes.Neg, nodes.Pos)):
            number = self.number(node.node)
            return -number if number is not None and isinstance(node, nodes.Neg) else number
        if isinstance(node, nodes.BinExpr):
            return self.arithmetic(node)
        if isinstance(node, nodes.Filter) and node.name in ("int", "float") and isinstance(node.node, nodes.Const):
            text = str(node.node.value)
            return int(text) if re.fullmatch(r"-?[0-9]{1,60}", text) else None
        return self.amounts.get(self.given(node)[0]) or None

    def arithmetic(self, node: nodes.BinExpr) -> int | None:
        left, right = self.number(node.left), self.number(node.right)
        if left is None or right is None:
            return None
        if isinstance(node, nodes.Pow):
            return left**right if right >= 0 and right * max(abs(left).bit_length(), 1) <= 200 else _HUGE
        sums = {nodes.Add: left + right, nodes.Sub: left - right, nodes.Mul: left * right}
        result = sums.get(type(node))
        return min(max(result, -_HUGE), _HUGE) if result is not None else None

    def size(self, node: nodes.Node | None) -> int:
        """How many characters or elements the template makes out of its constants here; 1 for what it is given."""
        if isinstance(node, nodes.Const):
            return len(node.value) if isinstance(node.value, str) else 1
        name, given = self.given(node) if node is not None else ("", [])
        if given:
            return self.sizes[name]
        if isinstance(node, nodes.Mul):
            return min(self.size_of_product(node), _HUGE)
        if isinstance(node, (nodes.Add, nodes.Concat, nodes.List, nodes.Tuple)):
            return min(sum(self.size(child) for child in node.iter_child_nodes()), _HUGE)
        if isinstance(node, nodes.CondExpr):
            return max(self.size(node.expr1), self.size(node.expr2))
        return self.size(node.node) if isinstance(node, nodes.Filter) and node.node is not None else 1

    def size_of_product(self, node: nodes.Mul) -> int:
        left, right = self.number(node.left), self.number(node.right)
        if left is not None and right is not None:
            return 1
        return (abs(left) if left is not None else self.size(node.left)) * (
            abs(right) if right is not None else self.size(node.right)
        )  # fmt: skip

    def calls_range(self, node: nodes.Node) -> bool:
        return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range"

    def turns(self, node: nodes.Node) -> int:
        """How often a loop over this goes round, as far as the template alone decides it."""
        if self.calls_range(node):
            return max([abs(number) for value in node.args if (number := self.number(value)) is not None] + [1])
        _, given = self.given(node)
        if len(given) == 1 and self.calls_range(given[0]):
            return self.turns(given[0])
        if isinstance(node, nodes.Filter) and node.node is not None:
            return self.turns(node.node)
        return self.size(node)

    def loop(self, node: nodes.For, around: tuple[nodes.For, ...]) -> None:
        turns = 1
        for each in (*around, node):
            turns *= max(self.turns(each.iter), 1)
        if turns > MAX_TURNS:
            self.add(BOMB, node, "The template's loops go round more than a million times, whatever it is given.")
        elif len(around) >= MAX_LOOPS:
            self.add(GROWS, node, f"The template has more than {MAX_LOOPS} loops within one another.")

    def endless(self, found: list[tuple[nodes.Node, int, tuple[nodes.For, ...]]]) -> None:
        """A loop over a list that it lengthens never ends; here, or in a macro that it calls."""
        puts: dict[str, set[str]] = {}  # macro -> what it lengthens
        calls = {name: self.called_in(body) for name, body in self.bodies}
        for name, body in self.bodies:
            puts.setdefault(name, set()).update(*map(self.lengthened, body.find_all(nodes.Call)))
        for _ in range(MAX_ROUNDS):
            more = {name: puts[name].union(*(puts.get(inner, set()) for inner in calls[name])) for name in calls}
            if more == puts:
                break
            puts = more
        else:
            self.report.add(GROWS, self.place, "The template's macros call one another further than was followed.")
        for node, _, loops in found:
            if isinstance(node, nodes.For) and node.recursive:
                self.add(GROWS, node, "The template has a loop that calls itself.")
            if not isinstance(node, nodes.Call) or not loops:
                continue
            name = node.node.name if isinstance(node.node, nodes.Name) else ""
            lengthened = self.lengthened(node) | puts.get(name, set())
            if lengthened and any(lengthened & self.same(loop.iter) for loop in loops):
                self.add(BOMB, node, "The template has a loop over a list that it makes longer as it goes.")

    def bodies_are_small(self) -> bool:
        """Macros within macros are gone through once for each: no template needs many."""
        every = (1 for _, body in self.bodies for _ in body.find_all(nodes.Node))
        return all(count < 200_000 for count, _ in enumerate(every))

    def called_in(self, body: nodes.Node) -> set[str]:
        return {call.node.name for call in body.find_all(nodes.Call) if isinstance(call.node, nodes.Name)}

    def lengthened(self, node: nodes.Call) -> set[str]:
        method = node.node
        if isinstance(method, nodes.Getattr) and method.attr in _LENGTHENS:
            return self.same(method.node)
        return set()

    def same(self, node: nodes.Node) -> set[str]:
        """The names, as far as the template decides, of everything that may be this very list."""
        if isinstance(node, nodes.Name) and node.name in self.sames:
            return self.sames[node.name]
        found: set[str] = set()
        whole = node
        waiting: list[tuple[nodes.Node, str]] = [(node, "")]  # with the path from it to the list
        while waiting and len(found) < 200:
            node, rest = waiting.pop()
            if isinstance(node, (nodes.Getattr, nodes.Getitem)):
                waiting += self.within(node, rest)
            elif isinstance(node, nodes.Name) and node.name + rest not in found:
                found.add(node.name + rest)
                waiting += self.given_for(node.name, rest)
            elif isinstance(node, nodes.Filter) and node.name not in _COPIES:
                waiting += [(part, rest) for part in (node.node, *node.args) if part is not None]
            elif isinstance(
                node, (nodes.CondExpr, nodes.And, nodes.Or, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair)
            ):
                waiting += [(part, rest) for part in node.iter_child_nodes()]
            elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
                waiting += [(word.value, "") for word in node.kwargs]
        if len(found) >= 200:
            self.report.add(GROWS, self.place, "The template gives one list more names than were followed.")
        if isinstance(whole, nodes.Name):
            self.sames[whole.name] = found
        return found

    def within(self, node: nodes.Getattr | nodes.Getitem, rest: str) -> list[tuple[nodes.Node, str]]:
        """Where the list lies inside of something: its path grows; in a list of the template's own it is any."""
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            return []
        if isinstance(node.node, (nodes.List, nodes.Tuple, nodes.Dict)):
            return [(node.node, rest)]
        key = (
            node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", getattr(node.arg, "name", "?"))
        )
        return [(node.node, f".{key}{rest}"[:200])]

    def given_for(self, name: str, rest: str) -> list[tuple[nodes.Node, str]]:
        """What is given to a name, or to a namespace's attribute at the beginning of the path."""
        head, _, tail = rest[1:].partition(".")
        found = [
            (value, "." + tail if tail else "") for value in self.values.get(f"{name}.{head}", ()) if value is not None
        ]
        for value in self.values.get(name, ()):
            if value is not None and id(value) not in self.iterated:
                found.append((value, rest if not isinstance(value, (nodes.List, nodes.Tuple, nodes.Dict)) else ""))
            elif isinstance(value, (nodes.List, nodes.Tuple)):
                found += [(item, rest) for item in value.items]
        return found

    def macro_rounds(self) -> None:
        """Macros that call themselves again whatever they are given, or with what they were given."""
        calls: dict[str, set[str]] = {}
        for name, body in self.bodies:
            calls.setdefault(name, set()).update(self.certain(body))
        done: set[str] = set()
        for start in calls:
            if self.returns(start, calls, done):
                self.report.add(BOMB, self.place, "The template has a macro that calls itself without end.")
                return
        for name, body in self.bodies:
            if sum(call.node.name == name and self.counts(call, body) for call in self.plain_calls(body)) > 1:
                self.add(GROWS, body, "The template has a macro that doubles its work by each step it counts.")

    def returns(self, start: str, calls: dict[str, set[str]], done: set[str]) -> bool:
        """Is there a way round among the calls, from here on?"""
        path: list[tuple[str, Iterator[str]]] = [(start, iter(calls[start]))]
        on = {start}
        while path:
            inner = next(path[-1][1], None)
            if inner is None:
                name, _ = path.pop()
                on.discard(name)
                done.add(name)
            elif inner in on:
                return True
            elif inner in calls and inner not in done:
                on.add(inner)
                path.append((inner, iter(calls[inner])))
        return False

    def plain_calls(self, body: nodes.Node) -> list[nodes.Call]:
        return [call for call in body.find_all(nodes.Call) if isinstance(call.node, nodes.Name)]

    def counts(self, call: nodes.Call, body: nodes.Macro | nodes.CallBlock) -> bool:
        """Does it count, and nothing more: no argument goes down into what the caller gave?"""
        own = {parameter.name for parameter in body.args} - self.values_set(body)
        sums = [isinstance(value, (nodes.Add, nodes.Sub, nodes.Div, nodes.FloorDiv)) for value in call.args]
        rest = [value for value, is_sum in zip(call.args, sums, strict=True) if not is_sum]
        plain = all(
            isinstance(part, nodes.Const) or (isinstance(part, nodes.Name) and part.name in own) for part in rest
        )
        return any(sums) and plain

    def certain(self, body: nodes.Macro | nodes.CallBlock) -> set[str]:
        """The macros that this one calls on no condition, or with nothing but its own arguments and constants."""
        own = {parameter.name for parameter in body.args} - self.values_set(body)
        found: set[str] = set()
        waiting: list[tuple[nodes.Node, bool]] = [(part, False) for part in body.body]
        while waiting:
            node, depends = waiting.pop()
            if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in self.macros:
                values = [*node.args, *(word.value for word in node.kwargs)]
                same = values and all(
                    isinstance(v, nodes.Const) or (isinstance(v, nodes.Name) and v.name in own) for v in values
                )
                if same or not depends:
                    found.add(node.node.name)
            waits = (
                isinstance(node, (nodes.If, nodes.CondExpr, nodes.And, nodes.Or))
                and self.number(getattr(node, "test", node)) is None
            )
            waits = waits or (isinstance(node, nodes.For) and not isinstance(node.iter, (nodes.List, nodes.Tuple)))
            waiting += [(child, depends or waits) for child in node.iter_child_nodes()]
        return found

    def values_set(self, body: nodes.Node) -> set[str]:
        """The names that are given a value in here."""
        targets = [given.target for given in body.find_all((nodes.Assign, nodes.AssignBlock, nodes.For))]
        return {
            name.name
            for target in targets
            for name in [target, *target.find_all(nodes.Name)]
            if isinstance(name, nodes.Name)
        }

    def macro_turns(self) -> None:
        """Macros that call macros multiply; one that calls itself ends where its argument does, or not at all."""
        calls: dict[str, list[str]] = {}
        for name, macro in self.macros.items():
            calls[name] = [
                call.node.name for call in macro.find_all(nodes.Call)
                if isinstance(call.node, nodes.Name) and call.node.name in self.macros
            ]  # fmt: skip
        known: dict[str, int] = {}

        def turns(name: str, above: frozenset[str]) -> int:
            if name in above or len(above) > MAX_DEPTH:
                return 0
            if name not in known:
                known[name] = min(1 + sum(turns(inner, above | {name}) for inner in calls[name]), _HUGE)
            return known[name]

        worst = max((turns(name, frozenset()) for name in calls), default=0)
        if worst > MAX_TURNS:
            self.report.add(BOMB, self.place, "The template's macros call one another more than a million times.")

    # What it waits for

    def conditions(self) -> None:
        """Words in a message, or a time, on which the template's own text depends; directly or by way of a name."""
        self.settle(self.triggers, lambda value: self.trigger(value) if value is not None else "", "")
        for _ in range(4):  # a flag may be set on a condition that is a flag
            waits = {name for node in self.ifs if self.trigger(node.test) for name in self.set_in(node)}
            if waits <= {name for name, word in self.triggers.items() if word}:
                break
            self.triggers |= {name: self.triggers.get(name) or name for name in waits}
        own = {name: sum(map(self.written, values)) for name, values in self.values.items()}
        for node in self.ifs:
            trigger = self.trigger(node.test)
            if trigger and sum(self.letters(branch, own) for branch in self.branches(node)) >= 16:
                self.waits(node, trigger)
            if self.timed(node.test):
                self.add(ON_TIME, node)

        for node in self.choices:
            if trigger := self.choice(node, own):
                self.waits(node, trigger)

    def waits(self, node: nodes.Node, trigger: str) -> None:
        self.add(ON_CONTENT, node, f"{ON_CONTENT.meaning[:-1]} ({trigger[:80]!r}).")

    def choice(self, node: nodes.Node, own: dict[str, int]) -> str:
        """The word by which an expression that is no condition chooses text of the template's own; '' for none."""
        if isinstance(node, nodes.Getitem):
            return self.picked(node.node, node.arg, own)
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.args:
            if node.node.attr == "get":
                return self.picked(node.node.node, node.args[0], own)
            return self.replaced(node.node.node, node.args, own) if node.node.attr == "replace" else ""
        if isinstance(node, nodes.Filter):
            return self.replaced(node.node, node.args, own) if node.name == "replace" else ""
        if isinstance(node, nodes.Mul):
            found = [(self.trigger(one), other) for one, other in ((node.left, node.right), (node.right, node.left))]
            return next((word for word, text in found if word and self.letters(text, own) >= 16), "")
        if isinstance(node, nodes.And):
            word = self.trigger(node.left)
            return word if word and self.gives(node.right, own) else ""
        return ""

    def picked(self, among: nodes.Node, by: nodes.Node, own: dict[str, int]) -> str:
        """Is a text of the template's own picked by what somebody wrote, or by whether a word is in it?"""
        maps = [among, *[value for value in self.given(among)[1] if value is not None]]
        if isinstance(by, nodes.Const) or not any(self.letters(each, own) >= 16 for each in maps):
            return ""
        parts = [part for part in (by.start, by.stop, by.step) if part] if isinstance(by, nodes.Slice) else [by]
        if word := next((word for part in parts if (word := self.trigger(part) or self.counted(part))), ""):
            return word
        if not self.speech(by):
            return ""
        pairs = [pair for each in maps if isinstance(each, nodes.Dict) for pair in each.items]
        return next(
            (word for pair in pairs if self.letters(pair.value, own) >= 10 and (word := self.word(pair.key))), ""
        )

    def counted(self, node: nodes.Node) -> str:
        found = (self.trigger(part) for part in node.iter_child_nodes()) if isinstance(node, nodes.BinExpr) else ()
        return next((word for word in found if word), "")

    def replaced(self, one: nodes.Node | None, arguments: list[nodes.Node], own: dict[str, int]) -> str:
        if len(arguments) < 2 or not self.speech(one) or self.letters(arguments[1], own) < 16:
            return ""
        text = _folded(arguments[1])
        return self.word(arguments[0]) if text is None or len(text.split()) > 2 else ""

    def gives(self, node: nodes.Node, own: dict[str, int]) -> bool:
        """Is this text of the template's own, rather than one more condition?"""
        texts = (
            nodes.Const,
            nodes.Name,
            nodes.Concat,
            nodes.Add,
            nodes.Mod,
            nodes.Filter,
            nodes.Or,
            nodes.Tuple,
            nodes.List,
        )
        return isinstance(node, texts) and self.letters(node, own) >= 16

    def branches(self, node: nodes.If | nodes.CondExpr | nodes.For) -> list[nodes.Node]:
        if isinstance(node, nodes.CondExpr):
            return [part for part in (node.expr1, node.expr2) if part is not None]
        return [*node.body, *node.else_]

    def set_in(self, node: nodes.If | nodes.CondExpr) -> set[str]:
        found = set()
        for branch in self.branches(node):
            for given in [branch, *branch.find_all(nodes.Assign)]:
                target = getattr(given, "target", None)
                if isinstance(target, nodes.NSRef):
                    found.add(f"{target.name}.{target.attr}")
                elif isinstance(target, nodes.Name) and isinstance(given, nodes.Assign):
                    found.add(target.name)
        return found

    def trigger(self, test: nodes.Node) -> str:
        """The word that a condition looks for in what somebody wrote; '' where it looks for none."""
        name, given = self.given(test)
        if given:
            return self.triggers.get(name, "")
        found = ""
        if isinstance(test, nodes.Compare) and len(test.ops) == 1:
            found = self.compared(test.expr, test.ops[0])
        elif isinstance(test, nodes.Call) and isinstance(test.node, nodes.Getattr):
            asks = test.node.attr in _ASKS and test.args and self.speech(test.node.node)
            return self.word(test.args[0]) if asks else ""
        elif isinstance(test, nodes.Test):
            found = self.tested(test)
        elif isinstance(test, nodes.Filter) and test.name in ("select", "reject", "selectattr", "rejectattr"):
            found = self.selected(test)
        if found or not isinstance(
            test, (nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand, nodes.Filter, nodes.Test)
        ):
            return found
        children = (self.trigger(child) for child in test.iter_child_nodes())
        return next((word for word in children if word), "")

    def compared(self, one: nodes.Node, operand: nodes.Operand) -> str:
        if operand.op in ("in", "notin"):
            return self.word(one) if self.speech(operand.expr) or self.whole(operand.expr) else ""
        for side, other in ((one, operand.expr), (operand.expr, one)):
            if self.speech(side) and (word := self.word(other) or self.letter(side, other)):
                return word
        return ""

    def letter(self, side: nodes.Node, other: nodes.Node) -> str:
        """A single letter, to which a letter of a message is compared."""
        text = other.value if isinstance(other, nodes.Const) else ""
        cut = isinstance(side, nodes.Getitem)
        return text if cut and isinstance(text, str) and len(text) == 1 and text.isalpha() else ""

    def tested(self, test: nodes.Test) -> str:
        other = test.args[0] if test.args else None
        if other is None or test.name not in _EQUALS:
            return ""
        if test.name == "in":
            return self.word(test.node) if self.speech(other) or self.whole(other) else self.listed(test.node, [other])
        return self.word(other) if self.speech(test.node) else self.word(test.node) if self.speech(other) else ""

    def listed(self, one: nodes.Node, words: list[nodes.Node]) -> str:
        items = [
            item for word in words for item in (word.items if isinstance(word, (nodes.List, nodes.Tuple)) else [word])
        ]
        return next((text for item in items if (text := self.word(item))), "") if self.speech(one) else ""

    def selected(self, test: nodes.Filter) -> str:
        """Words by which messages, or their words, are picked out."""
        key = test.args[0].value if test.args and isinstance(test.args[0], nodes.Const) else ""
        if test.name in ("selectattr", "rejectattr"):
            one = nodes.Getattr(test.node, key, "load") if key in ("content", "text") else None
            return self.listed(one, test.args[2:]) if one is not None else ""
        return self.listed(test.node, test.args[1:]) if test.node is not None and key in _EQUALS else ""

    def whole(self, node: nodes.Node) -> bool:
        """Is this all that somebody wrote or offered, turned into one text?"""
        named = isinstance(node, nodes.Filter) and isinstance(node.node, nodes.Name)
        return named and node.name in ("tojson", "string") and node.node.name in ("messages", "tools", "documents")

    def word(self, node: nodes.Node) -> str:
        """A constant that somebody might write, rather than markup."""
        _, given = self.given(node)
        for value in given or [node]:
            text = value.value if isinstance(value, nodes.Const) else ""
            if isinstance(text, str) and text not in self.keys and _WORD.fullmatch(text):
                return text
        return ""

    def speech(self, node: nodes.Node | None) -> bool:
        """Is this what somebody wrote: a message's content, whole, cut or changed?"""
        name, given = self.given(node) if node is not None else ("", [])
        if given:
            return self.speeches[name]
        if isinstance(node, nodes.Getattr):
            return node.attr in ("content", "text")
        if isinstance(node, nodes.Getitem):
            key = node.arg.value if isinstance(node.arg, nodes.Const) else None
            return key in ("content", "text") or (not isinstance(key, str) and self.speech(node.node))
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
            if node.node.attr in ("get", "pop"):
                return any(isinstance(arg, nodes.Const) and arg.value in ("content", "text") for arg in node.args)
            return self.speech(node.node.node)
        if isinstance(node, nodes.Filter) and node.name == "map":
            words = [word.value for word in node.kwargs if word.key == "attribute"]
            if any(isinstance(word, nodes.Const) and word.value in ("content", "text") for word in words):
                return True
        if isinstance(node, (nodes.Filter, nodes.Add, nodes.Concat)):
            return any(map(self.speech, node.iter_child_nodes()))
        return isinstance(node, nodes.Name) and node.name in ("content", "text", "prompt", "query")

    def said(self, value: nodes.Node | None) -> bool:
        """The same of what is given to a name. A loop over a content goes over its parts, whose properties are no
        words; a loop over what was split goes over words."""
        if id(value) in self.iterated:
            splits = isinstance(value, nodes.Call) and isinstance(value.node, nodes.Getattr)
            return splits and value.node.attr in ("split", "rsplit", "splitlines") and self.speech(value)
        return self.speech(value)

    def timed(self, test: nodes.Node) -> bool:
        """Does a comparison ask what the time is?"""
        compared = [test] if isinstance(test, nodes.Compare) else []
        return any(map(self.clock, [*compared, *test.find_all(nodes.Compare)]))

    def clock(self, node: nodes.Node | None) -> bool:
        name, given = self.given(node) if node is not None else ("", [])
        if given or node is None:
            return self.clocks.get(name, False)
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name):
            return node.node.name == "strftime_now"
        return any(map(self.clock, node.iter_child_nodes()))

    def letters(self, node: nodes.Node, own: dict[str, int]) -> int:
        """How many letters of its own, markup aside, the template writes here; ``own`` has those of each name."""
        parts = [node, *node.find_all((nodes.TemplateData, nodes.Const, nodes.Name))]
        return sum(own.get(part.name, 0) if isinstance(part, nodes.Name) else self.written(part) for part in parts)

    def written(self, node: nodes.Node | None) -> int:
        text = node.data if isinstance(node, nodes.TemplateData) else getattr(node, "value", "")
        return sum(map(str.isalpha, _MARKUP.sub("", text))) if isinstance(text, str) else 0


__all__ = ["MAX_TEXT", "compare", "judge", "recognises", "scan"]
