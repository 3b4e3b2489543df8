"""The verdicts as one self-contained SVG: the same forest plot as in the terminal, for a page or a slide.

It holds no script, no font and no reference to anything outside; it follows the reader's light or dark scheme, tells
a screen reader what it shows, tells outcomes apart by shape and word as well as by colour, and has the same bytes for
the same verdicts. Names come from outside and are escaped; what may not stand in XML, or turns text round, is replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from freehold.chart import words
from freehold.chart.scale import scale
from freehold.types.traffic import Estimate, Outlook, Verdict

WIDTH = 960
_EDGE, _GAP, _TOP, _ROW, _FOOT = 28, 28, 118, 54, 72
_NAME, _SMALL, _TITLE = 14, 12, 18  # font sizes
_SHAPES = {Outlook.NON_INFERIOR: "good", Outlook.INFERIOR: "bad", Outlook.UNDECIDED: "open"}
# Of every picture; a page must have it once where `inline` pictures are.
STYLE = """
.fh { font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
.fh-page { fill: #ffffff; }
.fh-text { fill: #1b1f24; }
.fh-name { font-size: 14px; font-weight: 600; }
.fh-title { font-size: 18px; font-weight: 650; }
.fh-small { font-size: 12px; fill: #59636e; }
.fh-worse { fill: #f4f0ec; }
.fh-rule { stroke: #e4e7eb; stroke-width: 1; }
.fh-axis { stroke: #8b949e; stroke-width: 1; }
.fh-zero { stroke: #59636e; stroke-width: 1.25; }
.fh-margin { stroke: #9a3412; stroke-width: 1.5; stroke-dasharray: 5 4; }
.fh-margin-text { font-size: 12px; font-weight: 600; fill: #9a3412; }
.fh-interval { stroke-width: 2.5; fill: none; }
.fh-good { stroke: #0a6b4a; fill: #0a6b4a; }
.fh-bad { stroke: #b42318; fill: #b42318; }
.fh-open { stroke: #7a5a00; fill: #7a5a00; }
.fh-trained { stroke: #8b949e; stroke-width: 1.25; fill: none; }
.fh-judged { stroke: #1f5f8b; stroke-width: 2; fill: none; stroke-linejoin: round; }
.fh-dot { fill: #1f5f8b; }
.fh-hollow { fill: #ffffff; stroke-width: 2.5; }
text.fh-good, text.fh-bad, text.fh-open { stroke: none; }
@media screen and (prefers-color-scheme: dark) {
  .fh-page { fill: #15181c; }
  .fh-text { fill: #e6e9ed; }
  .fh-small { fill: #9ba5b0; }
  .fh-worse { fill: #211d1b; }
  .fh-rule { stroke: #2b3036; }
  .fh-axis { stroke: #6b7580; }
  .fh-zero { stroke: #9ba5b0; }
  .fh-margin { stroke: #f0a070; }
  .fh-margin-text { fill: #f0a070; }
  .fh-good { stroke: #56c596; fill: #56c596; }
  .fh-bad { stroke: #ff8f85; fill: #ff8f85; }
  .fh-open { stroke: #e3b84d; fill: #e3b84d; }
  .fh-judged { stroke: #7fb8e0; }
  .fh-dot { fill: #7fb8e0; }
  .fh-hollow { fill: #15181c; }
}
"""


def verdicts(verdicts: Sequence[Verdict]) -> str:
    """The picture, as text of an SVG document; one row for each verdict, in their order."""
    return _Forest(verdicts).document()


def inline(verdicts: Sequence[Verdict], width: int) -> str:
    """The picture as an element of an HTML page that has `STYLE` itself, ``width`` wide (at least 320): each row is
    stacked, so that the intervals have all of the width. What stands above and below it is for the page to say."""
    return _Stacked(verdicts, width).element()


class _Forest:
    """The plot while it is drawn: columns for labels, picture and outcomes, as wide as their texts need."""

    width = WIDTH

    def __init__(self, verdicts: Sequence[Verdict]):
        self.verdicts = verdicts = [words.sound(verdict) for verdict in verdicts]
        labels = [(_NAME, _name(verdict)) for verdict in verdicts]
        labels += [(_SMALL, words.interval(verdict)) for verdict in verdicts]
        sizes = [(_SMALL, _sizes(verdict)) for verdict in verdicts]
        self.left = _EDGE + min(max(150, max((_wide(*label) for label in labels), default=0) + 2), 290) + _GAP
        self.right = WIDTH - _EDGE - min(max([_wide(*size) for size in sizes] + [110]) + 2, 200) - _GAP
        self.bottom = _TOP + _ROW * len(verdicts)
        self.height = self.bottom + _FOOT
        self.scale = scale(verdicts, 8)

    def document(self) -> str:
        """The whole of it."""
        body = "\n".join([*self.ground(), *self.rows(), *self.axis(), *self.header()])
        said, told = escape(words.heading(self.verdicts)), escape(" ".join(map(_sentence, self.verdicts)))
        style = f"<style>{STYLE}</style>\n"
        return opened(self.width, self.height, said, told, body, xmlns=True) + f"{style}{body}\n</svg>\n"

    def at(self, share: float) -> float:
        """Where a share lies across the page."""
        return self.left + self.scale.share(share * 100) * (self.right - self.left)

    def top(self, number: int) -> float:
        """Where a row begins."""
        return _TOP + _ROW * number

    def header(self) -> Iterator[str]:
        """What is drawn, and how to read it."""
        room = self.width - 2 * _EDGE
        yield text(_EDGE, 40, _cut(_TITLE, words.heading(self.verdicts), room), "fh-text fh-title")
        bounds = words.bounds(self.verdicts)
        measured = "Mean difference of agreement" if words.agreement(self.verdicts) else "Mean difference"
        explained = f"{measured} over paired calls, in points; {bounds}." if bounds else f"{measured}, in points."
        yield text(_EDGE, 62, f"{explained} The shaded side is worse than the margin.", "fh-small")

    def ground(self) -> Iterator[str]:
        """The page, the side beyond each margin, the rules between rows, and the two lines that matter."""
        yield f'<rect class="fh-page" width="{self.width}" height="{self.height}"/>'
        lines = []
        for margin, first, last in self.margins():
            at, top, end = self.at(-margin), self.top(first), self.top(last + 1)
            box = f'x="{place(self.left)}" y="{place(top)}" width="{place(at - self.left)}" height="{place(end - top)}"'
            yield f'<rect class="fh-worse" {box}/>'
            lines.append(line(at, top - (8 if first == 0 else 0), at, end, "fh-margin"))
        for number in range(len(self.verdicts) + 1):
            yield line(_EDGE, self.top(number), self.width - _EDGE, self.top(number), "fh-rule")
        yield line(self.at(0), self.top(0) - 8, self.at(0), self.bottom, "fh-zero")
        yield from lines
        yield from self.captions()

    def captions(self) -> Iterator[str]:
        """The names of the two lines, each on its outer side, so that they never meet."""
        margins = list(self.margins())
        if margins:
            said = f"margin −{words.plain_points(margins[0][0])}" if len(margins) == 1 else "margin of each"
            yield text(self.at(-margins[0][0]) - 4, self.top(0) - 15, said, "fh-margin-text", "end")
        yield text(self.at(0) + 4, self.top(0) - 15, "no difference", "fh-small")

    def margins(self) -> Iterator[tuple[float, int, int]]:
        """Runs of rows with one margin: the margin, the first row and the last."""
        for margin, run in groupby(range(len(self.verdicts)), lambda number: self.verdicts[number].margin):
            found = list(run)
            yield margin, found[0], found[-1]

    def rows(self) -> Iterator[str]:
        """Each candidate: name and numbers, interval, outcome and sample."""
        for number, verdict in enumerate(self.verdicts):
            middle, kind = self.top(number) + _ROW / 2, f"fh-{_SHAPES[verdict.outcome]}"
            room, beyond = self.left - _GAP - _EDGE, self.right + _GAP
            yield f"<g><title>{escape(_sentence(verdict))}</title>"
            yield text(_EDGE, middle - 4, _cut(_NAME, _name(verdict), room), "fh-text fh-name")
            yield text(_EDGE, middle + 15, words.interval(verdict), "fh-small")
            yield from self.picture(verdict.estimate, verdict.outcome, middle)
            yield text(beyond, middle - 4, verdict.outcome.value, f"fh-name {kind}")
            yield text(beyond, middle + 15, _cut(_SMALL, _sizes(verdict), self.width - _EDGE - beyond), "fh-small")
            yield "</g>"

    def picture(self, estimate: Estimate | None, outcome: Outlook, y: float) -> Iterator[str]:
        """One interval with its estimate. An end that lies beyond the axis is an arrow."""
        kind = f"fh-{_SHAPES[outcome]}"
        if estimate is None:
            return
        left, right = self.at(estimate.lower), self.at(estimate.upper)
        yield line(left, y, right, y, f"fh-interval {kind}")
        for x, beyond, way in (
            (left, estimate.lower * 100 < self.scale.low, 1),
            (right, estimate.upper * 100 > self.scale.high, -1),
        ):
            yield _arrow(x, y, way, kind) if beyond else line(x, y - 6, x, y + 6, f"fh-interval fh-cap {kind}")
        yield _point(self.at(estimate.difference), y, outcome, kind)

    def axis(self) -> Iterator[str]:
        """Ticks with their labels, and which way is better."""
        y = self.bottom
        yield line(self.left, y, self.right, y, "fh-axis")
        for tick in self.scale.ticks:
            x = self.at(tick / 100)
            yield line(x, y, x, y + 5, "fh-axis fh-tick")
            yield text(x, y + 20, words.signed(tick, self.scale.digits()), "fh-small fh-tick-text", "middle")
        agreed = words.agreement(self.verdicts)
        worse, better = ("agrees less", "agrees more") if agreed else ("candidate worse", "candidate better")
        yield text(self.left, y + 44, f"← {worse}", "fh-small")
        yield text(self.right, y + 44, f"{better} →", "fh-small", "end")


class _Stacked(_Forest):
    """The same without columns: name, outcome and numbers above each interval, which has all of the width. Shade and
    lines are drawn in the bands of the intervals alone, so that no line runs through a word."""

    row, band, words_above = 102, 36, 44

    def __init__(self, verdicts: Sequence[Verdict], width: int):
        self.verdicts = verdicts = [words.sound(verdict) for verdict in verdicts]
        self.width = max(width, 320)
        self.left, self.right = 1.0, self.width - 1.0
        self.bottom = self.row * len(verdicts) - (self.row - self.words_above - self.band) + 10
        self.height = self.bottom + 66
        self.scale = scale(verdicts, 8 if width > 500 else 5)

    def element(self) -> str:
        """The whole of it, without a style of its own."""
        body = "\n".join([*self.ground(), *self.rows(), *self.axis(), *self.captions()])
        said, told = escape(words.heading(self.verdicts)), escape(" ".join(map(_sentence, self.verdicts)))
        return opened(self.width, self.height, said, told, body) + f"{body}\n</svg>"

    def top(self, number: int) -> float:
        """Where a row begins."""
        return self.row * number

    def ground(self) -> Iterator[str]:
        """In each band the side beyond the margin, and the two lines that matter."""
        for number, verdict in enumerate(self.verdicts):
            top, end = self.top(number) + self.words_above, self.top(number) + self.words_above + self.band
            end += 10 if number == len(self.verdicts) - 1 else 0
            at, zero = self.at(-verdict.margin), self.at(0)
            box = f'x="{place(self.left)}" y="{place(top)}" width="{place(at - self.left)}" height="{place(end - top)}"'
            yield f'<rect class="fh-worse" {box}/>'
            yield line(at, top, at, end, "fh-margin")
            yield line(zero, top, zero, end, "fh-zero")

    def captions(self) -> Iterator[str]:
        """The names of the two lines, below the axis, each on its outer side as far as there is room. That of zero,
        which its tick says too, is left out where there is none."""
        margins, end, y = list(self.margins()), self.left, self.bottom + 38
        if margins:
            said = f"margin −{words.plain_points(margins[0][0])}" if len(margins) == 1 else "margin of each"
            end = max(self.at(-margins[0][0]), self.left + _wide(_SMALL, said) * 1.12)  # it is bold
            yield text(end, y, said, "fh-margin-text", "end")
        zero, wide = "no difference", _wide(_SMALL, "no difference")
        start = min(max(self.at(0), end + 8), self.right - wide)
        if start >= end + 8:
            yield text(start, y, zero, "fh-small")

    def axis(self) -> Iterator[str]:
        """Ticks with their labels, and which way is better, at the foot."""
        y = self.bottom
        yield line(self.left, y, self.right, y, "fh-axis")
        for tick in self.scale.ticks:
            x = self.at(tick / 100)
            yield line(x, y, x, y + 5, "fh-axis fh-tick")
            yield text(x, y + 18, words.signed(tick, self.scale.digits()), "fh-small fh-tick-text", "middle")
        agreed = words.agreement(self.verdicts)
        worse, better = ("agrees less", "agrees more") if agreed else ("worse", "better")
        yield text(self.left, y + 60, f"← {worse}", "fh-small")
        yield text(self.right, y + 60, f"{better} →", "fh-small", "end")

    def rows(self) -> Iterator[str]:
        """Each candidate: name and outcome, numbers and sample, interval."""
        inner = self.right - self.left
        for number, verdict in enumerate(self.verdicts):
            top, kind, outcome = self.top(number), f"fh-{_SHAPES[verdict.outcome]}", verdict.outcome.value
            numbers = words.interval(verdict)
            name = _cut(_NAME, _name(verdict), inner - _wide(_NAME, outcome) - 12)
            sizes = _cut(_SMALL, _sizes(verdict), inner - _wide(_SMALL, numbers) - 12)
            yield f"<g><title>{escape(_sentence(verdict))}</title>"
            yield text(self.left, top + 14, name, "fh-text fh-name")
            yield text(self.right, top + 14, outcome, f"fh-name {kind}", "end")
            yield text(self.left, top + 33, numbers, "fh-small")
            yield text(self.right, top + 33, sizes, "fh-small", "end")
            yield from self.picture(verdict.estimate, verdict.outcome, top + self.words_above + self.band / 2)
            yield "</g>"


def opened(width: float, height: float, said: str, told: str, body: str, *, xmlns: bool = False) -> str:
    """The beginning of a picture, with its title and description (escaped already). Both have a name that depends on
    what is drawn, so that two pictures in one page are told apart."""
    mark = hashlib.sha256((told + body).encode()).hexdigest()[:8]
    space = 'xmlns="http://www.w3.org/2000/svg" ' if xmlns else ""
    return (
        f'<svg {space}class="fh" role="img" viewBox="0 0 {place(width)} {place(height)}" '
        f'width="{place(width)}" height="{place(height)}" aria-labelledby="fh-{mark}-title fh-{mark}-desc">\n'
        f'<title id="fh-{mark}-title">{said}</title>\n<desc id="fh-{mark}-desc">{told}</desc>\n'
    )


def _name(verdict: Verdict) -> str:
    return words.clean(verdict.candidate.name)


def _sizes(verdict: Verdict) -> str:
    return f"{words.amount(verdict.calls, 'call')}, {words.amount(verdict.groups, 'group')}"


def _sentence(verdict: Verdict) -> str:
    """A row, for somebody who hears it."""
    numbers = words.interval(verdict)
    margin = words.plain_points(verdict.margin)
    return f"{_name(verdict)}: {verdict.outcome.value}; {numbers} points, margin {margin}. {words.clean(verdict.why)}"


def _wide(size: float, text: str) -> float:
    """About how wide ``text`` is at a font size, rather more than less: the reader's font is not known."""
    size *= 1.07 if size > _SMALL else 1.0  # what is not small is bold
    return size * sum(map(_letter, text))


def _letter(letter: str) -> float:
    """A letter's width at size 1."""
    if words.cells(letter) > 1:
        return 1.05
    if letter in "mwMW@%":
        return 1.05
    return 0.75 if letter.isupper() else 0.35 if letter in " .,:;|!'ijl()" else 0.62


def _cut(size: float, text: str, room: float) -> str:
    """``text`` in at most about ``room``, with an ellipsis where it is cut."""
    if _wide(size, text) <= room:
        return text
    while text and _wide(size, text + "…") > room:
        text = text[:-1]
    return text + "…"


def _point(x: float, y: float, outcome: Outlook, kind: str) -> str:
    """A disc for non-inferior, a square for inferior, a ring for undecided."""
    if outcome is Outlook.INFERIOR:
        return f'<rect class="fh-point {kind}" x="{place(x - 5)}" y="{place(y - 5)}" width="10" height="10"/>'
    hollow = " fh-hollow" if outcome is Outlook.UNDECIDED else ""
    return f'<circle class="fh-point {kind}{hollow}" cx="{place(x)}" cy="{place(y)}" r="5.5"/>'


def _arrow(x: float, y: float, way: int, kind: str) -> str:
    """A head that points to the left (``way`` 1) or to the right (-1)."""
    corners = f"{place(x)},{place(y)} {place(x + 9 * way)},{place(y - 6)} {place(x + 9 * way)},{place(y + 6)}"
    return f'<polygon class="fh-arrow {kind}" points="{corners}"/>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a class."""
    return f'<line class="{kind}" x1="{place(x1)}" y1="{place(y1)}" x2="{place(x2)}" y2="{place(y2)}"/>'


def text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    """A text of a class, escaped, that begins at a place or (``anchor``) has its middle or end there."""
    where = "" if anchor == "start" else f" text-anchor={quoteattr(anchor)}"
    return f'<text class="{kind}" x="{place(x)}" y="{place(y)}"{where}>{escape(text)}</text>'


def place(value: float) -> str:
    """A coordinate, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
