"""``make bench-sensitive``: what `freehold.sensitive` finds on labelled lines, and how fast.

The lines are made by `sensitive_lines.py` from a seed, in two halves. Compares with detect-secrets and
presidio-analyzer where they are installed beside it. Writes `sensitive-results.json` and docs/reference/sensitive.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import sensitive_fresh
import sensitive_lines as made

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "sensitive-results.json"
PAGE = ROOT / "docs" / "reference" / "sensitive.md"
SECRETS = {"private_key", "jwt", "api_key", "password", "secret"}
Finder = Callable[[str], Iterable[tuple[str, int, int]]]


def main() -> int:
    """Read the flags, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=20260511)
    parser.add_argument("--rounds", type=int, default=5, help="of each timing; the fastest counts")
    parser.add_argument("--first", action="store_true", help="keep these figures as those of the first look")
    parser.add_argument("--fresh", action="store_true", help="score the fresh lines alone, and keep all other figures")
    parser.add_argument("--show", choices=("development", "held_out"), help="print what is missed there, and stop")
    arguments = parser.parse_args()
    halves = {"development": made.DEVELOPMENT, "held_out": made.HELD_OUT}
    if arguments.fresh:
        return fresh(arguments.seed)
    if arguments.show:
        return show(list(made.lines(halves[arguments.show], arguments.seed)))
    lines = {name: list(made.lines(half, arguments.seed)) for name, half in halves.items()}
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    secrets = compare_secrets(_as_secrets(lines["held_out"]))
    scores = {name: score(ours, half) for name, half in lines.items()}
    result = {
        "date": datetime.date.today().isoformat(),
        "seed": arguments.seed,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in ("python-stdnum", "phonenumbers")},
        "lines": {name: len(half) for name, half in lines.items()},
        "empty": {name: sum(line.group == "none" for line in half) for name, half in lines.items()},
        "scores": scores,
        "first": scores["held_out"] if arguments.first else kept.get("first"),
        "others": {name: score(finder, lines["held_out"], kinds) for name, kinds, finder in others()},
        "fresh": kept.get("fresh"),
        "secrets": secrets,
        "first_secrets": secrets["Freehold"] if arguments.first else kept.get("first_secrets"),
        "speed": speed(arguments.rounds),
        "imports": imports(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(render(result))
    print(f"{PAGE.relative_to(ROOT)} is written.")
    return 0


def fresh(seed: int) -> int:
    """Score the lines that no rule was written for, and keep it beside what was measured before."""
    lines = list(made.lines(sensitive_fresh.FRESH, seed))
    result = json.loads(RESULT.read_text())
    empty = sum(line.group == "none" for line in lines)
    result["fresh"] = {
        "date": datetime.date.today().isoformat(), "lines": len(lines), "empty": empty, "scores": score(ours, lines),
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(render(result))
    print(f"{PAGE.relative_to(ROOT)} is written.")
    return 0


def ours(text: str) -> Iterator[tuple[str, int, int]]:
    """What Freehold finds."""
    from freehold.sensitive import find

    return ((hit.kind.value, hit.start, hit.end) for hit in find(text))


def score(finder: Finder, lines: Iterable[made.Line], kinds: set[str] | None = None) -> dict[str, dict[str, int]]:
    """For each kind: how many there are, were found (a hit of the kind overlaps) and found whole; hits on nothing."""
    told: dict[str, Counter] = {}
    for line in lines:
        hits = list(finder(line.text))
        for kind, start, end in line.marks:
            count = told.setdefault(kind, Counter())
            same = [hit for hit in hits if hit[0] == kind and hit[1] < end and start < hit[2]]
            count["there"] += 1
            count["found"] += bool(same)
            count["whole"] += any(hit[1] <= start and end <= hit[2] for hit in same)
        for kind, start, end in hits:
            if not any(mark[0] == kind and mark[1] < end and start < mark[2] for mark in line.marks):
                told.setdefault(kind, Counter())["wrong"] += 1
    names = ("there", "found", "whole", "wrong")
    return {
        kind: {name: count[name] for name in names} for kind, count in told.items() if kinds is None or kind in kinds
    }


def show(lines: Iterable[made.Line]) -> int:
    """Print each miss and each wrong hit."""
    for line in lines:
        hits = list(ours(line.text))
        for kind, start, end in line.marks:
            if not any(hit[0] == kind and hit[1] <= start and end <= hit[2] for hit in hits):
                print("missed", kind, repr(line.text[start:end]), "in", repr(line.text[:120]))
        for kind, start, end in hits:
            if not any(mark[0] == kind and mark[1] < end and start < mark[2] for mark in line.marks):
                print("wrong", kind, repr(line.text[start:end]), "in", repr(line.text[:120]))
    return 0


def others() -> Iterator[tuple[str, set[str], Finder]]:
    """The other tools that are installed here, with the kinds that they are asked for."""
    if find_spec("presidio_analyzer"):
        yield f"presidio-analyzer {version('presidio-analyzer')}", set(_PRESIDIO.values()), _presidio()


def compare_secrets(lines: list[made.Line]) -> dict[str, dict[str, int]]:
    """Secrets of all kinds together, ours and those of detect-secrets where it is installed."""
    finders = {"Freehold": _ours_as_secrets}
    if find_spec("detect_secrets"):
        finders[f"detect-secrets {version('detect-secrets')}"] = _detect_secrets()
    return {name: score(finder, lines, {"secret"})["secret"] for name, finder in finders.items()}


_PRESIDIO = {
    "CREDIT_CARD": "card", "IBAN_CODE": "iban", "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "ip_address",
}  # fmt: skip


def _presidio() -> Finder:
    """Its own recognizers for these kinds, as they are by default; without a language model, hence without context."""
    import tldextract
    from presidio_analyzer import predefined_recognizers as known

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())  # the list that it carries, none from a network
    recognizers = [
        known.CreditCardRecognizer(), known.IbanRecognizer(), known.EmailRecognizer(), known.PhoneRecognizer(),
        known.IpRecognizer(),
    ]  # fmt: skip

    def finder(text: str) -> Iterator[tuple[str, int, int]]:
        for recognizer in recognizers:
            for found in recognizer.analyze(text, recognizer.supported_entities, None) or ():
                if found.score > 0:
                    yield _PRESIDIO[found.entity_type], found.start, found.end

    return finder


def _detect_secrets() -> Finder:
    """Its scan of a text file with its default plugins and filters, nothing verified on a network. It is asked for
    secrets of any kind: see `_as_secrets`."""
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings, get_settings

    def finder(text: str) -> Iterator[tuple[str, int, int]]:
        with default_settings(), tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            get_settings().disable_filters("detect_secrets.filters.common.is_ignored_due_to_verification_policies")
            file.write(text)
            file.flush()
            values = {found.secret_value for found in scan_file(file.name)}
        for value in filter(None, values):
            for start in _everywhere(text, value):
                yield "secret", start, start + len(value)

    return finder


def _everywhere(text: str, value: str) -> Iterator[int]:
    start = text.find(value)
    while start >= 0:
        yield start
        start = text.find(value, start + len(value))


def _as_secrets(lines: Iterable[made.Line]) -> list[made.Line]:
    """The lines with every kind of secret called one: tools divide them differently."""
    return [
        made.Line(
            line.text,
            tuple((_one_name(kind), start, end) for kind, start, end in line.marks),
            line.group,
        )
        for line in lines
    ]


def _ours_as_secrets(text: str) -> Iterator[tuple[str, int, int]]:
    return ((_one_name(kind), start, end) for kind, start, end in ours(text))


def _one_name(kind: str) -> str:
    return "secret" if kind in SECRETS else kind


def speed(rounds: int) -> dict[str, float]:
    """Microseconds for 1,000 characters: of this project's documents and code in pieces of that size, and of such a
    piece with one of everything in it."""
    from freehold.sensitive import find

    files = {"documents": [*ROOT.glob("docs/**/*.md")], "code": [*ROOT.glob("src/**/*.py")][:60]}
    pieces = {name: list(_pieces(paths)) for name, paths in files.items()}
    pieces["one of everything"] = [_everything()] * 100
    taken = {}
    for name, texts in pieces.items():
        find(texts[0])
        times = []
        for _ in range(rounds):
            begun = time.process_time()
            for text in texts:
                find(text)
            times.append((time.process_time() - begun) / sum(map(len, texts)) * 1e9)
        taken[name] = min(times)
    return taken


def _pieces(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        text = path.read_text()
        yield from (text[start : start + 1000] for start in range(0, len(text) - 1000, 1000))


def _everything() -> str:
    first = {line.group: line.text for line in made.lines(made.DEVELOPMENT, 1, each=1, negatives=1)}
    text = "\n".join(first.values())
    return text + " and so on" * max(0, (1000 - len(text)) // 10)


def imports() -> dict[str, float]:
    """Milliseconds that a new interpreter takes longer, median of five."""
    codes = {
        "freehold.sensitive": "import freehold.sensitive",
        "with the libraries": "import freehold.sensitive as s; s.find('tel 0171 2345678 card 4111111111111111')",
    }
    bare = _start("import msgspec, json, base64, unicodedata")
    return {name: max(0.0, _start(code) - bare) * 1000 for name, code in codes.items()}


def _start(code: str) -> float:
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


HEAD = """# Secrets and personal data: how much is found

<!-- written by 'make bench-sensitive'; run it to have your own -->

Measured on {date} with `make bench-sensitive`, seed {seed}, Python {python}, python-stdnum {stdnum}, phonenumbers
{phonenumbers}. The lines are made by `benchmarks/sensitive_lines.py`: {held} held-out ones, {empty} of them with
nothing in them but what looks alike (order numbers, UUIDs, hashes, versions, ISBNs, timestamps, IBANs with wrong check
digits, placeholders). The rules were written with another {development} lines in sight; the held-out half has other
sentences, languages, names, issuers and countries.

*Found*: a hit of the right kind overlaps. *Whole*: it covers everything, so that a mask leaves nothing. *Precision*:
how many of the hits of a kind were on such a thing, over all lines. The first three columns are
the held-out half with the rules as they were when it was first looked at. What it showed was then mended, so the
figures after that are no longer blind, and say only that the mending worked. (One rule was mended before that look:
making the lines showed that a US Social Security number with spaces was never found.)

| kind | lines | found | whole | precision | mended: found | whole | precision | development: found | precision |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""
FRESH = """## Lines that no rule was written for

What the held-out half showed was mended. So there is a third set, `benchmarks/sensitive_fresh.py`, made when the rules
were finished: {lines} lines, {empty} of them with nothing in them but what looks alike, in other languages, with other
sentences, issuers and countries, longer and more like what is pasted into a prompt. It was scored once, on {date}, with
the rules as they are, and **no rule was changed for what it showed. These are the figures to go by.**

| kind | lines | found | whole | wrong hits | precision |
| --- | ---: | ---: | ---: | ---: | ---: |"""
NOTES = """
Numbers are made with check digits by the same rules that check them, so a wrong rule would not show here; the tests
have published sample numbers for that. All lines are ours, and shorter and plainer than life: read the figures as an
upper bound, and the order of the kinds as what they are good for.
"""
OTHERS = """## Others on the same held-out lines

presidio-analyzer is run without a language model, so without the context words that would raise or lower its scores;
every result above a score of 0 counts. By our labels reserved and private addresses (example.com, 10.0.0.1) are
nobody's, so it is wrong here to report them, which presidio does on purpose. detect-secrets scans each line as a text
file with its default plugins; it was made for source code and to name lines, so for some secrets it gives no more than
the beginning; it has other kinds than we do, so secrets of all kinds are taken together. Both were made for other texts
than these lines, and presidio's recognizers for persons and places have no counterpart here at all. Ours are the
figures of the first look.

| | kind | found | whole | wrong hits | ours: found | whole | wrong hits |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def render(result: dict) -> str:
    """The page."""
    held, dev = result["scores"]["held_out"], result["scores"]["development"]
    first = result["first"] or held
    head = HEAD.format(
        date=result["date"], seed=result["seed"], python=result["python"], held=result["lines"]["held_out"],
        empty=result["empty"]["held_out"], development=result["lines"]["development"],
        stdnum=result["libraries"]["python-stdnum"], phonenumbers=result["libraries"]["phonenumbers"],
    )  # fmt: skip
    rows = [
        _row(
            kind,
            count["there"],
            *_shares(first[kind]),
            *_shares(count),
            _share(dev[kind], "found"),
            _precision(dev[kind]),
        )
        for kind, count in held.items()
    ]
    parts = [head, *rows, NOTES, *_fresh(result)]
    if result["others"] or len(result["secrets"]) > 1:
        parts += [OTHERS, *_others(result), ""]
    return "\n".join([*parts, *_speed(result)]) + "\n"


def _fresh(result: dict) -> Iterator[str]:
    """The third set, where it was scored."""
    if found := result.get("fresh"):
        yield FRESH.format(lines=found["lines"], empty=found["empty"], date=found["date"])
        for kind, count in found["scores"].items():
            yield _row(kind, count["there"], *_counts(count), _precision(count))
        yield ""


def _others(result: dict) -> Iterator[str]:
    """Beside our first look, since the others were not mended either."""
    first = result["first"] or result["scores"]["held_out"]
    for name, told in result["others"].items():
        yield from (_row(name, kind, *_counts(count), *_counts(first[kind])) for kind, count in told.items())
    mine = result["first_secrets"] or result["secrets"]["Freehold"]
    for name, count in result["secrets"].items():
        if name != "Freehold":
            yield _row(name, "secrets of all kinds", *_counts(count), *_counts(mine))


def _counts(count: dict[str, int]) -> tuple[str, str, int]:
    return _share(count, "found"), _share(count, "whole"), count["wrong"]


def _speed(result: dict) -> Iterator[str]:
    yield "## Speed"
    yield ""
    yield "Processor time of `find` for 1,000 characters, the fastest of the rounds, on a machine with other work."
    yield "The time is linear in the length; a test holds that for hostile texts."
    yield ""
    yield "| text | microseconds |"
    yield "| --- | ---: |"
    yield from (_row(name, f"{taken:.0f}") for name, taken in result["speed"].items())
    yield ""
    yield "How much longer an interpreter takes to start with it; the gateway imports none of it when it starts."
    yield ""
    yield "| imported | milliseconds |"
    yield "| --- | ---: |"
    yield from (_row(name, f"{taken:.0f}") for name, taken in result["imports"].items())


def _shares(count: dict[str, int]) -> tuple[str, str, str]:
    return _share(count, "found"), _share(count, "whole"), _precision(count)


def _share(count: dict[str, int], name: str) -> str:
    return f"{100 * count[name] / count['there']:.1f}%" if count["there"] else ""


def _precision(count: dict[str, int]) -> str:
    hits = count["found"] + count["wrong"]
    return f"{100 * count['found'] / hits:.1f}%" if hits else ""


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
