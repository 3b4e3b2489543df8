"""A licence text as words: what two copies of one licence have in common, however they were typed.

In the spirit of the SPDX licence list matching guidelines (annex B of the SPDX specification): case, quotes, dashes,
bullets, list numbers, line ends, comment marks, markup and the spelling of a few words make no difference. Text is cut
into *pieces* (a sentence, or up to 40 words of a long one), and a piece is known by a truncated SHA-256 of its words.
"""

from __future__ import annotations

import html
import re
import unicodedata
from base64 import b64decode, b64encode
from hashlib import sha256

from msgspec import Struct

LIMIT = 256 * 1024  # characters that are read of one text
SHORTEST, LONGEST, STRIDE = 4, 40, 24  # words of a piece; where a sentence is longer, how many go into each
START = 3  # words by which the place of a piece is looked up
_PACKED = 14  # bytes of a piece in the table

_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_TAG = re.compile(r"</?(?:p|br|b|i|em|strong|div|span|h[1-6]|[uo]l|li|a|code|pre|blockquote)\b[^<>]{0,200}>", re.I)
_NUMBER = re.compile(r"(?<![\w.()])\(?(?:\d{1,2}(?:\.\d{1,2}){0,3}|[A-Za-z]|[ivxIVX]{1,4})[.)](?=\s|$)")
_WORD = re.compile(r"[^\W_]+(?:[-\u2010\u2011'\u2019][^\W_]+)*")
_STOP = re.compile(r"[.;!?\"')\]\u201d\u3002]{0,4}")
_JOINT = re.compile(r"[-\u2010\u2011'\u2019]")
_MARK = re.compile(r"<<(optional|required|gap (\d+))>>")
_END = re.compile(r"[.;:!?](?=[\s\"'\u2019\u201d)*]|$)|\n[ \t]*\n|\n[ \t]*(?=[-*\u2022] )")

# One spelling for each word, whichever the copy has.
_SAME = {
    "licence": "license", "licences": "licenses", "licenced": "licensed", "sublicence": "sublicense",
    "organisation": "organization", "authorised": "authorized", "authorisation": "authorization",
    "merchantibility": "merchantability", "acknowledgement": "acknowledgment", "fulfil": "fulfill",
    "favour": "favor", "behaviour": "behavior", "https": "http", "wilful": "willful",
}  # fmt: skip


class Piece(Struct, frozen=True):
    """Up to 40 words of a licence: where to look for them, how many, and their hash.

    ``optional`` pieces (headings, how to apply the licence) may be left out of a copy, and so may those of fewer than
    four words; after a piece with a ``gap`` a copy may have up to so many words of its own (a name, where the licence
    has a blank).
    """

    start: bytes  # 4 bytes, of the first three words
    digest: bytes  # 8 bytes, of all
    length: int
    optional: bool = False
    gap: int = 0


class Text(Struct, frozen=True):
    """A text with its words: ``words[i]`` stands at ``spans[i]`` of ``text``."""

    text: str
    words: list[str]
    spans: list[tuple[int, int]]

    def between(self, first: int, last: int) -> str:
        """The text of the words from ``first`` up to but not including ``last``, as it was written, with its stop."""
        stop = _STOP.match(self.text, self.spans[last - 1][1])
        return self.text[self.spans[first][0] : stop.end() if stop else self.spans[last - 1][1]]


def read(text: str) -> Text:
    """The words of a text, at most its first 256 Ki characters."""
    clean = _UNSEEN.sub("", text[:LIMIT]).replace("\r\n", "\n").replace("\r", "\n")
    clean = _TAG.sub(" ", html.unescape(clean))
    marked = _NUMBER.sub(lambda found: " " * len(found[0]), clean)
    found = list(_WORD.finditer(marked))
    return Text(clean, [_word(item[0]) for item in found], [item.span() for item in found])


def digest(words: list[str]) -> bytes:
    """8 bytes that stand for these words in this order."""
    return sha256(" ".join(words).encode("utf-8", "surrogatepass")).digest()[:8]


def start(words: list[str]) -> bytes:
    """4 bytes that stand for the first words of a piece."""
    return digest(words[:START])[:4]


def pieces(text: str) -> list[Piece]:
    """A licence's text as pieces. ``<<optional>>``, ``<<required>>`` and ``<<gap 12>>`` in it mark what may differ."""
    made: list[Piece] = []
    optional, at = False, 0
    for mark in [*_MARK.finditer(text), None]:
        made += _stretch(text[at : mark.start() if mark else len(text)], optional, int((mark and mark[2]) or 0))
        if mark:
            at, optional = mark.end(), optional if mark[2] else mark[1] == "optional"
    return made


def pack(made: list[Piece]) -> str:
    """The pieces as one string for the table: 14 bytes each, in base 64."""
    return b64encode(
        b"".join(p.start + bytes([p.length, p.optional | p.gap << 1]) + p.digest for p in dict.fromkeys(made))
    ).decode()


def unpack(packed: str) -> list[Piece]:
    """`pack`, undone."""
    data = b64decode(packed)
    rows = (data[at : at + _PACKED] for at in range(0, len(data), _PACKED))
    return [Piece(row[:4], row[6:], row[4], bool(row[5] & 1), row[5] >> 1) for row in rows]


def _word(word: str) -> str:
    plain = _JOINT.sub("", word if word.isascii() else unicodedata.normalize("NFKC", word)).casefold()
    return _SAME.get(plain, plain)


def _stretch(text: str, optional: bool, gap: int) -> list[Piece]:
    """Pieces of a stretch between two marks; the gap follows its last."""
    made: list[Piece] = []
    for sentence, stopped in _sentences(text):
        words = read(sentence).words
        free = optional or (not stopped and not gap and len(words) <= 10)
        made += [Piece(start(cut), digest(cut), len(cut), free or len(cut) < SHORTEST) for cut in _cuts(words) if cut]
    if gap and made:
        last = made[-1]
        made[-1] = Piece(last.start, last.digest, last.length, last.optional, gap)
    return made


def _sentences(text: str) -> list[tuple[str, bool]]:
    """Each sentence, and whether it ended in punctuation."""
    text = _NUMBER.sub(lambda found: " " * len(found[0]), text)  # or '1.' would be a sentence
    made, at = [], 0
    for end in _END.finditer(text):
        made.append((text[at : end.end()], not end[0].isspace()))
        at = end.end()
    return [*made, (text[at:], False)]


def _cuts(words: list[str]) -> list[list[str]]:
    cuts = []
    while len(words) > LONGEST:
        cuts.append(words[:STRIDE])
        words = words[STRIDE:]
    return [*cuts, words]
