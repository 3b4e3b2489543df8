"""The dossier: what was found and what was not, in three forms, and no figure in it changed without being named."""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import html.parser
import importlib
import itertools
import json
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import dossiers
import msgspec
import pytest
from dossiers import AT, FLIPS, NAME
from msgspec.structs import replace

from freehold import app, certify, config, dossier, prove, report, runs, sign
from freehold.chart import curve, svg
from freehold.cli import main as command
from freehold.dossier import chapters, lines, markdown, signed
from freehold.errors import CannotDo, NotDecidable
from freehold.home import Home
from freehold.types import (
    Answer,
    Candidate,
    CurvePoint,
    Outlook,
    Replayed,
    Sample,
    Score,
    Task,
)
from freehold.types.dossier import Dossier, Evidence, Excerpt, Figure, Known

ROOT = Path(__file__).parent.parent
HOSTILE = [
    "<script>alert(1)</script>", "<img src=https://example.com/x onerror=alert(1)>", "a\"b'c&d>", "\x1b[31mred\x07",
    "\u202eeltit", "-->", "]]>", "a\x00b", "</style><style>", "| a | b |", "![x](https://example.com/y.png)",
    "[click](javascript:alert(1))", "`code`", "# head", "- item", "12. item",
    "--- rule", "see WWW.example.com or a@b.c", "{{ x }}", "\nnew\nlines\r\n",
]  # fmt: skip


@pytest.fixture
def key(tmp_path) -> sign.SigningKey:
    return dossiers.key(tmp_path)


@pytest.fixture
def made(key) -> Dossier:
    return dossier.compose(dossiers.evidence(key=key))


def changed(content: bytes, old: str, new: str) -> bytes:
    """The same file with one text changed where it is first."""
    assert old.encode() in content
    return content.replace(old.encode(), new.encode(), 1)


# signed and checked


@pytest.mark.parametrize("form", dossier.FORMS)
def test_a_file_is_good_where_its_key_is_trusted(key, made, form):
    """By the key itself and by its fingerprint; the document comes back as it was."""
    content = dossier.write(made, form, key)
    for trusted in (key.public, key.fingerprint):
        found = dossier.check(content, [trusted])
        assert found.good and found.known and not found.wrong and not found.changed
        assert (found.dossier, found.form, found.signer) == (made, form, key.fingerprint)


@pytest.mark.parametrize("form", dossier.FORMS)
def test_the_same_evidence_gives_the_same_bytes(key, form):
    """Nothing in a file depends on when or where it is rendered."""
    one, two = (dossier.write(dossier.compose(dossiers.evidence(key=key)), form, key) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("form", "old", "new", "id"),
    [
        ("html", ">812<", ">912<", "numbers.calls"),
        ("html", ">0 of 1,302<", ">0 of 9,302<", "privacy.left"),
        ("html", "is good enough to take over", "is the best to take over", "headline"),
        ("html", ">call-0405<", ">call-0406<", "flips.worse-list/6"),
        ("html", "Candidate</th>", "Incumbent</th>", "numbers.candidate"),
        ("md", "| Calls compared | 812", "| Calls compared | 912", "numbers.calls"),
        ("md", "| call-0405 |", "| call-0409 |", "flips.worse-list/6"),
        ("md", "Apache-2.0 (open)", "Apache-1.0 (open)", "model.licence"),
        ("json", '"shown":"812"', '"shown":"912"', "numbers.calls"),
        ("json", '"value":0.03', '"value":0.09', "numbers.margin"),
        ("json", '"call-0405"', '"call-0406"', "flips.worse-list"),
    ],
)
def test_a_changed_figure_is_caught_and_named(key, made, form, old, new, id):
    """In each form, wherever on the page it stands."""
    content = dossier.write(made, form, key)
    found = dossier.check(changed(content, old, new), [key.public])
    assert not found.good and "changed after it was signed" in found.wrong[0]
    assert found.changed[0].id == id and found.changed[0].label
    assert found.changed[0].signed != found.changed[0].found


def test_several_changes_are_all_named(key, made):
    """Each by its own figure, and nothing else."""
    content = dossier.write(made, "html", key)
    content = changed(changed(content, "4,884,480", "4,884,481"), "−0.8 points", "−0.1 points")
    assert {change.id for change in dossier.check(content, [key.public]).changed} == {
        "numbers.difference",
        "model.made",
    }


@pytest.mark.parametrize("form", dossier.FORMS)
def test_no_byte_can_be_changed(key, made, form):
    """Wherever it is, in the signature too; nor can any be left out, put in, moved or appended."""
    content = dossier.write(made, form, key)
    draw = random.Random(7)
    for at in [*draw.sample(range(len(content)), 150), 0, len(content) - 1, content.rfind(b"envelope") + 14]:
        other = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert not good(other, key), at
    for other in (content[:-1], content[1:], content + b"x", content + b"\n", content + content, content.upper()):
        assert not good(other, key)
    place = content.rfind(b"<!--") if form != "json" else content.rfind(b',"envelope"')
    assert not good(content[: place - 20] + content[place:] + content[place - 20 : place], key)


def good(content: bytes, key: sign.SigningKey) -> bool:
    try:
        return dossier.check(content, [key.public]).good
    except CannotDo:
        return False


def test_an_unknown_key_is_not_trusted_and_is_told_from_a_change(tmp_path, key, made):
    """Its file is whole, so the key's fingerprint is what is wrong; a changed one of it is both."""
    (tmp_path / "other").mkdir()
    other = dossiers.key(tmp_path / "other")
    content = dossier.write(made, "html", key)
    found = dossier.check(content, [other.public])
    assert not found.good and not found.known and found.wrong == (f"it is signed by an unknown key, {key.fingerprint}",)
    assert dossier.check(content, []).wrong == found.wrong
    assert len(dossier.check(changed(content, ">812<", ">912<"), [other.public]).wrong) == 2


def test_somebody_elses_signature_over_our_document_is_found(tmp_path, key, made):
    """Whether the document names our key or theirs."""
    (tmp_path / "thief").mkdir()
    thief = dossiers.key(tmp_path / "thief")
    theirs = replace(made, key=thief.public, signer=key.fingerprint)
    assert "does not fit" in dossier.check(dossier.write(theirs, "html", thief), [key.public]).wrong[0]
    statement = signed.Statement(made, "json", "sha256:0")
    envelope = sign.seal(msgspec.json.encode(statement, order="deterministic"), dossier.TYPE, thief)
    content = signed.body(made, "json") + b',"envelope":"' + base64.b64encode(envelope) + b'"}\n'
    assert "does not fit" in dossier.check(content, [key.public]).wrong[0]
    with pytest.raises(ValueError, match="another key"):
        dossier.write(made, "html", thief)


def test_a_signature_of_one_file_is_of_no_use_in_another(key, made):
    """An older dossier's signature on a newer page, and that of one form on the other."""
    other = dossier.compose(dossiers.evidence(Outlook.INFERIOR, key=key))
    page, old = dossier.write(made, "html", key), dossier.write(other, "html", key)
    cut = page.rfind(b"<!--"), old.rfind(b"<!--")
    found = dossier.check(page[: cut[0]] + old[cut[1] :], [key.public])
    assert not found.good and {"headline", "verdict.outcome"} <= {change.id for change in found.changed}
    text = dossier.write(made, "md", key)
    assert not dossier.check(page[: cut[0]] + text[text.rfind(b"<!--") :], [key.public]).good


def test_a_proof_or_record_cannot_pass_as_a_dossier(key):
    """An envelope of another type is none of ours."""
    envelope = base64.b64encode(sign.seal(b"{}", "application/vnd.freehold.record.v1+json", key))
    found = dossier.check(b"x<!-- freehold dossier envelope: " + envelope + b" -->\n", [key.public])
    assert not found.good and "must hold" in found.wrong[0]
    envelope = base64.b64encode(sign.seal(b"{}", dossier.TYPE, key))
    found = dossier.check(b"x<!-- freehold dossier envelope: " + envelope + b" -->\n", [key.public])
    assert not found.good and "no dossier that this version reads" in found.wrong[0]


@pytest.mark.parametrize("content", [b"", b"hello", b"<html></html>", b'{"dossier":{}}'])
def test_what_carries_no_signature_is_no_dossier(content):
    """And that is another thing than a bad one."""
    with pytest.raises(CannotDo, match="carries no signature"):
        dossier.check(content, [])


def test_a_page_of_another_layout_is_checked_all_the_same(key, made):
    """It is good where nothing was changed; where something was, it is said that it cannot be named."""
    older = replace(made, layout=0, made_by="Freehold 0.4.9")
    body = b"<p>laid out as it once was: 812 calls</p>\n"
    opens, closes = b"<!-- freehold dossier envelope: ", b" -->\n"
    page = "sha256:" + hashlib.sha256(body + opens + closes).hexdigest()
    payload = msgspec.json.encode(signed.Statement(older, "html", page), order="deterministic")
    envelope = base64.b64encode(sign.seal(payload, dossier.TYPE, key))
    content = body + opens + envelope + closes
    assert dossier.check(content, [key.public]).good
    found = dossier.check(changed(content, "812 calls", "912 calls"), [key.public])
    assert not found.good and not found.changed and "Freehold 0.4.9 lays the page out otherwise" in found.wrong[1]


def test_other_spelling_of_the_json_is_a_change_in_no_figure(key, made):
    """And is said to be that."""
    content = dossier.write(made, "json", key).replace(b'{"dossier":{', b'{"dossier": {', 1)
    found = dossier.check(content, [key.public])
    assert not found.good and not found.changed and "none of its figures differs" in found.wrong[1]


def test_the_fingerprint_of_the_key_is_on_the_page(key, made):
    """In each form, so that it can be compared by another way."""
    for form in dossier.FORMS:
        assert key.fingerprint in dossier.write(made, form, key).decode().replace("\\", "")


def test_it_can_be_checked_without_freehold(key, made, tmp_path):
    """The program in the documentation, which needs nothing of ours, says yes, and no."""
    text = (ROOT / "docs/concepts/dossier.md").read_text()
    program = tmp_path / "check.py"
    program.write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    for form in dossier.FORMS:
        content = dossier.write(made, form, key)
        for name, bytes_, expected in (("good", content, 0), ("bad", content.replace(b"812", b"912", 1), 1)):
            (tmp_path / name).write_bytes(bytes_)
            words = [sys.executable, "-I", str(program), str(tmp_path / name), key.public]
            done = subprocess.run(words, capture_output=True, text=True)
            assert (done.returncode != 0) == bool(expected), (form, name, done)


# the page


class Page(html.parser.HTMLParser):
    """A page taken apart by somebody else's parser: its tags, the texts by the id of what they are in."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.styles: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(found: Evidence) -> Page:
    return Page("\n".join(line.text for line in signed.render(dossier.compose(found), "html")))


def test_the_page_fetches_nothing_and_runs_nothing(key):
    """Every way that a page has to reach elsewhere is missing, and a policy forbids them besides."""
    for found in (dossiers.evidence(key=key), dossiers.with_texts(hostile(key, HOSTILE[1]))):
        read = page(found)
        assert not {"script", "img", "iframe", "object", "embed", "link", "base", "form", "video", "audio", "use",
                    "image", "foreignobject", "animate", "set"} & {tag for tag, _ in read.tags}  # fmt: skip
        for tag, attributes in read.tags:
            assert not [
                name for name in attributes if name.startswith("on") or name in ("src", "srcset", "style", "ping")
            ]
            assert all(value.startswith("#") for name, value in attributes.items() if name.endswith("href")), (
                tag,
                attributes,
            )
            assert not any("javascript:" in value for name, value in attributes.items() if name != "content")
        style = "".join(read.styles)
        assert not re.search(r"url\(|@import|@font-face|expression\(", style)
        (policy,) = [one["content"] for one in read.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        assert len(read.of("style")) == 1


def test_the_page_is_well_formed_and_can_be_heard(key):
    """One first heading, then headings in order; every table has heads with a scope; pictures have a title and a text;
    every link leads to something on the page, and no id is there twice."""
    read = page(replace(dossiers.evidence(key=key), others=(dossiers.verdict(Outlook.UNDECIDED),)))
    assert read.wrong == [] and read.open == []
    assert read.of("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(head.get("scope") in ("row", "col") for head in read.of("th"))
    for picture in read.of("svg"):
        assert picture["role"] == "img" and picture["aria-labelledby"]
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = [attributes["href"][1:] for attributes in read.of("a")]
    wanted += [id for _, attributes in read.tags for id in attributes.get("aria-labelledby", "").split()]
    assert wanted and set(wanted) <= set(ids)
    assert all(region["tabindex"] == "0" for region in read.of("div") if region.get("role") == "region")


def test_the_page_is_for_paper_and_for_the_dark_too(made):
    """A4 with the summary on a page of its own; dark on screens alone."""
    style = " ".join(line.text for line in signed.render(made, "html") if "<style>" in line.text)
    assert "@page { size: A4;" in style and "break-after: page" in style
    assert (
        style.count("prefers-color-scheme: dark") == style.count("@media screen and (prefers-color-scheme: dark)") == 2
    )


def hostile(key: sign.SigningKey, text: str) -> Evidence:
    """Evidence in which every text that comes from elsewhere is this one."""
    found, missing = dossiers.evidence(key=key), {"candidate": {"missing": [text]}}
    verdict = replace(
        found.verdict, candidate=Candidate(text, dossiers.ADAPTER, {text: text}, text, "k"), measures=text, why=text,
        flips=tuple(replace(flip, sample=text, group=text, detail=missing) for flip in FLIPS[:3]),
    )  # fmt: skip
    record = replace(dossiers.record(text), source=text, judged_by=text, chosen=(text,), via=text)
    record = replace(record, findings=tuple(replace(one, meaning=text, file=text) for one in record.findings))
    record = replace(record, files=tuple(replace(one, path=text) for one in record.files))
    return replace(
        found, task=replace(found.task, about=text, terms=text), verdict=verdict, sentence=text, fields=(text,),
        terms=((text, 3),), incumbents=((text, 3),), model=replace(dossiers.kept(), record=record), base=None,
        machine=replace(found.machine, system=text, processor=text),
        tuning=replace(dossiers.run(), settings={text: text}, versions={text: text}, stopped=text),
        excerpts={text: Excerpt(text, text, text)}, with_text=True,
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_from_elsewhere_are_text_and_nothing_else(key, text):
    """Names, answers, terms and findings never become mark-up in any form, and the file is good after all."""
    found = hostile(key, text)
    made = dossier.compose(found)
    for form in dossier.FORMS:
        content = dossier.write(made, form, key)
        assert dossier.check(content, [key.public]).good
        assert not set(content.decode()) & set("\x00\x07\x1b\u202e\r")
    plain, own = page(replace(dossiers.evidence(key=key), base=None)), page(found)
    assert own.wrong == [] and own.open == []
    assert {tag for tag, _ in own.tags} <= {tag for tag, _ in plain.tags} | {"dl", "dt", "dd"}
    said = say_of(text)
    assert said in own.text


def say_of(text: str) -> str:
    from freehold.dossier import say

    return say.clean(text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_markdown_shows_texts_as_they_are(text):
    """Each character that could begin mark-up is escaped, so that what is shown is the text."""
    made = markdown._text(say_of(text))
    back = re.sub(r"\\(.)", r"\1", made).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert back == say_of(text) and "<" not in made
    bare = re.sub(r"\\.", "", made)
    assert not set(bare) & set("`*_[]|~@$") and "://" not in bare and "www." not in bare.lower()
    assert not re.match(r"[#+=>-]|\d+[.)]", made)


# what is in it


def all_figures(made: Dossier) -> dict[str, Figure]:
    return {figure.id: figure for figure in chapters.figures(made)}


CASES = {
    "all": {},
    "bare": {"costs": None, "tuning": None, "model": None, "base": None},
    "remote": {"model": None, "base": None, "tuning": None},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("outcome", list(Outlook))
def test_every_figure_has_a_command_that_the_command_line_takes(key, case, outcome):
    """Parsed by the very parsers of the verbs."""
    found = replace(dossiers.evidence(outcome, key=key), **CASES[case])
    if case == "remote":
        verdict = replace(
            found.verdict, candidate=replace(found.verdict.candidate, name="big model; rm -rf", digest="")
        )
        found = replace(found, verdict=verdict)
    if case == "bare":
        verdict = replace(
            found.verdict, against=certify.AGREEMENT, noise=None, judge={"n": 40, "agreement": 0.9, "kappa": 0.7}
        )
        found = replace(found, verdict=verdict, privacy=replace(found.privacy, proof=None))
    made = dossier.compose(found)
    things = [*chapters.figures(made), *chapters.tables(made)]
    assert len(things) > 40
    for thing in things:
        verb, *words = shlex.split(thing.command)[1:]
        assert thing.command.startswith("freehold ") and verb in command.VERBS, thing
        parser = argparse.ArgumentParser()
        importlib.import_module(f"freehold.cli.{verb}").add_arguments(parser)
        parser.parse_args(words)


def test_each_id_is_there_once_and_begins_with_its_chapter(made):
    """So that a figure can be named."""
    figures = [figure.id for chapter in made.chapters for part in chapter.parts for figure in part.figures]
    figures += [table.id for table in chapters.tables(made)]
    assert len(figures) == len(set(figures))
    for chapter in made.chapters:
        for part in chapter.parts:
            for thing in (*part.figures, *part.tables):
                assert thing.id.partition(".")[0] in (chapter.id, "base"), thing.id


def test_what_is_missing_is_said_with_the_command_that_makes_it(key):
    """Without a proof, prices, a tuning run and the model no chapter is dropped."""
    whole = dossier.compose(dossiers.evidence(key=key))
    bare = dossiers.evidence(key=key, costs=None, tuning=None, model=None, base=None)
    made = dossier.compose(replace(bare, privacy=replace(bare.privacy, proof=None), task=replace(bare.task, terms="")))
    assert [chapter.id for chapter in made.chapters] == [chapter.id for chapter in whole.chapters]
    found = all_figures(made)
    for id, wanted in {
        "cost.break-even": "freehold cost", "privacy.proof": "freehold prove privacy",
        "model.name": "freehold models add", "terms.task": "freehold tasks show",
    }.items():  # fmt: skip
        assert found[id].kind is Known.MISSING and found[id].value is None and found[id].command.startswith(wanted)
    assert found["tuning.run"].shown == "the candidate answers as it came: nobody tuned it here"
    lost = dossier.compose(dossiers.evidence(key=key, tuning=None, base=None))
    assert all_figures(lost)["tuning.run"].kind is all_figures(lost)["base.name"].kind is Known.MISSING


def test_a_loss_is_said_as_plainly_as_a_success(key):
    """In the first line, in the words below it and in the points against it."""
    good, bad, open_ = (dossier.compose(dossiers.evidence(outcome, key=key)) for outcome in Outlook)
    assert good.headline == f"{NAME} is good enough to take over from gpt-4o-mini."
    assert bad.headline == f"{NAME} is not good enough to take over from gpt-4o-mini."
    assert "worse, by more than the margin of 3 points" in bad.plain
    assert open_.headline == f"Whether {NAME} is good enough to take over from gpt-4o-mini is not decided."
    assert "About 2,140 calls would decide; there are 812." in open_.plain
    assert all_figures(open_)["verdict.needed"].value == 2140
    for made in (good, bad, open_):
        assert made.outcome.value in " ".join(
            line.text for line in signed.render(made, "html") if line.owner == "verdict.outcome"
        )


def test_agreement_is_never_called_quality(key):
    """Without expected answers nothing in any form says better, worse, right or good of the candidate."""
    found = replace(dossiers.verdict(), against=certify.AGREEMENT, noise=None, incumbent_mean=1.0, candidate_mean=0.97)
    evidence = dossiers.evidence(key=key, verdict=found, costs=None)
    made = dossier.compose(evidence)
    assert made.headline == f"{NAME} answers as gpt-4o-mini does, within the margin."
    assert "agreement with the incumbent" in all_figures(made)["verdict.against"].shown
    assert "loss of agreement" in made.plain and any(
        "Agreement with the incumbent is all" in one for one in made.points
    )
    assert all_figures(made)["numbers.noise"].kind is Known.MISSING
    said = [chapter for chapter in made.chapters if chapter.id in ("verdict", "numbers", "flips")]
    text = msgspec.json.encode([said, made.headline, made.plain, made.sentence, made.summary]).decode().lower()
    for ours in (
        "flips.worse",
        "flips.better",
        "worse, since nothing came",
    ):  # ids, and what is worse than agreeing less
        text = text.replace(ours, "")
    assert not re.search(r"\b(better|worse|good enough)\b", text), text
    picture = " ".join(line.text for line in signed.render(made, "html") if line.owner == "picture.verdicts")
    assert "agrees less" in picture and "worse</text>" not in picture


def test_no_text_of_a_call_is_in_it_unless_it_is_wanted(key):
    """By default ids, scores, our own words and the names of the task's own fields; with texts, both answers."""
    found = dossiers.with_texts(dossiers.evidence(key=key))
    without = dossier.compose(replace(found, with_text=False))
    for form in dossier.FORMS:
        content = signed.body(without, form).decode().replace("\\", "")
        for text in ("A-1177", "A-1771", "Jana", "Nordwind", "secret-field", "customer-", "9,000 tokens"):
            assert text not in content, (form, text)
        assert "No text of a call is in this dossier" in content
        assert "context length exceeded" in content and "quantity, 1 other field" in content
        whole = signed.body(dossier.compose(found), form).decode().replace("\\", "")
        assert "Jana Weiß here from Nordwind" in whole and "may hold personal data" in whole
    assert all_figures(without)["privacy.text"].value is False


def test_few_groups_synthetic_data_and_a_judge_are_among_the_limits(key):
    """Only where they are so."""
    evidence = dossiers.evidence(key=key)
    plain = replace(evidence.task, about="Read tickets", terms="by contract")
    real = replace(evidence, task=plain, terms=(("by contract", 3),))
    few = replace(real, verdict=replace(real.verdict, groups=12, judge={"n": 40}))
    said = {name: " ".join(dossier.compose(one).chapters[-2].parts[0].points) for name, one in
            {"synthetic": evidence, "real": real, "few": few}.items()}  # fmt: skip
    assert "synthetic" in said["synthetic"] and "synthetic" not in said["real"]
    assert "only 12 groups" in said["few"] and "groups" not in said["real"]
    assert "A model judged" in said["few"] and "A model judged" not in said["real"]


def test_long_lists_are_cut_and_say_so(key):
    """Thirty calls of each kind; the rest is counted."""
    made = dossier.compose(dossiers.evidence(key=key))
    tables = {table.id: table for table in chapters.tables(made)}
    assert len(tables["flips.worse-list"].rows) == 30 and tables["flips.worse-list"].whole == 40
    assert lines.rows_note(tables["flips.worse-list"]) == "And 10 more."
    assert tables["flips.failed-list"].rows == (("call-0312", "1", "0", "context length exceeded"),)
    assert [row[:2] for row in tables["flips.fields"].rows] == [("order", "39"), ("quantity", "1")]


def test_a_bad_proof_and_an_adapter_that_was_not_certified_are_told(key):
    """A signature that does not fit, an attempt that got out, another file than the one that was tuned."""
    evidence = dossiers.evidence(key=key)
    bad = replace(evidence.privacy.proof, wrong=("the signature does not fit",))
    found = all_figures(dossier.compose(replace(evidence, privacy=replace(evidence.privacy, proof=bad))))
    assert found["privacy.proof"].value is None and "NOT GOOD: the signature" in found["privacy.proof"].shown
    broken = replace(evidence.privacy.proof, verdict="broken", reasons=("the engine could connect over TCP",))
    found = all_figures(dossier.compose(replace(evidence, privacy=replace(evidence.privacy, proof=broken))))
    assert found["privacy.reason-1"].shown == "the engine could connect over TCP"
    other = replace(evidence.tuning, adapter_digest="sha256:" + "00" * 32)
    assert all_figures(dossier.compose(replace(evidence, tuning=other)))["tuning.same"].value is False


def test_an_estimate_that_is_no_number_is_left_out(key):
    """The verdict's reason stands in its place, and the file can be read again."""
    none = replace(dossiers.verdict(Outlook.UNDECIDED), estimate=None, why="All calls are in 1 group.", needed=None)
    made = dossier.compose(dossiers.evidence(key=key, verdict=none))
    assert all_figures(made)["numbers.difference"].kind is Known.MISSING
    assert "All calls are in 1 group." in made.plain
    odd = replace(dossiers.verdict(), estimate=replace(dossiers.verdict().estimate, lower=float("-inf")))
    content = dossier.write(dossier.compose(dossiers.evidence(key=key, verdict=odd)), "html", key)
    assert dossier.check(content, [key.public]).good


# pictures


def test_the_stacked_picture_says_what_the_wide_one_says():
    """Every candidate, its outcome and numbers; at a telephone's width too, and inside its own frame."""
    verdicts = [dossiers.verdict(outcome) for outcome in Outlook]
    for width in (340, 680):
        text = svg.inline(verdicts, width)
        for outcome in Outlook:
            assert f">{outcome.value}</text>" in text
        assert "<style" not in text and "xmlns" not in text and text.count("<title") == 4
        places = [float(place) for place in re.findall(r'\b(?:x|x1|x2|cx)="([\d.]+)"', text)]
        assert places and max(places) <= width


@pytest.mark.parametrize("width", [340, 680])
@pytest.mark.parametrize(("lower", "upper"), [(-1.0, 0.06), (-0.04, 0.01), (0.2, 0.9), (-0.031, -0.029), (-0.9, -0.7)])
def test_no_word_of_the_stacked_picture_is_cut_off_or_runs_into_another(width, lower, upper):
    """Wherever zero and the margin are."""
    estimate = replace(dossiers.verdict().estimate, difference=(lower + upper) / 2, lower=lower, upper=upper)
    drawn = svg.inline([replace(dossiers.verdict(), estimate=estimate)], width)
    rows: dict[str, list[tuple[float, float]]] = {}
    for kind, x, y, anchor, said in re.findall(
        r'<text class="([^"]+)" x="([\d.]+)" y="([\d.]+)"(?: text-anchor="(\w+)")?>([^<]+)</text>', drawn
    ):
        wide = svg._wide(14 if "name" in kind else 12, html.unescape(said))
        start = float(x) - {"": 0, "middle": wide / 2, "end": wide}[anchor]
        if "tick" not in kind:
            assert start >= -1 and start + wide <= width + 1, said
        rows.setdefault(y, []).append((start, start + wide))
    for words in rows.values():
        assert all(one[1] <= other[0] + 1 for one, other in itertools.pairwise(sorted(words))), rows


def test_the_curve_is_drawn_from_its_points():
    """Falling loss falls, the kept checkpoint is marked, and no number that is none is drawn."""
    points = dossiers.run().curve
    text = curve.curve(points, 100, 680)
    first, *_, last = re.search(r'class="fh-trained" points="([^"]+)"', text)[1].split(" ")
    assert float(first.split(",")[1]) < float(last.split(",")[1])  # further down the page
    assert ">kept</text>" in text and "Validation loss from" in text
    odd = (CurvePoint(1, 0.1, 10, float("nan")), CurvePoint(2, 0.2, 20, 0.0), CurvePoint(3, 0.3, 30, 1.0, float("inf")))
    assert "nan" not in curve.curve(odd, 0, 340) and "inf" not in curve.curve(odd, 0, 340)
    assert "<svg" in curve.curve((), 0, 340)


def test_many_points_of_a_curve_are_thinned_and_its_ends_kept():
    """The document does not grow with the run."""
    from freehold.dossier import tuning

    points = tuple(CurvePoint(step, 0.0, step, 1.0, 1.0 if step % 10 == 0 else None) for step in range(1, 5_001))
    kept = tuning.curve(replace(dossiers.run(), curve=points))
    assert len(kept) == 200 and (kept[0].step, kept[-1].step) == (1, 5_000)
    assert [point.step for point in kept] == sorted(point.step for point in kept)


# the store


TEXT = """name = "t"
margin = 0.05
terms = "synthetic; none"
[scorer]
kind = "exact"
[splits]
tuning = 0
validation = 0
"""
RIGHT, WRONG = Answer("right"), Answer("wrong")


class House:
    """A home in which two candidates answered every call of the task ``t``, and its commands."""

    def __init__(self, folder: Path, capsys):
        self.folder, self.home, self._capsys = folder, folder / "home", capsys
        (folder / "task.toml").write_text(TEXT)
        assert self("tasks", "add", str(folder / "task.toml"))[0] == 0
        with self.parts() as parts:
            given = {"answer": RIGHT, "expected": RIGHT, "incumbent": "big"}
            calls = [Sample(f"s{n:03}", {"prompt": f"ask {n}"}, at=1e9 + n, **given) for n in range(300)]
            parts.samples.keep("t", calls)
            for name, wrong in (("good", 100), ("bad", 2)):
                candidate = parts.results.candidate(name, "sha256:" + name, {"seed": 0}, "fake")
                parts.results.put_answers(
                    "t", candidate.key, [Replayed(f"s{n:03}", WRONG if n % wrong == 1 else RIGHT) for n in range(300)]
                )

    def parts(self):
        home = Home(self.home, create=False)
        return app.parts(home, config.load(home.folder))

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = command.main(["--home", str(self.home), *words])
        out = self._capsys.readouterr()
        return code, out.out, out.err

    def look(self, *names: str) -> None:
        for name in names:
            assert self("certify", "t", "--candidate", name)[0] in (0, 1)

    def make(self, name: str = "d.html", *words: str) -> Path:
        path = self.folder / name
        code, _, said = self("report", "t", "-o", str(path), *words)
        assert code == 0, said
        return path


@pytest.fixture
def house(tmp_path, capsys):
    return House(tmp_path, capsys)


def test_without_a_verdict_there_is_no_dossier(house):
    """The next step is said; no file, no event."""
    code, _, said = house("report", "t", "-o", str(house.folder / "d.html"))
    assert code == 2 and "no verdict for 't' yet" in said and "freehold certify t --candidate" in said
    assert not (house.folder / "d.html").exists()
    house.look("good")
    code, _, said = house("report", "t", "--candidate", "other", "-o", str(house.folder / "d.html"))
    assert code == 2 and "Nobody has looked at other" in said and "good" in said


def test_a_report_is_no_look_and_changes_nothing_but_the_chain(house):
    """One event, with the digest of the very file; scores, looks and answers are what they were."""
    house.look("good", "bad")
    with house.parts() as parts:
        before = parts.results.looks("t", 1), [event.act for event in parts.ledger.events()]
    path = house.make()
    with house.parts() as parts:
        assert parts.results.looks("t", 1) == before[0]
        *old, event = parts.ledger.events()
        assert [one.act for one in old] == before[1]
        assert (event.act, event.subject, event.detail["form"]) == ("dossier.made", "t", "html")
        assert event.detail["sha256"] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_figures_are_those_of_the_verdict(house):
    """As 'freehold certify' gives them; the candidate that may take over is chosen, whoever was looked at last."""
    house.look("good", "bad")
    (verdict,) = [one for one in json.loads(house("certify", "t", "--json")[1]) if one["candidate"]["name"] == "good"]
    made = json.loads(house.make("d.json").read_bytes())["dossier"]
    found = {
        figure["id"]: figure for chapter in made["chapters"] for part in chapter["parts"] for figure in part["figures"]
    }
    assert made["candidate"] == "good" and made["outcome"] == "non-inferior"
    for name, field in (
        ("calls", "calls"),
        ("groups", "groups"),
        ("candidate", "candidate_mean"),
        ("margin", "margin"),
    ):
        assert found[f"numbers.{name}"]["value"] == verdict[field]
    assert found["numbers.difference"]["value"] == verdict["estimate"]["difference"]
    assert found["numbers.interval"]["value"] == [verdict["estimate"]["lower"], verdict["estimate"]["upper"]]
    assert found["flips.worse"]["value"] == verdict["worse"] == 3
    assert made["incumbent"] == "big" and [one["candidate"]["name"] for one in made["verdicts"]] == ["good", "bad"]
    other = json.loads(house.make("b.json", "--candidate", "bad").read_bytes())["dossier"]
    assert other["outcome"] == "inferior" and "is not good enough" in other["headline"]


@pytest.mark.parametrize("name", ["d.html", "d.md", "d.json"])
def test_the_command_makes_and_checks(house, name):
    """Exit code 0 for what is good; 1, with the name of the figure, for what was changed; 2 for what is no dossier."""
    house.look("good")
    path = house.make(name)
    code, out, _ = house("report", "verify", str(path))
    assert code == 0 and "not a byte was changed" in out and "t: good, non-inferior" in out
    code, out, _ = house("report", "verify", str(path), "--recompute")
    assert code == 0 and "Every figure was worked out again from the store, and is the same." in out
    path.write_bytes(path.read_bytes().replace(b"300", b"900", 1))
    code, out, _ = house("report", "verify", str(path))
    assert code == 1 and "THIS DOSSIER IS NOT GOOD: the file was changed" in out
    assert "  plain (what the verdict means)\n" in out or "  numbers.calls (Calls compared" in out
    path.write_bytes(b"nothing of the kind")
    code, _, said = house("report", "verify", str(path))
    assert code == 2 and "carries no signature" in said
    assert house("report", "verify", str(house.folder / "none"))[0] == 2


def test_elsewhere_the_key_has_to_be_given(house, tmp_path, capsys):
    """In base64, in a file, as PEM or by its fingerprint; without it the file is whole and not trusted."""
    house.look("good")
    path = house.make()
    code, out, _ = house("report", "--public-key")
    public, fingerprint = out.split()
    assert json.loads(house("report", "--public-key", "--json")[1]) == {
        "public_key": public,
        "fingerprint": fingerprint,
    }
    nowhere = ["--home", str(tmp_path / "nowhere")]

    def check(*words: str) -> tuple[int, str, str]:
        code = command.main([*nowhere, "report", "verify", str(path), *words])
        out = capsys.readouterr()
        return code, out.out, out.err

    code, out, _ = check()
    assert code == 1 and out.startswith("NOT TRUSTED") and fingerprint in out
    (tmp_path / "key").write_text(public + "\n")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
    (tmp_path / "key.pem").write_bytes(raw.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for given in (public, fingerprint, str(tmp_path / "key"), str(tmp_path / "key.pem")):
        assert check("--key", given)[0] == 0, given
    other = base64.b64encode(b"x" * 32).decode()
    code, out, _ = check("--key", other)
    assert code == 1 and "unknown key" in out
    assert check("--key", "nonsense")[0] == 2
    assert check("--recompute", "--key", public)[0] == 2 and not (tmp_path / "nowhere").exists()
    facts = json.loads(check("--json")[1])
    assert not facts["good"] and not facts["known"] and facts["signer"] == fingerprint


def test_a_file_that_the_chain_does_not_know_is_not_good_here(house):
    """Whoever has the key and not the home cannot slip one in."""
    house.look("good")
    with house.parts() as parts, parts.bench(parts.tasks.get("t"), lambda *told: None, asking=False) as bench:
        sources = sources_of(parts, bench)
        _, content = report.make(sources, parts.tasks.get("t"), "html", at=AT)
    path = house.folder / "slipped.html"
    path.write_bytes(content)
    code, out, _ = house("report", "verify", str(path))
    assert code == 1 and "the audit chain of this home knows nothing of it" in out


def sources_of(parts, bench) -> report.Sources:
    return report.Sources(
        parts.home, parts.settings, parts.vault, parts.ledger, parts.samples, parts.results, bench,
        parts.signed, parts.costs,
    )  # fmt: skip


def test_a_changed_store_is_found_and_each_figure_named(house):
    """A score that was changed behind Freehold's back changes what is worked out again."""
    house.look("good")
    path = house.make()
    with house.parts() as parts:
        parts.results.put_scores("t", "incumbent", digest_of(parts), {"s005": Score(0.0)})
    code, out, _ = house("report", "verify", str(path), "--recompute")
    assert code == 1 and "THE STORE HAS OTHER FIGURES" in out
    assert "numbers.incumbent (Incumbent)\n    signed:   100.00%\n    now:      99.67%" in out
    assert "flips.better (Better)" in out and "numbers.difference (Difference)" in out
    assert "numbers.calls" not in out and house("report", "verify", str(path))[0] == 0  # the file is as it was


def test_answers_that_were_changed_and_calls_that_were_erased_are_found(house):
    """There is no verdict then that could be compared, and that is what is said."""
    house.look("good")
    path = house.make()
    with house.parts() as parts:
        (candidate,) = [one for one in parts.results.candidates("t") if one.name == "good"]
        parts.results.put_answers("t", candidate.key, [Replayed("s005", WRONG)])
    code, out, _ = house("report", "verify", str(path), "--recompute")
    assert code == 1 and "verdict.outcome (Verdict)\n    signed:   non-inferior" in out and "other answers than" in out
    with house.parts() as parts:
        parts.samples.erase("t", before=1e9 + 5)
    code, out, _ = house("report", "verify", str(path), "--recompute")
    assert code == 1 and "changed or erased" in out


def digest_of(parts) -> str:
    with parts.scorer(parts.tasks.get("t")) as scorer:
        return scorer.digest


def test_what_came_later_does_not_make_an_older_dossier_wrong(house):
    """Another look at the same answers, a later proof and later events: figures of the moment alone differ."""
    house.look("good")
    path = house.make()
    house.look("good")
    house.make("second.html")
    code, out, _ = house("report", "verify", str(path), "--recompute")
    assert code == 0 and "Of the moment, and not the same now" in out and "numbers.looks" in out
    facts = json.loads(house("report", "verify", str(path), "--recompute", "--json")[1])
    assert facts["good"] and [one["id"] for one in facts["of_the_moment"]] == ["numbers.looks"]


def test_a_second_candidate_makes_an_older_dossier_differ(house):
    """The two share the error rate now, so its interval is no longer what it was: that is named."""
    house.look("good")
    path = house.make()
    house.look("bad")
    code, out, _ = house("report", "verify", str(path), "--recompute")
    assert code == 1 and "THE STORE HAS OTHER FIGURES" in out and "numbers.interval (Interval)" in out


def test_answers_that_nobody_looked_at_are_not_reported(house):
    """They are for 'freehold certify', on the record; the report neither scores them nor looks."""
    house.look("good")
    with house.parts() as parts:
        (candidate,) = [one for one in parts.results.candidates("t") if one.name == "good"]
        parts.results.put_answers("t", candidate.key, [Replayed("s005", WRONG)])
    code, _, said = house("report", "t", "-o", str(house.folder / "d.html"))
    assert code == 2 and "other answers than at the last look" in said and "freehold certify t" in said
    with house.parts() as parts:
        assert len(parts.results.looks("t", 1)) == 1 and "s005" not in parts.results.scores(
            "t", candidate.key, digest_of(parts)
        )


def test_texts_are_only_taken_from_the_store_where_they_are_wanted(house):
    """And the word is kept: a dossier with texts is worked out again with them."""
    house.look("good")
    without, having = house.make("a.md").read_text(), house.make("b.md", "--with-text")
    assert "ask 101" not in without and "ask 101" in having.read_text() and "candidate: wrong" in having.read_text()
    assert house("report", "verify", str(having), "--recompute")[0] == 0


def test_the_forms_are_told_by_the_name_and_printed_where_there_is_none(house):
    """A page is never printed; another form, without a file, is."""
    house.look("good")
    code, out, _ = house("report", "t", "--format", "md")
    assert code == 0 and out.startswith("# good is good enough")
    code, out, _ = house("report", "t", "--format", "json")
    assert code == 0 and json.loads(out)["dossier"]["candidate"] == "good"
    assert house.make("x.dat").read_bytes().startswith(b"<!doctype html>")
    for words in (["t"], ["t", "--format", "html"], [], ["t", "file"], ["t", "-o", "/nowhere/d.html"]):
        assert house("report", *words)[0] == 2, words


def test_the_proof_calls_and_tuning_run_of_the_home_are_in_it(house):
    """The latest proof until then, calls by the name that was called, and the run of the adapter's digest."""
    house.look("good")
    key = sign.SigningKey.load(house.home / "signing-key.pem")
    with house.parts() as parts:
        for at, verdict in ((1e9, "broken"), (1.1e9, "holds"), (9e9, "broken")):
            row = prove.Row("engine", "tcp", "connect over TCP", "got through", "refused", "blocked")
            record = prove.Record("Nothing can.", verdict, at, "0.5.0", "6.1", "best", (row,), (), ())
            prove.keep(record, parts.home.proofs, parts.home.signing_key, parts.ledger, actor="me")
        (parts.home.proofs / "privacy-broken.json").write_text("{")
        run = replace(dossiers.run(), adapter_digest="sha256:good")
        runs.keep(parts.home.tuning, run, key)
        with parts.bench(parts.tasks.get("t"), lambda *told: None, asking=False) as bench:
            found = report.gather(
                sources_of(parts, bench), parts.tasks.get("t"), at=AT, candidate="", with_text=False, key=key.public,
                signer=key.fingerprint,
            )  # fmt: skip
    assert (found.privacy.proof.verdict, found.privacy.proof.at, found.privacy.proof.wrong) == ("holds", 1.1e9, ())
    assert [(one.name, one.role) for one in found.privacy.departures] == [("good", "candidate"), ("big", "incumbent")]
    assert found.tuning == run and found.terms == (("synthetic; none", 300),)
    assert found.splits["certification"].calls == 300 and not found.machine.processor.startswith("/")


def test_calls_that_left_are_counted_by_the_name_that_was_called(house):
    """Up to a moment, and only those that were sent to an upstream as left."""
    from sqlalchemy import insert

    from freehold.store import calls

    with house.parts() as parts:
        rows = [
            {"id": f"c{n}", "opened_at": float(n), "caller": "me", "kind": "chat.completions",
             "model": "a" if n < 6 else "b", "left_the_house": n % 2 == 0} for n in range(8)
        ]  # fmt: skip
        with parts.store.write() as connection:
            connection.execute(insert(calls), rows)
        assert parts.ledger.sent(["a", "b", "c"], 6.0) == {"a": (6, 3), "b": (1, 1)}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "a"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]}, "a"),
        ({"prompt": "a\n b"}, "a b"),
        ({"input": "a"}, "a"),
        ({"messages": []}, ""),
        ({}, ""),
        ({"prompt": {"odd": 1}}, '{"odd":1}'),
    ],
)
def test_what_a_call_asks_is_its_last_question(request_, said):
    """Whatever form the request has."""
    assert report.asked(Sample("s", request_)).strip() == said


def test_verdicts_as_they_stand_ask_no_judge(tmp_path):
    """What a judge could not judge stays as it was found, and no server is needed."""
    from test_certify import Bed, judged

    rows = "\n".join(f'{{"sample": "s{n:04}", "candidate": "a", "better": "tie"}}' for n in range(40))
    (tmp_path / "labels.jsonl").write_text(rows)
    scorer = {"kind": "judge", "model": "m", "criteria": "which is kinder", "labels": "labels.jsonl"}
    bed = Bed(tmp_path, Task("t", scorer, 0.1, tuning=0.0, validation=0.0))
    bed.calls(200)
    candidate = bed.candidate("a", 200, 200)
    assert certify.standing(bed.bench, bed.task) == []
    judged(bed, [0.5] * 200)
    given = bed.verdict(candidate)
    bed.judge = lambda rows: pytest.fail("the judge was asked")
    assert certify.standing(bed.bench, bed.task) == [given]
    assert len(bed.results.looks("t", 1)) == 1
    bed.close()


def test_the_newest_look_is_the_last_verdict(house):
    """In the order of the looks, whichever candidate was the first of all."""
    house.look("good", "bad", "good")
    with house.parts() as parts, parts.bench(parts.tasks.get("t"), lambda *told: None, asking=False) as bench:
        assert [one.candidate.name for one in certify.standing(bench, parts.tasks.get("t"))] == ["bad", "good"]


def test_results_that_are_only_read_take_no_score(house):
    """And nothing is refused where there is nothing to keep."""
    with house.parts() as parts:
        kept = parts.results.kept()
        kept.put_scores("t", "x", "s", {})
        with pytest.raises(NotDecidable, match="1 answers"):
            kept.put_scores("t", "x", "s", {"a": Score(1.0)})
        assert parts.results.scores("t", "x", "s") == {}
