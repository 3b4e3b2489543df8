"""The document as one page of HTML: no script, nothing from elsewhere, each text escaped.

A policy in the page itself forbids everything but the one style, which is named by its digest, so that even a page that
somebody had slipped something into would neither run nor fetch it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from freehold.chart import curve, svg, words
from freehold.dossier import say
from freehold.dossier.lines import Line, Lines, Redo, letter_of, redos, rows_note
from freehold.dossier.style import WHOLE
from freehold.types.dossier import Chapter, Dossier, Figure, Known, Part, Table
from freehold.types.traffic import Outlook

WIDE, NARROW = 680, 340  # of the pictures, for a page and for a telephone
_MARKS = {Outlook.NON_INFERIOR: "●", Outlook.INFERIOR: "■", Outlook.UNDECIDED: "○"}


def render(dossier: Dossier) -> Lines:
    """The page, line by line."""
    yield from _head(dossier)
    yield Line("page", "<body>")
    yield Line("page", "<main>")
    yield from _first(dossier)
    yield from _contents(dossier)
    for number, chapter in enumerate(dossier.chapters, 1):
        yield from _chapter(dossier, chapter, number)
    yield from _foot(dossier)
    for tag in ("</main>", "</body>", "</html>"):
        yield Line("page", tag)


def _head(dossier: Dossier) -> Lines:
    digest = base64.b64encode(hashlib.sha256(WHOLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    yield Line("page", "<!doctype html>")
    yield Line("page", '<html lang="en">')
    yield Line("page", "<head>")
    yield Line("page", '<meta charset="utf-8">')
    yield Line("page", f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    yield Line("page", '<meta name="viewport" content="width=device-width, initial-scale=1">')
    yield Line("page", '<meta name="referrer" content="no-referrer">')
    yield Line("page", f'<meta name="generator" content="{escape(dossier.made_by)}">')
    yield Line("headline", f"<title>{escape(f'{dossier.task}: {dossier.headline}')}</title>")
    yield Line("page", f"<style>{WHOLE}</style>")
    yield Line("page", "</head>")


# the first page


def _first(dossier: Dossier) -> Lines:
    yield Line("page", '<header class="first">')
    made = f"<span>{say.day(dossier.made_at)}</span>"
    yield Line("page", f'<p class="eyebrow"><span>Dossier</span> <strong>{escape(dossier.task)}</strong> {made}</p>')
    kind = dossier.outcome.value
    mark = f'<span aria-hidden="true">{_MARKS[dossier.outcome]}</span>'
    yield Line("verdict.outcome", f'<p class="outcome {kind}">{mark} {kind}</p>')
    yield Line("headline", f"<h1>{escape(dossier.headline)}</h1>")
    yield Line("plain", f'<p class="plain">{escape(dossier.plain)}</p>')
    yield Line("verdict.sentence", f'<p class="sentence">{escape(sentence(dossier))}</p>')
    yield from _verdicts(dossier)
    yield Line("page", '<dl class="keys">')
    for figure in dossier.summary:
        yield Line(figure.id, _key(figure))
    yield Line("page", "</dl>")
    yield Line("page", '<div class="against"><h2>What this does not say</h2>')
    yield from _points(dossier.points, "points")
    yield Line("page", "</div>")
    yield Line("page", "</header>")


def sentence(dossier: Dossier) -> str:
    """The sentence of the verdict, as one."""
    said = dossier.sentence
    return f"{said[:1].upper()}{said[1:]}{'' if said.endswith('.') else '.'}"


def _verdicts(dossier: Dossier) -> Lines:
    bounds, agreed = words.bounds(dossier.verdicts), words.agreement(dossier.verdicts)
    measured = "Mean difference in agreement" if agreed else "Candidate less incumbent, mean over paired calls"
    caption = f"{measured}, in points{f'; {bounds}' if bounds else ''}. The shaded side is worse than the margin."
    yield from _figure("picture.verdicts", caption, [svg.inline(dossier.verdicts, width) for width in (WIDE, NARROW)])


def _figure(owner: str, caption: str, pictures: Sequence[str]) -> Lines:
    """A picture in two widths, of which the reader's page shows one."""
    yield Line(owner, "<figure>")
    for kind, picture in zip(("wide", "narrow"), pictures, strict=True):
        yield Line(owner, f'<div class="{kind}">')
        for line in picture.splitlines():
            yield Line(owner, line)
        yield Line(owner, "</div>")
    yield Line(owner, f"<figcaption>{escape(caption)}</figcaption>")
    yield Line(owner, "</figure>")


def _key(figure: Figure) -> str:
    """One figure of the first page, its name a way to its chapter."""
    basis = figure.kind.value if figure.kind is Known.ESTIMATE else ""
    note = "; ".join(filter(None, (figure.note, basis)))
    small = f'<dd class="note">{escape(note)}</dd>' if note else ""
    chapter = figure.id.partition(".")[0]
    name = f'<a href="#{escape(chapter)}">{escape(figure.label)}</a>'
    return f'<div><dt>{name}</dt><dd class="value">{escape(figure.shown)}</dd>{small}</div>'


def _contents(dossier: Dossier) -> Lines:
    yield Line("page", '<nav aria-label="Contents">')
    yield Line("page", "<ol>")
    for chapter in dossier.chapters:
        yield Line(chapter.id, f'<li><a href="#{escape(chapter.id)}">{escape(chapter.title)}</a></li>')
    yield Line("page", "</ol>")
    yield Line("page", "</nav>")


# a chapter


def _chapter(dossier: Dossier, chapter: Chapter, number: int) -> Lines:
    id = escape(chapter.id)
    yield Line(chapter.id, f'<section class="chapter" id="{id}" aria-labelledby="{id}-title">')
    yield Line(chapter.id, f'<h2 id="{id}-title"><span class="no">{number}</span> {escape(chapter.title)}</h2>')
    found = redos(chapter)
    for part in chapter.parts:
        yield from _part(dossier, part, chapter, found)
    yield from _redo(chapter, found)
    yield Line(chapter.id, "</section>")


def _part(dossier: Dossier, part: Part, chapter: Chapter, found: Sequence[Redo]) -> Lines:
    yield Line(part.id, '<div class="part">')
    if part.title:
        yield Line(part.id, f"<h3>{escape(part.title)}</h3>")
    for text in part.lead:
        yield Line(part.id, f"<p>{escape(text)}</p>")
    yield from _points(part.points, part.id)
    if part.picture == "curve":
        pictures = [curve.curve(dossier.curve, dossier.best_step, width) for width in (WIDE, NARROW)]
        yield from _figure("picture.curve", "Loss over training, in nats per answer token.", pictures)
    if part.figures:
        yield Line(part.id, '<table class="figures">')
        for figure in part.figures:
            yield Line(figure.id, _row(chapter, figure, found))
        yield Line(part.id, "</table>")
    for table in part.tables:
        yield from _table(chapter, table, found)
    yield Line(part.id, "</div>")


def _points(points: Sequence[str], owner: str) -> Lines:
    if points:
        yield Line(owner, '<ul class="points">')
        for number, point in enumerate(points, 1):
            yield Line(f"{owner}/{number}", f"<li>{escape(point)}</li>")
        yield Line(owner, "</ul>")


def _row(chapter: Chapter, figure: Figure, found: Sequence[Redo]) -> str:
    note = f"<small>{escape(figure.note)}</small>" if figure.note else ""
    absent = ' class="absent"' if figure.kind is Known.MISSING else ""
    how = f"{figure.kind.value}{_ref(chapter, letter_of(figure, found))}"
    head = f'<th scope="row">{escape(figure.label)}</th>'
    value = f"<td{absent}>{_cell(figure.shown)}{note}</td>"
    return f'<tr id="{escape(figure.id)}">{head}{value}<td class="how">{how}</td></tr>'


def _ref(chapter: Chapter, letter: str) -> str:
    """The letter of the command, as a way to it."""
    if not letter:
        return ""
    return f' <a href="#{escape(chapter.id)}-{letter}" aria-label="command {letter}">{letter}</a>'


def _cell(text: str) -> str:
    """A text of a table: digests in the letters of commands."""
    return f"<code>{escape(text)}</code>" if text.startswith("sha256:") and " " not in text else escape(text)


def _table(chapter: Chapter, table: Table, found: Sequence[Redo]) -> Lines:
    id = escape(table.id)
    yield Line(table.id, f'<div class="rows" tabindex="0" role="region" aria-labelledby="{id}-caption">')
    yield Line(table.id, f'<table id="{id}">')
    how = f"<small>{table.kind.value}{_ref(chapter, letter_of(table, found))}</small>"
    yield Line(table.id, f'<caption id="{id}-caption">{escape(table.caption)} {how}</caption>')
    if any(table.head):
        head = "".join(
            f'<th scope="col"{_number(table, column)}>{escape(name)}</th>' for column, name in enumerate(table.head)
        )
        yield Line(table.id, f"<thead><tr>{head}</tr></thead>")
    yield Line(table.id, "<tbody>")
    for number, row in enumerate(table.rows):
        yield from _table_row(table, number, row)
    yield Line(table.id, "</tbody></table>")
    if note := rows_note(table):
        yield Line(table.id, f'<p class="more">{escape(note)}</p>')
    yield Line(table.id, "</div>")


def _table_row(table: Table, number: int, row: Sequence[str]) -> Lines:
    owner = f"{table.id}/{number + 1}"
    cells = [f'<th scope="row">{_cell(row[0])}</th>']
    cells += [f"<td{_number(table, column)}>{_cell(text)}</td>" for column, text in enumerate(row) if column]
    yield Line(owner, f"<tr>{''.join(cells)}</tr>")
    if number < len(table.under) and table.under[number]:
        told = "".join(
            f'<dt>{escape(word)}</dt><dd dir="auto">{escape(text)}</dd>' for word, text in table.under[number]
        )
        yield Line(owner, f'<tr class="under"><td colspan="{len(table.head)}"><dl>{told}</dl></td></tr>')


def _number(table: Table, column: int) -> str:
    return ' class="number"' if column in table.numeric else ""


def _redo(chapter: Chapter, found: Sequence[Redo]) -> Lines:
    if not found:
        return
    yield Line(chapter.id, '<div class="redo"><p>Work it out again</p><ol>')
    for redo in found:
        letter = f'<span class="letter">{redo.letter}</span>' if redo.letter else ""
        name = f' id="{escape(chapter.id)}-{redo.letter}"' if redo.letter else ""
        yield Line(chapter.id, f"<li{name}>{letter}{_command(redo.command)}</li>")
    yield Line(chapter.id, "</ol></div>")


def _command(text: str) -> str:
    """A command whose lines break between its words alone, and which is copied as it is."""
    return f"<code>{' '.join(f'<span>{escape(word)}</span>' for word in text.split(' '))}</code>"


def _foot(dossier: Dossier) -> Lines:
    made = f"{escape(dossier.made_by)}, {say.moment(dossier.made_at)}, layout {dossier.layout}"
    yield Line("check.signer", f"<footer><p>{made}. Signed with {escape(dossier.signer)}.</p></footer>")
