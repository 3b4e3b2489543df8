"""The pictures of a verdict say what its numbers say, whoever chose the names."""

import io
import itertools
import math
import random
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from freehold.chart import svg, terminal, words
from freehold.chart.scale import scale
from freehold.types.traffic import Candidate, Estimate, Outlook, Verdict

GOOD, BAD, OPEN = Outlook.NON_INFERIOR, Outlook.INFERIOR, Outlook.UNDECIDED
SVG = "{http://www.w3.org/2000/svg}"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def verdict(name="small", difference=-0.008, lower=-0.029, upper=0.013, outcome=GOOD, **more) -> Verdict:
    estimate = None if difference is None else Estimate(difference, lower, upper, 0.025, 0.02, "cluster bootstrap")
    facts = {
        "task": "tickets", "why": "It is so.", "margin": 0.03, "fixed_at": 0.0, "against": "expected answers",
        "measures": "all fields right", "calls": 812, "groups": 290, "incumbent_mean": 0.9, "candidate_mean": 0.9,
        "worse": 31, "better": 24, "psi": 0.07, "certifiable": 0.026, "needed": 1309,
        "needed_groups": 122, "look": 1, "looks": 1, "errors": 0, "split": "certification",
    }  # fmt: skip
    return Verdict(candidate=Candidate(name, "sha256:00"), outcome=outcome, estimate=estimate, **(facts | more))


LONG = "an-organisation/a-model-whose-name-goes-on-and-on-and-on-until-somebody-cuts-it-Q4_K_M.gguf"
EIGHT = [
    verdict(),
    verdict("medium-instruct", -0.055, -0.078, -0.034, BAD),
    verdict(LONG, -0.01, -0.05, 0.03, OPEN, calls=240, groups=31),
    verdict("few groups", None, outcome=OPEN, calls=12, groups=2),
    verdict("narrow", -0.0012, -0.0013, -0.0011),
    verdict("wide", -0.02, -0.6, 0.55, OPEN, calls=1_234_567, groups=98_765),
    verdict("模型名称很长很长很长很长很长很长很长", 0.021, 0.002, 0.04),
    verdict("far", -0.21, -0.25, -0.17, BAD, margin=0.05),
]
HOSTILE = [
    "<script>alert(1)</script>",
    "a\"b&c'>",
    "\x1b[31mred\x07",
    "\u202eeltit",
    "]]>",
    "a\x00b",
    "\ud800",
    "\uffff",
]


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def having(root, kind: str) -> list:
    return [element for element in root.iter() if kind in element.get("class", "").split()]


def ruler(root):
    """From a place across the page to points, as the picture's own ticks have it."""
    ticks = [float(line.get("x1")) for line in having(root, "fh-tick")]
    labels = [float(text.text.replace("−", "-")) for text in having(root, "fh-tick-text")]
    slope = (labels[-1] - labels[0]) / (ticks[-1] - ticks[0])
    return lambda x: labels[0] + (float(x) - ticks[0]) * slope


@pytest.mark.parametrize("number", [0, 1, 2, 8])
def test_the_svg_is_well_formed_and_says_what_it_shows(number):
    """It has a title and a description, which names every candidate with its outcome and its numbers."""
    root = parsed(svg.verdicts(EIGHT[:number]))
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    for each in EIGHT[:number]:
        said = f"{each.candidate.name}: {each.outcome.value}; {words.interval(each)} points"
        assert said in description.text


def test_the_svg_refers_to_nothing_outside_itself():
    """No script, no link, no image, no font from elsewhere and no event handler, whatever the names are."""
    text = svg.verdicts([*EIGHT, *(verdict(name, why=name, task=name) for name in HOSTILE)])
    root = parsed(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "g", "rect", "line", "circle", "polygon", "text"}
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on") or "href" in name]
    assert not re.search(r"url\(|@import|@font-face|https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_nothing_else(name):
    """A name never becomes mark-up, and characters that turn, hide or break text are replaced."""
    root = parsed(svg.verdicts([verdict(name, task=name, why=name)]))
    shown = having(root, "fh-text")[0].text
    assert shown == words.clean(name)
    assert not set(shown) & set("\x00\x07\x1b\u202e\ud800\uffff")


@pytest.mark.parametrize("number", range(1, 9))
def test_the_svg_draws_the_numbers(number):
    """Intervals reach from bound to bound, points are estimates, lines zero and the margin: by the picture's ticks."""
    chosen = EIGHT[:number]
    root = parsed(svg.verdicts(chosen))
    points = ruler(root)
    assert float(points(having(root, "fh-zero")[0].get("x1"))) == pytest.approx(0, abs=0.05)
    margins = [points(line.get("x1")) for line in having(root, "fh-margin")]
    assert margins == [
        pytest.approx(-100 * margin, abs=0.05) for margin, _ in itertools.groupby(chosen, lambda v: v.margin)
    ]
    axis = scale(chosen, 8)
    drawn = [line for line in having(root, "fh-interval") if "fh-cap" not in line.get("class")]
    marks = having(root, "fh-point")
    found = [each.estimate for each in chosen if each.estimate]
    assert len(drawn) == len(marks) == len(found)
    for line, mark, estimate in zip(drawn, marks, found, strict=True):
        assert points(line.get("x1")) == pytest.approx(max(estimate.lower * 100, axis.low), abs=0.05)
        assert points(line.get("x2")) == pytest.approx(min(estimate.upper * 100, axis.high), abs=0.05)
        x = mark.get("cx") or float(mark.get("x")) + float(mark.get("width")) / 2
        assert points(x) == pytest.approx(estimate.difference * 100, abs=0.05)


def test_an_interval_beyond_the_axis_ends_in_arrows():
    """One for each end that is cut; whole intervals have none."""
    wide = verdict(difference=0.0, lower=-0.9, upper=0.01, outcome=OPEN)
    assert len(having(parsed(svg.verdicts([wide])), "fh-arrow")) == 1
    assert len(having(parsed(svg.verdicts([verdict()])), "fh-arrow")) == 0
    assert "◀" in terminal.verdicts([wide]) and "▶" not in terminal.verdicts([wide])


def test_outcomes_differ_in_shape_and_word():
    """Without colour a disc, a square and a ring are left, and the words."""
    root = parsed(svg.verdicts([verdict(outcome=outcome) for outcome in Outlook]))
    shapes = [(mark.tag, "fh-hollow" in mark.get("class")) for mark in having(root, "fh-point")]
    assert len(set(shapes)) == 3
    text = terminal.verdicts([verdict(outcome=outcome) for outcome in Outlook])
    assert all(outcome.value in text for outcome in Outlook)


def test_the_same_verdicts_give_the_same_bytes():
    """And another verdict others, also in the ids, so that two pictures can stand in one page."""
    assert svg.verdicts(EIGHT) == svg.verdicts(list(EIGHT))
    one, two = (parsed(svg.verdicts([verdict(name)])) for name in ("one", "two"))
    assert one.find(f"{SVG}title").get("id") != two.find(f"{SVG}title").get("id")


def test_texts_stay_on_the_page_and_apart():
    """By a cautious guess of their width, no text of a row reaches into the next column or over the edge."""
    forest = svg._Forest(EIGHT)
    for text in having(parsed(svg.verdicts(EIGHT)), "fh-name"):
        x, wide = float(text.get("x")), svg._wide(14, text.text)
        assert x + wide <= (forest.left if x < forest.left else svg.WIDTH)


def test_agreement_is_called_agreement():
    """Where the incumbent's answers are all there is, neither picture speaks of being better or worse."""
    agreed = [verdict(against="the incumbent's answers")]
    text = " ".join(parsed(svg.verdicts(agreed)).itertext())
    assert "agreement with the incumbent" in text and "agrees less" in text
    assert "candidate worse" not in text and "candidate better" not in text
    assert "agreement with the incumbent" in terminal.verdicts(agreed, 200)
    assert "agreement" not in terminal.verdicts([verdict()], 200)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("number", [1, 2, 8])
def test_no_line_is_wider_than_the_terminal(number, plain):
    """At every width from 40 to 200 columns, with long and wide names."""
    for width in range(40, 201):
        for line in terminal.verdicts(EIGHT[:number], width, plain=plain).splitlines():
            assert words.cells(line) <= width, (width, line)


def test_colour_only_repeats_what_is_there():
    """Without its colours the picture is the monochrome one; and the monochrome one has no escape in it."""
    names = [*EIGHT, *(verdict(name) for name in HOSTILE)]
    plainly = terminal.verdicts(names, 100)
    assert "\x1b" not in plainly
    assert COLOUR.sub("", terminal.verdicts(names, 100, colour=True)) == plainly
    parts = [("tuning", 480), ("validation", 120)]
    assert COLOUR.sub("", terminal.stacked(parts, colour=True)) == terminal.stacked(parts)
    assert COLOUR.sub("", terminal.bars(parts, colour=True)) == terminal.bars(parts)


def test_plain_is_ascii():
    """A terminal that does not speak UTF-8 gets nothing else, in every picture."""
    names = [*EIGHT, *(verdict(name) for name in HOSTILE)]
    parts = [("größe", 3), ("模型", 4)]
    for text in (
        terminal.verdicts(names, 80, plain=True),
        terminal.bars(parts, plain=True),
        terminal.stacked(parts, plain=True),
        terminal.histogram([1, 2, 3, 900], plain=True),
    ):
        assert text.isascii()


@pytest.mark.parametrize(
    ("encoding", "needed"), [("UTF-8", False), ("utf8", False), ("latin-1", True), (None, True), ("no such", True)]
)
def test_only_utf8_gets_lines_and_blocks(encoding, needed):
    """Any other encoding, and none at all, needs plain characters."""
    assert terminal.needs_plain(encoding) is needed


def columns(text: str, name: str) -> tuple[str, int]:
    """A candidate's line, and how far into it the picture begins."""
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith(name))
    axis = next(line for line in lines if "┴" in line)
    return row, len(axis) - len(axis.lstrip())


@pytest.mark.parametrize("width", [60, 80, 133, 200])
def test_the_terminal_draws_the_numbers(width):
    """Each end and the point lie in the column that the axis gives them, or beside it."""
    chosen = [verdict(), verdict("medium", -0.055, -0.078, -0.034, BAD)]
    text = terminal.verdicts(chosen, width)
    forest = terminal._Forest(chosen, width, False, terminal._Pen())
    for each in chosen:
        row, begin = columns(text, each.candidate.name)
        for mark, value in (
            ("├", each.estimate.lower), ("●", each.estimate.difference), ("┤", each.estimate.upper)
        ):  # fmt: skip
            share = forest.scale.share(value * 100)
            assert abs(row.index(mark) - begin - share * (forest.plot - 1)) <= 1.5


@pytest.mark.parametrize("width", range(60, 121))
def test_a_bound_off_the_margin_is_drawn_beside_it(width):
    """However coarse the columns are, an interval that clears the margin on either side is seen to clear it."""
    row, _ = columns(terminal.verdicts([verdict(lower=-0.0299)], width), "small")
    assert "┊" in row and row.index("┊") < row.index("●")
    row, _ = columns(terminal.verdicts([verdict("bad", -0.05, -0.07, -0.0301, BAD)], width), "bad")
    assert "┊" in row and row.index("●") < row.index("┊")


def test_no_interval_is_said_and_not_drawn():
    """A verdict without an estimate, or with one that is no number, has a row without a point."""
    for each in (verdict(difference=None), verdict(difference=math.nan), verdict(lower=math.nan)):
        text = terminal.verdicts([each])
        assert "no interval" in text and "●" not in text
        assert not having(parsed(svg.verdicts([each])), "fh-point")


def test_infinite_bounds_are_arrows():
    """An interval without an end is drawn to the edge of the axis."""
    endless = verdict(lower=-math.inf, upper=math.inf, outcome=OPEN)
    assert {"◀", "▶"} < set(terminal.verdicts([endless]))
    assert len(having(parsed(svg.verdicts([endless])), "fh-arrow")) == 2


shares = st.floats(-1, 1)
estimates = st.tuples(shares, shares, shares).map(sorted)


@given(
    st.lists(st.tuples(st.text(max_size=60), estimates, st.floats(0, 1), st.sampled_from(list(Outlook))), max_size=5),
    st.integers(40, 200),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_verdicts_can_be_drawn(found, width, plain):
    """Whatever names, numbers and margins: XML that parses, lines that fit."""
    drawn = [verdict(name, e[1], e[0], e[2], outcome, margin=margin) for name, e, margin, outcome in found]
    parsed(svg.verdicts(drawn))
    for line in terminal.verdicts(drawn, width, plain=plain).splitlines():
        assert words.cells(line) <= width


def test_a_histogram_counts_every_value_once():
    """Whatever is drawn, the counts add up, and there are no more classes than asked for."""
    chance = random.Random(5)
    for values in (
        [chance.randrange(1, 500) for _ in range(300)], [int(chance.lognormvariate(4, 2)) for _ in range(300)],
        [7], [0, 0], [1000, 1003], [0.1, 0.25, 0.3],
    ):  # fmt: skip
        lines = terminal.histogram(values, most=10).splitlines()
        assert len(lines) <= 11
        assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == len(values)
    assert terminal.histogram([]) == "none\n"


def test_a_value_lies_in_its_class():
    """A class holds its lower edge and not its upper one, which is the next one's."""
    lines = terminal.histogram([0, 10, 10, 99, 100], unit="tokens").splitlines()
    assert lines[0].split()[0] == "0" and lines[0].endswith(" 1")
    assert lines[1].strip().startswith("10 – 20 tokens") and lines[1].endswith(" 2")
    assert lines[-1].strip().startswith("90 – 100 tokens") and lines[-1].endswith(" 2")


def test_bars_are_as_long_as_their_values():
    """The largest fills the room, half of it is half as long, and what is not zero is seen."""
    lines = terminal.bars([("a", 1000), ("b", 500), ("c", 1), ("d", 0)], 60).splitlines()
    lengths = [len(re.sub("[^█▏▎▍▌▋▊▉]", "", line)) for line in lines]
    assert lengths[0] == max(lengths) and abs(lengths[1] - lengths[0] / 2) <= 1
    assert lengths[2:] == [1, 0]


def test_a_stacked_bar_is_shared_by_counts_and_told_apart_without_colour():
    """Its parts have fillings of their own, which the legend repeats with the counts."""
    lines = terminal.stacked([("tuning", 600), ("validation", 150), ("certification", 250)], 80).splitlines()
    assert len(lines[0]) == 80
    assert [lines[0].count(line[0]) for line in lines[1:]] == [48, 12, 20]
    assert lines[1].endswith("tuning  600 (60%)")
    assert terminal.stacked([("tuning", 0)]) == "none\n"


@pytest.mark.parametrize("width", [40, 61, 200])
def test_bars_fit_the_terminal(width):
    """Long labels, long units and large numbers are cut, not wrapped."""
    rows = [(LONG, 12_345_678_901), ("模型" * 40, 3), ("x", 0)]
    for text in (terminal.bars(rows, width, unit="calls of a kind"), terminal.stacked([(LONG, 5), ("y", 6)], width)):
        assert max(map(words.cells, text.splitlines())) <= width


def test_nothing_to_draw_is_said():
    """No verdicts make a sentence, and an SVG that still parses."""
    assert terminal.verdicts([]) == "No verdicts.\n"
    parsed(svg.verdicts([]))


def test_many_margins_have_a_line_each():
    """Candidates with margins of their own are each held against theirs."""
    root = parsed(svg.verdicts([verdict(), replace(verdict(), margin=0.05)]))
    assert len(having(root, "fh-margin")) == 2
    assert "margin of each" in " ".join(root.itertext())


def test_an_svg_can_be_written_as_utf8():
    """Whatever the names, the text has no half of a surrogate pair left."""
    stream = io.BytesIO(svg.verdicts([verdict(name, why=name) for name in HOSTILE]).encode())
    assert ElementTree.parse(stream).getroot().tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("lower", "shown"),
    [(-0.029, "-2.9"), (-0.0296, "-2.96"), (-0.02996, "-2.996"), (-0.03, "-3.0"), (-0.0304, "-3.04")],
)
def test_a_bound_is_never_rounded_onto_the_margin(lower, shown):
    """A bound of 2.96 points against a margin of 3 is not written as 3.0, which it would seem to touch."""
    assert f"({shown} to" in words.interval(verdict(lower=lower), "-")


def test_a_narrow_interval_keeps_its_width():
    """Bounds that differ are not written as if they were the same."""
    assert words.interval(verdict(difference=-0.0012, lower=-0.0013, upper=-0.0011), "-") == "-0.12 (-0.13 to -0.11)"


@pytest.mark.parametrize("margin", [0.0001, 0.001, 0.03, 0.5])
def test_the_two_captions_never_meet(margin):
    """The margin's ends before its line and zero's begins behind it, however near the lines are."""
    root = parsed(svg.verdicts([verdict(difference=0.6, lower=0.5, upper=0.7, margin=margin)]))
    caption = having(root, "fh-margin-text")[0]
    zero = next(text for text in having(root, "fh-small") if text.text == "no difference")
    assert caption.get("text-anchor") == "end" and zero.get("text-anchor") is None
    assert float(zero.get("x")) - float(caption.get("x")) >= 8
