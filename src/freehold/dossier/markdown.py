"""The document as Markdown (CommonMark, with the tables of GitHub's), for wikis and pull requests. Texts are escaped,
so that none becomes mark-up, a link or an image."""

from __future__ import annotations

import re
from collections.abc import Sequence

from freehold.chart import words
from freehold.dossier import say
from freehold.dossier.html import sentence
from freehold.dossier.lines import Line, Lines, Redo, letter_of, redos, rows_note
from freehold.types.dossier import Chapter, Dossier, Figure, Part, Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~@$])|:(?=//)")  # wherever it stands
_FIRST = re.compile(r"\d{1,9}[.)]|[#+=-]")  # where a line begins; its last character is escaped
_SITE = re.compile(r"(?<=\bwww)(?=\.)", re.IGNORECASE)  # GitHub makes a link of it


def render(dossier: Dossier) -> Lines:
    """The text, line by line."""
    yield Line("headline", f"# {_text(dossier.headline)}")
    yield from _gap()
    yield Line("verdict.outcome", f"**{dossier.outcome.value}** for {_text(dossier.task)}, {say.day(dossier.made_at)}")
    yield from _gap()
    yield Line("plain", _text(dossier.plain))
    yield from _gap()
    yield Line("verdict.sentence", f"*{_text(sentence(dossier))}*")
    yield from _gap()
    yield from _verdicts(dossier)
    yield Line("page", "| | |")
    yield Line("page", "| --- | --- |")
    for figure in dossier.summary:
        yield Line(figure.id, f"| {_text(figure.label)} | {_shown(figure)} |")
    yield from _gap()
    yield Line("page", "**What this does not say**")
    yield from _points(dossier.points, "points")
    for chapter in dossier.chapters:
        yield from _chapter(chapter)


def _gap() -> Lines:
    yield Line("page", "")


def _verdicts(dossier: Dossier) -> Lines:
    """What the picture shows, in words."""
    for number, one in enumerate(dossier.verdicts, 1):
        sizes = f"{words.amount(one.calls, 'call')}, {words.amount(one.groups, 'group')}"
        numbers = f"{words.interval(one)} points, margin −{words.plain_points(one.margin)}"
        yield Line(
            f"picture.verdicts/{number}", f"- {_text(one.candidate.name)}: {one.outcome.value}; {numbers}; {sizes}"
        )
    if bounds := words.bounds(dossier.verdicts):
        yield from _gap()
        yield Line("picture.verdicts", f"{bounds[:1].upper()}{bounds[1:]}.")
    yield from _gap()


def _chapter(chapter: Chapter) -> Lines:
    yield from _gap()
    yield Line(chapter.id, f"## {_text(chapter.title)}")
    found = redos(chapter)
    for part in chapter.parts:
        yield from _part(part, found)
    if found:
        yield from _gap()
        yield Line(chapter.id, "Work it out again:")
        yield from _gap()
    for redo in found:
        yield Line(chapter.id, f"- {f'{redo.letter}: ' if redo.letter else ''}{_code(redo.command)}")


def _part(part: Part, found: Sequence[Redo]) -> Lines:
    if part.title:
        yield from _gap()
        yield Line(part.id, f"### {_text(part.title)}")
    for text in part.lead:
        yield from _gap()
        yield Line(part.id, _text(text))
    yield from _points(part.points, part.id)
    if part.figures:
        yield from _gap()
        yield Line(part.id, "| | | how known |")
        yield Line(part.id, "| --- | --- | --- |")
        for figure in part.figures:
            how = f"{figure.kind.value}{_ref(figure, found)}"
            yield Line(figure.id, f"| {_text(figure.label)} | {_shown(figure)} | {how} |")
    for table in part.tables:
        yield from _table(table, found)


def _points(points: Sequence[str], owner: str) -> Lines:
    if points:
        yield from _gap()
    for number, point in enumerate(points, 1):
        yield Line(f"{owner}/{number}", f"- {_text(point)}")


def _table(table: Table, found: Sequence[Redo]) -> Lines:
    yield from _gap()
    yield Line(table.id, f"**{_text(table.caption)}** ({table.kind.value}{_ref(table, found)})")
    yield from _gap()
    yield Line(table.id, f"| {' | '.join(map(_text, table.head))} |")
    marks = ("---:" if column in table.numeric else "---" for column in range(len(table.head)))
    yield Line(table.id, f"| {' | '.join(marks)} |")
    for number, row in enumerate(table.rows, 1):
        yield Line(f"{table.id}/{number}", f"| {' | '.join(map(_text, row))} |")
    if note := rows_note(table):
        yield from _gap()
        yield Line(table.id, _text(note))
    for number, told in enumerate(table.under, 1):
        yield from _gap()
        yield Line(f"{table.id}/{number}", f"- {_text(table.rows[number - 1][0])}")
        for word, text in told:
            yield Line(f"{table.id}/{number}", f"  - {_text(word)}: {_text(text)}")


def _ref(thing: Figure | Table, found: Sequence[Redo]) -> str:
    letter = letter_of(thing, found)
    return f" {letter}" if letter else ""


def _shown(figure: Figure) -> str:
    note = f" ({_text(figure.note)})" if figure.note else ""
    return f"{_text(figure.shown)}{note}"


def _text(text: str) -> str:
    """Somebody's text, as Markdown that shows exactly that."""
    first = _FIRST.match(text)
    made = _SPECIAL.sub(lambda found: f"\\{found[0]}", text)
    made = _SITE.sub(r"\\", made)
    if first:
        made = f"{made[: first.end() - 1]}\\{made[first.end() - 1 :]}"
    return made.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """A command in the letters of one. It holds no backtick: commands are made of names and quoted words."""
    return f"`{text.replace('`', '')}`"
