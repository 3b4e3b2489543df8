"""Rendered pages as lines that know what they show, so that whoever finds one changed can say which figure it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from freehold.types.dossier import Chapter, Figure, Table


class Line(NamedTuple):
    """One line of a page. ``owner`` is the id of the figure, table row, chapter or other thing that it shows."""

    owner: str
    text: str


Lines = Iterator[Line]


class Redo(NamedTuple):
    """A command that works figures out anew. ``letter`` stands beside those figures, where a chapter has several."""

    letter: str
    command: str


def redos(chapter: Chapter) -> list[Redo]:
    """The commands of a chapter's figures and tables, each once, in their order."""
    things = [thing for part in chapter.parts for thing in (*part.figures, *part.tables)]
    commands = list(dict.fromkeys(thing.command for thing in things if thing.command))
    if len(commands) == 1:
        return [Redo("", commands[0])]
    return [Redo(_letter(number), command) for number, command in enumerate(commands)]


def letter_of(thing: Figure | Table, found: Sequence[Redo]) -> str:
    """The letter that stands beside a figure or a table; '' where its chapter has one command alone."""
    return next((redo.letter for redo in found if redo.command == thing.command), "")


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else _letter(number // 26 - 1) + _letter(number % 26)


def rows_note(table: Table) -> str:
    """What is said of a table's rows that are not here, and of the table itself."""
    lacking = table.whole - len(table.rows)
    more = f"And {lacking:,} more." if table.whole and lacking > 0 else ""
    return " ".join(filter(None, (more, table.note)))
