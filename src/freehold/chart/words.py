"""The words in a picture: untrusted names made harmless and cut to fit, and numbers as a person writes them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import msgspec

from freehold.types.traffic import Verdict

AGREEMENT = "the incumbent's answers"  # `Verdict.against` where nobody knows the right answers
_LONGEST = 1000  # characters
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, bidi marks, surrogates, unassigned, line ends


def clean(text: str) -> str:
    """``text`` without what could move a cursor, turn the direction of reading or break a document; cut at a length at
    which nobody reads on."""
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return "".join(_UNKNOWN if unicodedata.category(letter) in _HIDDEN else letter for letter in shown)


def cells(text: str) -> int:
    """How many columns of a terminal ``text`` takes: none for a combining mark, two for a wide letter."""
    return sum(_cells(letter) for letter in text)


def _cells(letter: str) -> int:
    if letter.isascii():
        return 1
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text: str, room: int, more: str = "…") -> str:
    """``text`` in at most ``room`` columns; where it is cut, ``more`` says so."""
    if cells(text) <= room:
        return text
    kept, used = [], cells(more)
    for letter in text:
        used += _cells(letter)
        if used > room:
            break
        kept.append(letter)
    return ("".join(kept) + more)[: max(room, 0)]


def signed(value: float, digits: int = 1, minus: str = "−") -> str:
    """A number with its sign; what rounds to zero has none."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else minus) + text


def plain_points(share: float) -> str:
    """A share as points without a sign or a needless decimal: 0.03 is ``3``."""
    return f"{share * 100:.2f}".rstrip("0").rstrip(".")


def interval(verdict: Verdict, minus: str = "−") -> str:
    """The estimate and its two bounds, in points: ``-0.8 (-2.9 to +1.3)``."""
    estimate = verdict.estimate
    if estimate is None:
        return "no interval"
    values = [100 * share for share in (estimate.difference, estimate.lower, estimate.upper)]
    digits = _digits(values, -100 * verdict.margin)
    difference, lower, upper = (signed(value, digits, minus) for value in values)
    return f"{difference} ({lower} to {upper})"


def _digits(values: Sequence[float], margin: float) -> int:
    """Decimals that tell the bounds apart, and each from the margin where it is not the margin."""
    _, lower, upper = values
    for digits in (1, 2, 3):
        near = [end for end in (lower, upper) if end != margin and math.isfinite(end)]
        if upper - lower >= 2 / 10**digits and all(round(end, digits) != round(margin, digits) for end in near):
            return digits
    return 3


def amount(count: int, noun: str) -> str:
    """A number with its noun: ``1 call``, ``1,309 calls``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def heading(verdicts: Sequence[Verdict]) -> str:
    """Which tasks the picture is about, and what was compared."""
    tasks = ", ".join(dict.fromkeys(clean(verdict.task) for verdict in verdicts)) or "nothing"
    return f"{tasks}: {subject(verdicts)}"


def subject(verdicts: Sequence[Verdict]) -> str:
    """What was compared. Agreement is never called anything else."""
    return "agreement with the incumbent" if agreement(verdicts) else "candidate minus incumbent"


def agreement(verdicts: Sequence[Verdict]) -> bool:
    """Whether agreement is all that could be measured of one of them."""
    return any(verdict.against == AGREEMENT for verdict in verdicts)


def sound(verdict: Verdict) -> Verdict:
    """The same verdict; without its estimate where that holds what is no number, since it can be drawn nowhere."""
    estimate = verdict.estimate
    if estimate is None or not any(map(math.isnan, (estimate.difference, estimate.lower, estimate.upper))):
        return verdict
    return msgspec.structs.replace(verdict, estimate=None)


def bounds(verdicts: Sequence[Verdict]) -> str:
    """How sure each end of an interval is, or '' where there is none."""
    alphas = sorted({verdict.estimate.alpha for verdict in verdicts if verdict.estimate})
    confidences = " or ".join(f"{(1 - alpha) * 100:.4g}%" for alpha in alphas)
    return f"each bound one-sided at {confidences}" if alphas else ""
