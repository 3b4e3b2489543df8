"""Pictures in characters: the verdicts as a forest plot, and bars for what traffic is made of.

No line is wider than ``width``. Colour only repeats what words and shapes say. With ``plain``, for a terminal that does
not speak UTF-8 (`needs_plain`), nothing but ASCII is written.
"""

from __future__ import annotations

import codecs
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct

from freehold.chart import words
from freehold.chart.scale import Scale, nice, scale
from freehold.types.traffic import Outlook, Verdict

NARROWEST = 40  # columns; a narrower terminal gets lines of this width
_COLOURS = {Outlook.NON_INFERIOR: "32", Outlook.INFERIOR: "31", Outlook.UNDECIDED: "33"}
_FILLS = ("36", "34", "35", "33", "32", "31")


class _Pen(Struct, frozen=True):
    """The characters that pictures are drawn with."""

    point: str = "●"
    line: str = "─"
    ends: str = "├┤"
    cut: str = "◀▶"
    zero: str = "│"
    margin: str = "┊"
    axis: str = "─┴"
    more: str = "…"
    minus: str = "−"
    full: str = "█"
    parts: str = "▏▎▍▌▋▊▉"
    fills: str = "█▒░▓▚▞"
    to: str = "–"


_PLAIN = _Pen("o", "-", "||", "<>", "|", ":", "-+", "..", "-", "#", "", "#=.+%*", "-")


def needs_plain(encoding: str | None) -> bool:
    """Whether a terminal of this encoding needs ``plain``."""
    try:
        return codecs.lookup(encoding or "ascii").name != "utf-8"
    except LookupError:
        return True


def verdicts(verdicts: Sequence[Verdict], width: int = 80, colour: bool = False, plain: bool = False) -> str:
    """One candidate on two lines: its interval against zero and the margin, its outcome, and the numbers.

    An arrow at an end says that the interval goes on beyond the axis.
    """
    if not verdicts:
        return "No verdicts.\n"
    verdicts = [words.sound(verdict) for verdict in verdicts]
    return _Forest(verdicts, max(width, NARROWEST), colour, _PLAIN if plain else _Pen()).draw()


class _Forest:
    """The plot while it is drawn: labels, a gap, the picture, a gap, outcomes."""

    def __init__(self, verdicts: Sequence[Verdict], width: int, colour: bool, pen: _Pen):
        self.verdicts, self.width, self.colour, self.pen = verdicts, width, colour, pen
        self.outcomes = max(len(verdict.outcome.value) for verdict in verdicts)
        names = [words.cells(_ascii(words.clean(verdict.candidate.name), pen)) for verdict in verdicts]
        numbers = [len(words.interval(verdict, pen.minus)) for verdict in verdicts]
        room = width - self.outcomes - 4
        self.labels = min(max(*names, *numbers, 12), max(width // 3, min(max(numbers), room - 16)))
        self.plot = room - self.labels
        self.scale: Scale = scale(verdicts, max(3, self.plot // 8))
        self.zero = self.at(0.0)

    def draw(self) -> str:
        """All lines."""
        rows = [line for verdict in self.verdicts for line in self.row(verdict)]
        return "\n".join(line.rstrip() for line in [*self.title(), *rows, *self.axis()]) + "\n"

    def at(self, points: float) -> int:
        """The column of the picture in which a number of points lies."""
        return round(self.scale.share(points) * (self.plot - 1))

    def title(self) -> list[str]:
        """What is drawn, then the margin's label above its line."""
        said = [_ascii(words.heading(self.verdicts), self.pen), "in points", words.bounds(self.verdicts)]
        lines = _wrap(", ".join(part for part in said if part), self.width, self.pen)
        margins = {verdict.margin for verdict in self.verdicts}
        label = f"margin {words.plain_points(margins.pop())}" if len(margins) == 1 else "margins"
        start = max(self.at(-max(verdict.margin for verdict in self.verdicts) * 100) - len(label) // 2, 0)
        above = list(" " * self.plot)
        if self.zero > start + len(label):
            above[self.zero] = "0"
        above[start : start + len(label)] = label
        return [*lines, "", " " * (self.labels + 2) + "".join(above)[: self.plot]]

    def row(self, verdict: Verdict) -> list[str]:
        """The name, the interval and the outcome; below them the numbers."""
        pen, number = self.pen, words.interval(verdict, self.pen.minus)
        name = words.fit(_ascii(words.clean(verdict.candidate.name), pen), self.labels, pen.more)
        sizes = f"{words.amount(verdict.calls, 'call')}, {words.amount(verdict.groups, 'group')}"
        first = self.paint("1", name) + " " * (self.labels - words.cells(name))
        second = words.fit(number, self.labels, pen.more).ljust(self.labels)
        room = self.outcomes + (self.plot if len(sizes) > self.outcomes else 0)
        below = "".join(self.ground(verdict))
        if len(sizes) <= self.outcomes:
            tail = f"{below}  {sizes}"
        else:
            keep = self.plot + self.outcomes + 2 - len(sizes)
            tail = f"{below[: max(keep - 2, 0)]}{'  ' if keep >= 2 else ''}{words.fit(sizes, room, pen.more)}"
        word = self.paint(_COLOURS[verdict.outcome], verdict.outcome.value)
        return [f"{first}  {self.picture(verdict)}  {word}", f"{second}  {tail}"]

    def ground(self, verdict: Verdict) -> list[str]:
        """The two lines that an interval is held against."""
        drawn = [" "] * self.plot
        drawn[self.zero] = self.pen.zero
        drawn[self.at(-verdict.margin * 100)] = self.pen.margin
        return drawn

    def picture(self, verdict: Verdict) -> str:
        """The interval, with its estimate, over the two lines."""
        drawn, estimate = self.ground(verdict), verdict.estimate
        if estimate is None:
            return "".join(drawn)
        ends = [estimate.lower * 100, estimate.upper * 100]
        left, right = self.at(ends[0]), self.at(ends[1])
        margin = self.at(-verdict.margin * 100)
        if estimate.lower > -verdict.margin and left == margin:  # clear of the margin, and seen to be so
            left, right = left + 1, max(right, left + 1)
        elif estimate.upper < -verdict.margin and right == margin:
            right = max(right - 1, 0)
            left = min(left, right)
        drawn[left : right + 1] = self.pen.line * (right - left + 1)
        drawn[left] = self.pen.cut[0] if ends[0] < self.scale.low else self.pen.ends[0]
        drawn[right] = self.pen.cut[1] if ends[1] > self.scale.high else self.pen.ends[1]
        drawn[min(max(self.at(estimate.difference * 100), left), right)] = self.pen.point
        text = "".join(drawn)
        return text[:left] + self.paint(_COLOURS[verdict.outcome], text[left : right + 1]) + text[right + 1 :]

    def axis(self) -> list[str]:
        """The axis, and the labels of those ticks for which there is room."""
        line, labels, free = [self.pen.axis[0]] * self.plot, [" "] * self.plot, 0
        for tick in self.scale.ticks:
            at, label = self.at(tick), words.signed(tick, self.scale.digits(), self.pen.minus)
            line[at] = self.pen.axis[1]
            start = min(max(at - len(label) // 2, 0), self.plot - len(label))
            if start >= free:
                labels[start : start + len(label)] = label
                free = start + len(label) + 1
        indent = " " * (self.labels + 2)
        return [indent + "".join(line), indent + "".join(labels)]

    def paint(self, code: str, text: str) -> str:
        """``text`` in a colour, where colour is wanted."""
        return _paint(code, text, self.colour)


def histogram(
    values: Iterable[float],
    width: int = 80,
    *,
    unit: str = "",
    most: int = 10,
    colour: bool = False,
    plain: bool = False,
) -> str:
    """How often which values are met, in at most ``most`` classes of one width, or each twice the one before where the
    largest is more than 20 times the median. Values are not negative."""
    found = sorted(values)
    if not found:
        return "none\n"
    edges = _edges(found, most)
    counts = Counter(_class(value, edges) for value in found)
    dash, unit = (_PLAIN if plain else _Pen()).to, f" {unit}" if unit else ""
    rows = [
        (f"{_figure(low)} {dash} {_figure(high)}{unit}", counts[number])
        for number, (low, high) in enumerate(pairwise(edges))
    ]
    return bars(rows, width, colour=colour, plain=plain)


def _edges(found: Sequence[float], most: int) -> list[float]:
    """The classes' edges; each class holds its lower edge, and the last one both."""
    largest, median = found[-1], found[len(found) // 2]
    if largest > 20 * median > 0:
        first = nice(largest / 2 ** (most - 1))
        return [0, *(first * 2**power for power in range(math.ceil(math.log2(largest / first)) + 1))]
    low, step = 0.0, nice(largest / most) if largest else 1.0
    if found[0] > 0.5 * largest:  # far from zero: begin near the smallest
        step = nice((largest - found[0]) / most or largest)
        low = math.floor(found[0] / step) * step
    return [low + step * number for number in range(max(1, math.ceil((largest - low) / step)) + 1)]


def _class(value: float, edges: Sequence[float]) -> int:
    return min(bisect_right(edges, value) - 1, len(edges) - 2)


def _figure(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,.6g}"


def bars(
    rows: Sequence[tuple[str, float]], width: int = 80, *, unit: str = "", colour: bool = False, plain: bool = False
) -> str:
    """A line for each row: its label, a bar as long as its value (0 or more), and the value."""
    if not rows:
        return "none\n"
    pen, width = _PLAIN if plain else _Pen(), max(width, NARROWEST)
    shown = [words.fit(f"{_figure(value)} {unit}".rstrip(), width // 3, pen.more) for _, value in rows]
    room = max(map(len, shown))
    labels = [words.fit(_ascii(words.clean(label), pen), width // 3, pen.more) for label, _ in rows]
    column, largest = max(map(words.cells, labels)), max(value for _, value in rows) or 1
    space = max(width - column - room - 4, 1)
    lines = []
    for label, (_, value), text in zip(labels, rows, shown, strict=True):
        bar = _paint(_FILLS[0], _bar(value / largest * space, pen), colour)
        lines.append(f"{' ' * (column - words.cells(label))}{label}  {bar} {text}")
    return "\n".join(lines) + "\n"


def _bar(length: float, pen: _Pen) -> str:
    """A bar of so many columns, to an eighth where the pen can; what is not zero is seen."""
    eighths = max(round(length * 8), 1) if length > 0 else 0
    if not pen.parts:
        return pen.full * (max(round(length), 1) if length > 0 else 0)
    rest = eighths % 8
    return pen.full * (eighths // 8) + (pen.parts[rest - 1] if rest else "")


def stacked(parts: Sequence[tuple[str, int]], width: int = 80, *, colour: bool = False, plain: bool = False) -> str:
    """One bar that is shared among ``parts`` by their counts, and a legend. Each part has a filling of its own."""
    pen, width, total = _PLAIN if plain else _Pen(), max(width, NARROWEST), sum(count for _, count in parts)
    if not total:
        return "none\n"
    bar, begun, ends = [], 0, 0
    for number, (_, count) in enumerate(parts):
        ends += count
        until = round(ends / total * width)
        bar.append(_paint(_FILLS[number % 6], pen.fills[number % 6] * (until - begun), colour))
        begun = until
    lines = ["".join(bar)]
    for number, (label, count) in enumerate(parts):
        tail = f"  {count:,} ({count / total:.0%})"
        name = words.fit(_ascii(words.clean(label), pen), width - 2 - len(tail), pen.more)
        lines.append(f"{_paint(_FILLS[number % 6], pen.fills[number % 6], colour)} {name}{tail}")
    return "\n".join(lines) + "\n"


def _ascii(text: str, pen: _Pen) -> str:
    """``text`` as the pen can write it: what is not ASCII is written by its number."""
    return text.encode("ascii", "backslashreplace").decode() if pen is _PLAIN else text


def _wrap(text: str, width: int, pen: _Pen) -> list[str]:
    """``text`` on lines of at most ``width`` columns, broken between words."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and words.cells(line) + 1 + words.cells(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [words.fit(line, width, pen.more) for line in [*lines, line]]


def _paint(code: str, text: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour and text else text
