"""Which licence is this text? Told by the hashes of its sentences, so that what was added to them stands out.

A short licence and a changed copy of it differ in one sentence, and that sentence is what matters. So a text is a
licence only if every sentence of the licence is there and nothing of weight is added; otherwise it is a changed one,
and the additions are handed back as they were written.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

from msgspec import Struct

from freehold.licence import words
from freehold.licence.known import KNOWN, named, strictest
from freehold.licence.words import Piece, Text
from freehold.types import LicenceClass

CLOSE = 0.6  # of a licence's words: from here on a text is a changed copy of it
IDLE_RUN, IDLE_ALL = 8, 40  # words beside the licence that weigh nothing: in one place, and together
MAX_ADDED, MAX_SENTENCE = 20, 400  # sentences handed back, and characters of each
MAX_PARTS = 16  # licences looked for in one file
REFERENCE = 200  # words: a longer text of its own is more than a reference to a licence

_COPYRIGHT = re.compile(r"^\W*(?:portions\s+)?(?:copyright\b|\(c\)|©|all rights reserved\b).{0,300}$", re.I)
_DUTY = re.compile(  # words by which a text binds its reader; a name or a heading has none of them
    r"\b(?:must|shall|may(?! \d)|can|cannot|not|never|no|non-?\s?commercial\w*|only|without|unless|except|provided|"
    r"require[sd]?|prohibit\w*|forbid\w*|restrict\w*|subject|agree[sd]?|permi\w+|fees?|pay\w*|sell|sold|"
    r"us(?:e|es|ed|ing)|purposes?)\b",
    re.I,
)
_DUES = re.compile(  # what a title or a copyright line has no cause to speak of
    r"\b(?:royalt\w*|owe[sd]?|revenue|profits?|percent|donat\w*|military|weapon\w*|ethic\w*|expires?|until|consent|"
    r"approval|agreement|terms?|conditions?|policy|addendum|clause|amend\w*|exceptions?)\b|%",
    re.I,
)
_TOPIC = re.compile(r"\b(?:commercial\w*|research|academic|educational|personal|evaluation|military|limited)\b", re.I)
_FOREIGN = re.compile(r"[^\W\d_a-zA-Z\u00aa-\u024f\u1e00-\u1eff]")  # a letter that is not a Latin one
_AND = r"\s*(?:and/or|and|or|/|,)\s*(?:for\s+)?"
_BOTH = re.compile(  # 'commercial or non-commercial', either way round, allows both
    rf"\bcommercial(?:ly)?{_AND}non-?\s?commercial\w*|\bnon-?\s?commercial\w*{_AND}commercial\w*", re.I
)
_NO_TRADE = re.compile(
    r"\bnon[-\s]?commercial|\bnot\b[^.]{0,80}\b(?:commercial|sell\b|sold\b|profit)|\bno\s+commercial|"
    r"\bcommercial\w*\b[^.]{0,80}\b(?:prohibited|forbidden|not\b|requires?\b|separate|contact|strictly|without)|"
    r"\b(?:prohibit|forbid|exclud)\w*\b[^.]{0,80}\bcommercial|\bwithout\b[^.]{0,80}\bcommercial|"
    r"\b(?:research|academic|educational|personal|evaluation|study)\b[^.]{0,40}\bonly\b|"
    r"\bonly\b[^.]{0,60}\b(?:research|academic|educational|personal|evaluation)\b|\bnot[- ]for[- ]profit\b|\bnc\b|"
    r"非商|不得.{0,12}商|禁止.{0,12}商|仅.{0,6}(?:研究|学术)",
    re.I,
)
_TERMS = re.compile(
    r"\b(?:monthly active users|annual revenue|separate (?:commercial )?licen[cs]e|compet(?:e|es|ing|itors?))\b", re.I
)
_RESTRAINT = re.compile(
    r"\b(?:not|never)\b[^.]{0,60}\b(?:use|used|using|deploy\w*|distribut\w*)\b|\b(?:prohibited|forbidden|restricted|"
    r"use policy|use restrictions?|commons clause|military|weapons?|surveillance|agree not|only)\b|禁止|不得",
    re.I,
)
_LETTER = re.compile(r"[^\W\d_]")
_BUT = re.compile(r"\b(?:except|excluding|unless|provided that|other than|however|different|superse\w+)\b", re.I)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n*]{1,200})", re.I)
_SENTENCE = re.compile(r"(?<=[.;!?。；])\s+|\n[ \t]*\n")


class Identified(Struct, frozen=True):
    """Which licence a text is.

    ``match`` is ``exact`` (every sentence is there, nothing of weight is added), ``modified``, ``reference`` (the text
    only names a licence) or ``unknown``. ``id`` is the licence, several of one file joined with `` AND ``, and empty
    where the text is changed or unknown; ``like`` names the licences that it resembles or names. ``share`` is how much
    of them is there, 0 to 1, by words; ``added`` what they do not have, verbatim, at most 20 sentences.
    """

    id: str
    match: str
    kind: LicenceClass
    like: tuple[str, ...] = ()
    share: float = 0.0
    added: tuple[str, ...] = ()

    def says(self) -> str:
        """In a few words, what the text is."""
        if self.id:
            return self.id if self.match == "exact" else f"names {self.id}"
        if not self.like:
            return "a text that is no known licence"
        what = " AND ".join(self.like)
        return f"{what}, changed: {self.added[0]}" if self.added else f"{what}, with {1 - self.share:.0%} of it missing"


class _Wording(Struct, frozen=True):
    """One wording of a licence that is going about."""

    id: str
    pieces: dict[bytes, Piece]
    weight: int  # words that have to be there


class _Choice(Struct, frozen=True):
    wording: _Wording
    share: float
    new: int


def identify(text: str) -> Identified:
    """Which licence this text is. Reads at most the first 256 Ki characters, in time in proportion to them."""
    read = words.read(text)
    found = _find(read)
    covered = bytearray(len(read.words))
    chosen = _choose(found, covered)
    if not chosen:
        return _reference(read, found, covered)
    rest = _left(read, covered, [choice.wording for choice in chosen], found)
    if len(text) > words.LIMIT:
        rest.append("The text goes on beyond what is read of a licence.")
    return _judged(chosen, rest)


def references(text: str) -> tuple[str, ...]:
    """The licences that a text names (a header, a notice, an SPDX line), in the order of their ids."""
    text = text[: words.LIMIT]
    tags = {id for tag in _SPDX.findall(text) for id in expression(tag)[0]}
    return tuple(sorted(tags | _named_in(text)))


def expression(tag: str) -> tuple[tuple[str, ...], bool]:
    """The licences of an SPDX expression (or of a plain tag), and whether its user may choose among them."""
    parts = re.split(r"\s+(OR|AND)\s+", re.sub(r"\s+WITH\s+\S+|[()]", " ", tag[:300]).strip(), maxsplit=8)
    ids = tuple(dict.fromkeys(named(part) for part in parts[::2]))
    return (ids, "OR" in parts[1::2] and "AND" not in parts[1::2]) if all(ids) else ((), False)


def restraint(text: str) -> LicenceClass | None:
    """The class that a sentence outside any licence speaks of, or None."""
    text = _BOTH.sub(" ", " ".join(text.split()))
    if _NO_TRADE.search(text):
        return LicenceClass.NON_COMMERCIAL
    if _RESTRAINT.search(text):
        return LicenceClass.USE_RESTRICTED
    return LicenceClass.SOURCE_AVAILABLE if _TERMS.search(text) else None


@cache
def table() -> tuple[_Wording, ...]:
    """Every wording whose sentences are known."""
    rows = json.loads(files("freehold.licence").joinpath("licences.json").read_text())
    return tuple(_wording(name.partition("@")[0], packed) for name, packed in rows.items())


def _wording(id: str, packed: str) -> _Wording:
    pieces = {piece.digest: piece for piece in words.unpack(packed)}
    return _Wording(id, pieces, sum(piece.length for piece in pieces.values() if not piece.optional))


@cache
def _starts() -> dict[bytes, dict[int, set[bytes]]]:
    """Where to look: the first words of a piece -> its length -> its hash."""
    made: dict[bytes, dict[int, set[bytes]]] = {}
    for wording in table():
        for piece in wording.pieces.values():
            if piece.length >= words.SHORTEST:
                made.setdefault(piece.start, {}).setdefault(piece.length, set()).add(piece.digest)
    return made


def _find(read: Text) -> dict[bytes, list[tuple[int, int]]]:
    """Every known piece in the text: hash -> the words that it spans, each time that it is there."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    starts, all_words = _starts(), read.words
    for at in range(len(all_words) - words.SHORTEST + 1):
        lengths = starts.get(words.start(all_words[at : at + words.START]))
        for length, digests in (lengths or {}).items():
            digest = words.digest(all_words[at : at + length])
            if digest in digests:
                found.setdefault(digest, []).append((at, at + length))
    return found


def _choose(found: dict[bytes, list[tuple[int, int]]], covered: bytearray) -> list[_Choice]:
    """The licences that explain most of the text, one after another; ``covered`` marks the words that they explain."""
    chosen: list[_Choice] = []
    for _ in range(MAX_PARTS):
        best = max((_weigh(wording, found, covered) for wording in table()), key=_score)
        enough = best.new if best.share == 1 else best.new - best.wording.weight / 2
        if best.share < CLOSE or enough <= 0:
            break
        chosen.append(best)
        for first, last in _spans(best.wording, found):
            covered[first:last] = b"\1" * (last - first)
    return chosen


def _weigh(wording: _Wording, found: dict[bytes, list[tuple[int, int]]], covered: bytearray) -> _Choice:
    here = [piece for digest, piece in wording.pieces.items() if digest in found]
    share = sum(piece.length for piece in here if not piece.optional) / max(1, wording.weight)
    if share < CLOSE:
        return _Choice(wording, share, 0)
    first_ones = (found[piece.digest][0] for piece in here)
    return _Choice(wording, share, sum((last - first) - sum(covered[first:last]) for first, last in first_ones))


def _score(choice: _Choice) -> tuple[float, float]:
    return choice.new - 2 * (1 - choice.share) * choice.wording.weight if choice.new else -1e9, choice.share


def _spans(wording: _Wording, found: dict[bytes, list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [span for digest in wording.pieces for span in found.get(digest, ())]


def _gaps(pieces: list[Piece], found: dict[bytes, list[tuple[int, int]]]) -> dict[int, int]:
    """Where a blank of a licence begins -> how many words may fill it."""
    return {last: piece.gap for piece in pieces if piece.gap for _, last in found.get(piece.digest, ())}


def _tiled(run: list[str], headings: set[bytes]) -> bool:
    """Is a short run of words nothing but headings?"""
    ends = {0}
    for last in range(1, len(run) + 1):
        ends |= {last for n in (1, 2, 3) if last - n in ends and words.digest(run[last - n : last]) in headings}
    return len(run) in ends


def _left(
    read: Text, covered: bytearray, wordings: list[_Wording], found: dict[bytes, list[tuple[int, int]]]
) -> list[str]:
    """What of the text these licences do not explain and what weighs something."""
    ids = {wording.id for wording in wordings}
    pieces = [piece for wording in wordings for piece in wording.pieces.values()]
    headings = {piece.digest for piece in pieces if piece.length < words.SHORTEST}
    gaps = _gaps(pieces, found)
    weighty: list[str] = []
    idle: list[str] = []
    for first, last in _runs(covered):
        text = _bare(read.between(first, last), ids)
        if not text or (last - first <= IDLE_ALL and _tiled(read.words[first:last], headings)):
            continue
        if not _binding(text) and last - first <= gaps.get(first, 0):
            continue
        light = _mild(text) and not _binding(text) and not _TOPIC.search(text) and len(text.split()) <= IDLE_RUN
        (idle if light else weighty).append(text)
    return weighty if sum(len(text.split()) for text in idle) <= IDLE_ALL else [*weighty, *idle]


def _binding(text: str) -> bool:
    """Might this bind its reader? A name or a heading does not; nor can what is in another alphabet be told."""
    return bool(_DUTY.search(text) or _FOREIGN.search(text))


def _runs(covered: bytearray) -> list[tuple[int, int]]:
    return [found.span() for found in re.finditer(b"\0+", covered)]


def _mild(text: str) -> bool:
    return not _DUTY.search(text) and not _DUES.search(text)


def _bare(text: str, ids: set[str]) -> str:
    """The text without what only says whose it is, or that it is under the licence that it is under."""
    lines = [line for line in text.splitlines() if not (_COPYRIGHT.match(line) and _mild(line))]
    lines = [line for line in lines if named(line.strip(" #*=-\t")) not in ids]
    kept = [part for part in _SENTENCE.split("\n".join(lines)) if not (_names(part, ids) and not _binding(part))]
    return "\n\n".join(part for part in kept if part and _LETTER.search(part)).strip()


def _names(sentence: str, ids: set[str]) -> bool:
    return len(sentence) <= MAX_SENTENCE and bool(_named_in(sentence) & ids)


def _judged(chosen: list[_Choice], rest: list[str]) -> Identified:
    ids = tuple(dict.fromkeys(choice.wording.id for choice in chosen))
    share = min(choice.share for choice in chosen)
    base = strictest([KNOWN[id].kind for id in ids])
    if share == 1 and not rest:
        return Identified(" AND ".join(ids), "exact", base, ids, 1.0)
    added = _sentences(rest)
    spoken = [kind for kind in map(restraint, rest) if kind]
    plain = [base] if base is not LicenceClass.OPEN else [] if spoken else [LicenceClass.UNKNOWN]
    return Identified("", "modified", strictest([*plain, *spoken]), ids, share, added)


def _reference(read: Text, found: dict[bytes, list[tuple[int, int]]], covered: bytearray) -> Identified:
    """What a text that holds no licence says: it may name one."""
    ids = references(read.text) if len(read.words) <= REFERENCE else ()
    wordings = [wording for wording in table() if wording.id in ids]
    for wording in wordings:  # the notice by which a licence is applied is a part of its own text
        for first, last in _spans(wording, found):
            covered[first:last] = b"\1" * (last - first)
    rest = _sentences(_left(read, covered, wordings, found))
    spoken = {sentence: kind for sentence in rest if (kind := restraint(_unnamed(sentence)))}
    if not ids:
        trade = [kind for kind in spoken.values() if kind is LicenceClass.NON_COMMERCIAL]
        return Identified("", "unknown", strictest(trade), added=tuple(spoken) or rest[:1])
    base = strictest([KNOWN[id].kind for id in ids])
    if base is LicenceClass.OPEN and not spoken and (but := tuple(part for part in rest if _BUT.search(part))):
        return Identified("", "reference", LicenceClass.UNKNOWN, ids, added=but)
    if not spoken or base is not LicenceClass.OPEN:
        return Identified(" AND ".join(ids), "reference", strictest([base, *spoken.values()]), ids)
    return Identified("", "reference", strictest(list(spoken.values())), ids, added=tuple(spoken))


def _sentences(rest: list[str]) -> tuple[str, ...]:
    """At most 20 sentences of 400 characters; those that restrain come first."""
    cut = [" ".join(part.split())[:MAX_SENTENCE] for text in rest for part in _SENTENCE.split(text)]
    cut = [part for part in cut if part]
    return tuple(sorted(cut, key=lambda part: restraint(part) is None)[:MAX_ADDED])


LLAMAS = ("2", "3", "3.1", "3.2", "3.3", "4")

# How licences are named in running text. Where two names fit, both are told.
_RUNNING = [
    (re.compile(pattern, re.I), id)
    for pattern, id in (
        (r"apache(?: software)?(?: licen[cs]e)?,? ?(?:v|ver\.?|version)? ?2(?:\.0)?\b", "Apache-2.0"),
        (r"\b(?<!modified )mit[- ]licen[cs]e", "MIT"),
        (r"\bmodified mit[- ]licen[cs]e", "kimi-k2"),
        (r"\b(?:3-clause|new|modified|revised) bsd\b|\bbsd[- ](?:3|three)[- ]clause", "BSD-3-Clause"),
        (r"\b(?:2-clause|simplified) bsd\b|\bbsd[- ](?:2|two)[- ]clause", "BSD-2-Clause"),
        (r"\bgnu affero general public licen[cs]e|\bagpl-?v?3", "AGPL-3.0"),
        (r"\bgnu general public licen[cs]e[^.]{0,30}version 2|\bgpl-?v?2", "GPL-2.0"),
        (r"\bgnu general public licen[cs]e[^.]{0,30}version 3|\b(?<!a)(?<!l)gpl-?v?3", "GPL-3.0"),
        (r"\bmozilla public licen[cs]e|\bmpl[- ]?2", "MPL-2.0"),
        (r"creativecommons\.org/publicdomain/zero|\bcc0\b", "CC0-1.0"),
        (r"creativecommons\.org/licenses/by/4|\bcc[- ]by[- ]4\.0", "CC-BY-4.0"),
        (r"creativecommons\.org/licenses/by-sa/4|\bcc[- ]by[- ]sa[- ]4\.0", "CC-BY-SA-4.0"),
        (r"creativecommons\.org/licenses/by-nc/4|\bcc[- ]by[- ]nc[- ]4\.0", "CC-BY-NC-4.0"),
        (r"creativecommons\.org/licenses/by-nc-sa/4|\bcc[- ]by[- ]nc[- ]sa[- ]4\.0", "CC-BY-NC-SA-4.0"),
        (r"creativecommons\.org/licenses/by-nc-nd/4|\bcc[- ]by[- ]nc[- ]nd[- ]4\.0", "CC-BY-NC-ND-4.0"),
        (r"\bopenmdw\b", "OpenMDW-1.0"),
        *((rf"\bllama[- ]?{re.escape(v)} (?:version )?community licen[cs]e", f"llama{v}") for v in LLAMAS),
        (r"\bgemma terms of use|\bai\.google\.dev/gemma/terms", "gemma"),
        (r"\bbigscience[ -]?(?:open)?rail|\bbigscience openrail-m", "bigscience-openrail-m"),
        (r"\bcreativeml open ?rail-m", "creativeml-openrail-m"),
        (r"\bbigcode open ?rail", "bigcode-openrail-m"),
        (r"\bdeepseek (?:model )?licen[cs]e", "deepseek"),
        (r"\btongyi qianwen research licen[cs]e", "tongyi-qianwen-research"),
        (r"\btongyi qianwen licen[cs]e", "tongyi-qianwen"),
        (r"\bqwen research licen[cs]e", "qwen-research"),
        (r"\bqwen licen[cs]e", "qwen"),
        (r"\bnvidia open model licen[cs]e", "nvidia-open-model-license"),
        (r"\bfalcon[- ]180b tii licen[cs]e", "falcon-180b"),
        (r"\bmistral ai research licen[cs]e", "mrl"),
        (r"\bmistral ai non-production licen[cs]e", "mnpl"),
    )
]  # fmt: skip


def _named_in(text: str) -> set[str]:
    flat = " ".join(text.split())
    return {id for pattern, id in _RUNNING if pattern.search(flat)} | ({named(flat)} - {""})


def _unnamed(sentence: str) -> str:
    """The sentence without the names of licences, whose words are no restraint of their own."""
    for pattern, _ in _RUNNING:
        sentence = pattern.sub(" ", sentence)
    return sentence
