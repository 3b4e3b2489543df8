"""The verdict: laid down before it is looked at, looked at on the record, and never better than the calls bear."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from freehold import app, certify, config
from freehold.cli import certify as cli_certify
from freehold.cli import local
from freehold.cli import main as command
from freehold.errors import BadTraffic, NotDecidable
from freehold.home import Home
from freehold.ledger import Ledger
from freehold.results import Results
from freehold.samples import Samples
from freehold.scorers import make
from freehold.store import TRAFFIC, Store
from freehold.types import Answer, Candidate, Outlook, Replayed, Sample, Score, Split, Task, ToolCall

TASK = Task("t", {"kind": "exact"}, 0.05, tuning=0.0, validation=0.0)
RIGHT, WRONG = Answer("right"), Answer("wrong")


class Bed:
    """A home's databases with some calls in them, and a bench on top."""

    def __init__(self, folder, task: Task = TASK):
        self.task = task
        self.stores = [Store(folder / "traffic.db", TRAFFIC), Store(folder / "freehold.db")]
        self.samples, self.results = Samples(self.stores[0]), Results(self.stores[0])
        self.ledger = Ledger(self.stores[1])
        self.scorer = make(task, folder)
        self.judge = None

    @property
    def bench(self) -> certify.Bench:
        return certify.Bench(self.samples, self.results, self.ledger, self.scorer, self.scorer.digest, judge=self.judge)

    def calls(self, count: int, *, right: int | None = None, groups: int = 0, start: int = 0, **fields) -> None:
        """So many calls, of which the incumbent had ``right``, the first ones."""
        right = count if right is None else right
        given = {"expected": RIGHT} | fields
        self.samples.keep(
            self.task.name,
            [
                Sample(f"s{n:04}", {"messages": [n]}, at=float(n), group=f"g{n % groups}" if groups else "",
                       **({"answer": RIGHT if n - start < right else WRONG} | given))
                for n in range(start, start + count)
            ],
        )  # fmt: skip

    def candidate(self, name: str, right: int, count: int, *, errors: int = 0, start: int = 0) -> Candidate:
        """A candidate that answers the first ``right`` calls right, and the last ``errors`` not at all."""
        found = self.results.candidate(name, f"sha256:{name}", {}, "e")
        replayed = [
            Replayed(f"s{n:04}", None, "context_length_exceeded: too long")
            if n >= start + count - errors
            else Replayed(f"s{n:04}", RIGHT if n - start < right else WRONG)
            for n in range(start, start + count)
        ]
        self.results.put_answers(self.task.name, found.key, replayed)
        return found

    def verdict(self, candidate: Candidate, margin: float | None = None):
        return certify.certify(self.bench, self.task, [candidate], margin=margin, by="me")[0]

    def close(self) -> None:
        self.scorer.close()
        for store in self.stores:
            store.close()


@pytest.fixture
def bed(tmp_path):
    made = Bed(tmp_path)
    yield made
    made.close()


def test_a_candidate_as_good_as_the_incumbent_is_non_inferior(bed):
    """On enough calls; the sentence says how many, how much and against which margin."""
    bed.calls(400, right=380)
    verdict = bed.verdict(bed.candidate("good", 381, 400))
    assert verdict.outcome is Outlook.NON_INFERIOR
    assert (verdict.calls, verdict.worse, verdict.better, verdict.against) == (400, 0, 1, certify.EXPECTED)
    assert verdict.estimate.lower > -0.05
    assert "on 400 of your own later calls" in certify.sentence(verdict)
    assert certify.sentence(verdict).endswith("non-inferior")


def test_a_candidate_that_is_clearly_worse_is_inferior(bed):
    """And the flips name every call, the worst first."""
    bed.calls(200)
    verdict = bed.verdict(bed.candidate("bad", 120, 200))
    assert verdict.outcome is Outlook.INFERIOR and verdict.needed is None
    assert [flip.sample for flip in verdict.flips] == [f"s{n:04}" for n in range(120, 200)]
    assert verdict.estimate.upper < -0.05 and verdict.psi == pytest.approx(0.4)


def test_few_calls_are_undecided_and_the_number_that_is_needed_is_named(bed):
    """More than there are."""
    bed.calls(40, right=38)
    verdict = bed.verdict(bed.candidate("new", 38, 40))
    assert verdict.outcome is Outlook.UNDECIDED
    assert verdict.needed > 40 and verdict.certifiable > 0.05
    assert f"{verdict.needed:,} calls are needed, you have 40" in certify.sentence(verdict)


def test_all_pairs_equal_is_no_proof_on_few_calls(bed):
    """Thirty calls without a difference do not show that the loss is under five points."""
    bed.calls(30)
    verdict = bed.verdict(bed.candidate("same", 30, 30))
    assert verdict.outcome is Outlook.UNDECIDED and verdict.estimate.lower < -0.05 and not verdict.flips


def test_one_group_bears_no_verdict(bed):
    """The reason is in the verdict, and in its sentence."""
    bed.calls(100, groups=1)
    verdict = bed.verdict(bed.candidate("a", 100, 100))
    assert verdict.outcome is Outlook.UNDECIDED and verdict.estimate is None
    assert "1 group" in verdict.why and "1 group" in certify.sentence(verdict)


def test_calls_that_hang_together_count_for_less(bed, tmp_path):
    """The same answers, in ten groups and alone: the interval is wider in groups."""
    bed.calls(400, right=380, groups=10)
    grouped = bed.verdict(bed.candidate("a", 370, 400))
    (tmp_path / "other").mkdir()
    other = Bed(tmp_path / "other")
    other.calls(400, right=380)
    alone = other.verdict(other.candidate("a", 370, 400))
    other.close()
    assert grouped.groups == 10 and alone.groups == 400
    assert grouped.estimate.difference == pytest.approx(alone.estimate.difference)
    assert grouped.estimate.lower != alone.estimate.lower


def test_an_error_counts_as_wrong_and_is_listed_apart(bed):
    """With what went wrong in the flip."""
    bed.calls(100)
    verdict = bed.verdict(bed.candidate("a", 100, 100, errors=7))
    assert verdict.errors == 7 and verdict.worse == 7
    assert "context_length_exceeded" in verdict.flips[0].detail["error"]


def test_without_expected_answers_agreement_is_measured_and_said(bed):
    """The word is never quality."""
    bed.calls(100, expected=None)
    verdict = bed.verdict(bed.candidate("a", 97, 100))
    assert verdict.against == certify.AGREEMENT and verdict.incumbent_mean == 1.0
    assert "agrees with the incumbent to 97.0%" in certify.sentence(verdict)
    assert "worse" not in certify.sentence(verdict)


def test_calls_without_an_expected_answer_are_left_out_where_others_have_one(bed):
    """Agreement and correctness are not mixed."""
    bed.calls(60)
    bed.calls(40, start=60, expected=None)
    verdict = bed.verdict(bed.candidate("a", 100, 100))
    assert verdict.calls == 60 and verdict.against == certify.EXPECTED


def test_the_incumbents_own_noise_is_shown_where_it_was_asked_twice(bed):
    """Four of forty reruns differ."""
    bed.calls(60)
    again = [
        Sample(f"r{n:04}", {"messages": [n]}, at=99.0, answer=WRONG if n < 4 else RIGHT, expected=RIGHT)
        for n in range(40)
    ]
    bed.samples.keep("t", again)
    assert bed.verdict(bed.candidate("a", 60, 60)).noise == pytest.approx(0.1)


def test_missing_answers_are_not_certified_and_no_score_is_read(bed):
    """The error names how many, and the command; nothing is laid down."""
    bed.calls(50)
    candidate = bed.candidate("a", 40, 40)
    with pytest.raises(BadTraffic, match="has not answered 10 of the 50") as told:
        bed.verdict(candidate)
    assert "freehold replay t --candidate a --split certification" in told.value.hint
    assert bed.results.fixing("t", 1) is None and bed.results.scores("t", candidate.key, bed.scorer.digest) == {}


def test_no_calls_at_all_is_an_error(bed):
    """Nothing to certify on."""
    with pytest.raises(BadTraffic, match="No call of 't' certifies"):
        certify.fix(bed.bench, TASK, margin=None, by="me")


def test_the_margin_is_laid_down_once(bed):
    """Before any score; a kinder margin afterwards is refused, whether or not somebody has looked."""
    bed.calls(100, right=97)
    fixing = certify.fix(bed.bench, TASK, margin=0.05, by="me")
    assert bed.results.looks("t", 1) == []
    assert certify.fix(bed.bench, TASK, margin=None, by="you") == fixing
    with pytest.raises(NotDecidable, match=r"set to 0\.05 .* cannot be 0\.2"):
        bed.verdict(bed.candidate("a", 90, 100), margin=0.2)


def test_changed_calls_are_not_certified(bed):
    """Erased or edited since the margin was laid down."""
    bed.calls(100, right=97)
    candidate = bed.candidate("a", 97, 100)
    bed.verdict(candidate)
    bed.samples.erase("t", before=1.0)
    with pytest.raises(NotDecidable, match="changed or erased"):
        bed.verdict(candidate)


def test_another_scorer_is_not_certified(bed, tmp_path):
    """Neither may how it is scored be chosen after looking."""
    bed.calls(100, right=97)
    candidate = bed.candidate("a", 97, 100)
    bed.verdict(candidate)
    bed.scorer = make(msgspec.structs.replace(TASK, scorer={"kind": "similarity"}), tmp_path)
    with pytest.raises(NotDecidable, match="scorer"):
        bed.verdict(candidate)


def test_every_look_is_on_the_record_before_it_is_shown(bed):
    """In the store and in the audit chain, with the margin's laying down before it."""
    bed.calls(100, right=97)
    candidate = bed.candidate("a", 97, 100)
    first, second = bed.verdict(candidate), bed.verdict(candidate)
    assert (first.look, first.looks, second.look, second.looks) == (1, 1, 2, 2)
    assert [event.act for event in bed.ledger.events()] == ["certify.fix", "certify.look", "certify.look"]
    assert bed.ledger.verify().holds


def test_looking_at_the_same_answers_again_changes_nothing(bed):
    """It is the same test, and takes no further share of the error rate."""
    bed.calls(100, right=97)
    candidate = bed.candidate("a", 97, 100)
    assert bed.verdict(candidate).estimate == bed.verdict(candidate).estimate


def test_a_second_candidate_makes_the_first_ones_verdict_stricter(bed):
    """Holm: the two share the error rate, and `again` shows both as they are now."""
    bed.calls(300, right=290)
    one, two = bed.candidate("a", 288, 300), bed.candidate("b", 270, 300)
    alone = bed.verdict(one)
    assert alone.estimate.alpha == 0.025
    bed.verdict(two)
    now = {verdict.candidate.name: verdict for verdict in certify.again(bed.bench, TASK)}
    assert sorted(verdict.estimate.alpha for verdict in now.values()) == [0.0125, 0.025] or all(
        verdict.estimate.alpha == 0.0125 for verdict in now.values()
    )
    assert now["a"].estimate.lower <= alone.estimate.lower
    assert bed.results.looks("t", 1)[-1].candidate == two.key and len(bed.results.looks("t", 1)) == 2


def test_a_new_round_begins_anew(bed):
    """Later calls, another margin, no looks."""
    bed.calls(100, right=97)
    bed.verdict(bed.candidate("a", 97, 100))
    bed.calls(100, start=100)
    assert bed.samples.renew(TASK) == 2
    bed.candidate("a", 100, 100, start=100)
    verdict = bed.verdict(bed.results.candidates("t")[0], margin=0.1)
    assert (verdict.margin, verdict.calls, verdict.looks) == (0.1, 100, 1)
    assert {sample.id for sample in bed.samples.of_split(TASK, Split.CERTIFICATION)} == {
        f"s{n:04}" for n in range(100, 200)
    }


def test_the_same_answers_give_the_same_verdict_to_the_byte(bed, tmp_path):
    """In another home, whatever order they came in."""
    bed.calls(120, right=115, groups=30)
    fixing = certify.fix(bed.bench, TASK, margin=None, by="me")
    first = bed.verdict(bed.candidate("a", 110, 120))
    (tmp_path / "other").mkdir()
    other = Bed(tmp_path / "other")
    other.calls(120, right=115, groups=30)
    other.samples.fix(TASK)
    other.results.fix(fixing)
    second = other.verdict(other.candidate("a", 110, 120))
    other.close()
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


# a judge


def judged(bed: Bed, values: list[float]) -> None:
    bed.judge = lambda rows: {row.sample.id: Score(values[int(row.sample.id[1:])]) for row in rows}


@pytest.fixture
def court(tmp_path):
    """A task whose answers a judge compares, and people labelled forty calls."""
    rows = "\n".join(f'{{"sample": "s{n:04}", "candidate": "a", "better": "tie"}}' for n in range(40))
    (tmp_path / "labels.jsonl").write_text(rows)
    scorer = {"kind": "judge", "model": "m", "criteria": "which is kinder", "labels": "labels.jsonl"}
    made = Bed(tmp_path, msgspec.structs.replace(TASK, scorer=scorer, margin=0.1))
    yield made
    made.close()


def test_a_judges_own_error_is_in_the_interval(court):
    """A judge that people agree with gives a narrower interval than one that they contradict."""
    court.calls(400)
    candidate = court.candidate("a", 400, 400)
    judged(court, [0.5] * 400)
    good = court.verdict(candidate)
    assert good.outcome is Outlook.NON_INFERIOR and "prediction-powered" in good.estimate.method
    judged(court, [float(n % 2) for n in range(400)])
    court.results.put_scores("t", candidate.key, court.scorer.digest, court.judge(
        [certify.Comparison(sample, None, None) for sample in court.samples.of_split(court.task)]
    ))  # fmt: skip
    bad = court.verdict(candidate)
    assert bad.estimate.upper - bad.estimate.lower > good.estimate.upper - good.estimate.lower


def test_a_judge_that_nobody_checked_decides_nothing(bed, tmp_path):
    """Undecided, and the reason is that nobody labelled calls."""
    scorer = {"kind": "judge", "model": "m", "criteria": "which is kinder"}
    bed.task = msgspec.structs.replace(TASK, scorer=scorer)
    bed.scorer = make(bed.task, tmp_path)
    bed.calls(400)
    judged(bed, [1.0] * 400)
    verdict = bed.verdict(bed.candidate("a", 400, 400))
    assert verdict.outcome is Outlook.UNDECIDED and "labelled by people" in verdict.why


# the command


@pytest.fixture
def freehold(tmp_path, capsys):
    """Runs ``freehold`` in a home where ``good`` and ``bad`` answered every call of the task ``t``."""
    text = 'name = "t"\nmargin = 0.05\n[scorer]\nkind = "exact"\n[splits]\ntuning = 0\nvalidation = 0\n'
    (tmp_path / "task.toml").write_text(text)

    def run(*words: str) -> tuple[int, str, str]:
        code = command.main(["--home", str(tmp_path / "home"), *words])
        out = capsys.readouterr()
        return code, out.out, out.err

    assert run("tasks", "add", str(tmp_path / "task.toml"))[0] == 0
    home = Home(tmp_path / "home", create=False)
    with app.parts(home, config.load(home.folder)) as parts:
        calls = [Sample(f"s{n:03}", {"n": n}, answer=RIGHT, expected=RIGHT, at=1e9 + n) for n in range(300)]
        parts.samples.keep("t", calls)
        for name, wrong in (("good", 100), ("bad", 2)):
            candidate = parts.results.candidate(name, "sha256:" + name, {}, "fake")
            answers = [Replayed(f"s{n:03}", WRONG if n % wrong == 1 else RIGHT) for n in range(299)]
            late = Replayed("s299", None, error="timed_out: It took too long.")
            parts.results.put_answers("t", candidate.key, [*answers, late])
    return run


def test_the_command_lays_down_and_then_tells(freehold, tmp_path):
    """The margin first; then the sentence, the picture in both forms, and exit code 0 or 1."""
    code, out, _ = freehold("certify", "t", "--margin", "0.05")
    assert code == 0 and "5 points, laid down" in out
    picture = tmp_path / "verdict.svg"
    code, out, _ = freehold("certify", "t", "--candidate", "good", "--svg", str(picture))
    assert code == 0 and "good: on 300 of your own later calls" in out and "├" in out
    assert "since nothing came that could be scored:\n    s299: 1 -> 0  timed_out: It took too long." in out
    assert picture.read_text().startswith("<svg")
    assert freehold("certify", "t", "--candidate", "bad")[0] == 1
    code, out, _ = freehold("certify", "t")
    assert code == 1 and "good: on" in out and "bad: on" in out and "share the error rate" in out
    assert {one["outcome"] for one in json.loads(freehold("certify", "t", "--json")[1])} == {"non-inferior", "inferior"}
    assert len(freehold("certify", "t", "--csv")[1].splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["t", "--candidate", "none"], "none has not answered any call"),
        (["t", "--candidate", "good", "--svg", "/nowhere/verdict.svg"], "Name another file."),
        (["other", "--candidate", "good"], "There is no task other"),
    ],
)
def test_what_the_command_cannot_do_is_said(freehold, words, said):
    """Exit code 2, with the next step."""
    code, _, told = freehold("certify", *words)
    assert code == 2 and said in told


def test_progress_is_shown_where_it_takes_time(monkeypatch, capsys):
    """A line for each tenth of the calls after a second, and nothing of what is quick."""
    clock = iter([0.0, 0.0, 0.5, 2.0, 2.1])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock, 2.2))
    bar = local.Progress()
    for done in (10, 50, 51):
        bar("scoring", done, 100)
    assert capsys.readouterr().err == "  scoring 50 of 100 calls\n"


@pytest.mark.parametrize("format", ["inspect", "promptfoo"])
def test_only_scores_that_were_read_are_exported(freehold, tmp_path, format):
    """None before the certification, so that an export is no look; all after it, and the file comes in again."""
    file = tmp_path / "theirs.json"
    words = ("traffic", "export", "t", "--format", format, "-o", str(file))
    assert "0 calls written; 300 have no answer with a score" in freehold(*words, "--candidate", "good")[2]
    assert freehold("certify", "t", "--candidate", "good")[0] == 0
    assert "300 calls written." in freehold(*words, "--candidate", "good")[2]
    assert json.loads(file.read_bytes())
    code, out, _ = freehold("traffic", "import", str(file), "--task", "t")
    assert code == 0 and "duplicates  300" in out
    code, _, told = freehold(*words)
    assert code == 2 and "Give both" in told


@pytest.mark.parametrize(
    ("scorer", "said", "expected"),
    [
        ({"kind": "number"}, Answer("about forty"), None),
        ({"kind": "json"}, Answer("Sure! It is 4."), None),
        ({"kind": "exact"}, Answer("", (ToolCall("f", "{}"),)), None),
        ({"kind": "label", "labels": ["a", "b"]}, Answer("a"), Answer("c")),
    ],
)
def test_calls_that_no_answer_could_lose_speak_for_nobody(tmp_path, scorer, said, expected):
    """Where the reference cannot be scored, incumbent and candidate both have 0: such calls are left out and told."""
    bed = Bed(tmp_path, msgspec.structs.replace(TASK, scorer=scorer))
    bed.calls(400, answer=said, expected=expected)
    verdict = bed.verdict(bed.candidate("nonsense", 0, 400))
    bed.close()
    assert verdict.outcome is Outlook.UNDECIDED
    assert (verdict.calls, verdict.unscored) == (0, 400) and "On none of 400 calls" in verdict.why


def test_an_answer_to_an_error_that_was_asked_again_is_scored(bed):
    """The error's score goes with the error; and as the answers are others, that is another test."""
    bed.calls(200)
    candidate = bed.candidate("a", 200, 200, errors=20)
    first = bed.verdict(candidate)
    bed.candidate("a", 200, 200)
    (second,) = certify.again(bed.bench, TASK, by="me")
    assert (first.errors, first.worse) == (20, 20) and (second.errors, second.worse) == (0, 0)
    assert (second.look, second.looks) == (2, 2) and second.estimate.alpha == 0.0125
    assert certify.again(bed.bench, TASK, by="me") == [second]


def test_what_people_said_is_laid_down_with_the_margin(court, tmp_path):
    """Labels decide what a judge's scores are worth, so others are another scorer."""
    court.calls(400)
    judged(court, [0.5] * 400)
    candidate = court.candidate("a", 400, 400)
    court.verdict(candidate)
    (tmp_path / "labels.jsonl").write_text(
        "\n".join(f'{{"sample": "s{n:04}", "candidate": "a", "better": "candidate"}}' for n in range(40))
    )
    court.scorer = make(court.task, tmp_path)
    with pytest.raises(NotDecidable, match="The scorer of 't' is not the one of"):
        court.verdict(candidate)


def test_the_judges_own_worth_is_told(court):
    """How often it says what people say, where they read the same answers."""
    court.calls(400)
    judged(court, [0.5 if n % 4 else 1.0 for n in range(400)])
    verdict = court.verdict(court.candidate("a", 400, 400))
    assert (verdict.judge["n"], verdict.judge["agreement"]) == (40, 0.75)
    assert "says what people say on 75% of 40 labelled calls" in cli_certify._judge(verdict.judge)
    assert cli_certify._judge({}) == ""


def test_labels_of_one_candidate_say_nothing_of_another(court):
    """Its verdict stays undecided until people have read its answers."""
    court.calls(400)
    judged(court, [0.5] * 400)
    verdict = court.verdict(court.candidate("b", 400, 400))
    assert verdict.outcome is Outlook.UNDECIDED and verdict.why.startswith("0 of this candidate's answers")


def test_a_second_name_for_the_task_is_no_second_chance(bed):
    """The very same calls, scored the same way, cannot be laid down at a kinder margin."""
    bed.calls(100, right=97)
    certify.fix(bed.bench, TASK, margin=0.05, by="me")
    bed.task = msgspec.structs.replace(TASK, name="other")
    bed.calls(100, right=97)
    with pytest.raises(NotDecidable, match=r"laid down for the task 't', at a margin of 0\.05"):
        certify.fix(bed.bench, bed.task, margin=0.3, by="me")


def test_another_margin_is_refused_where_verdicts_are_only_shown(bed):
    """And not passed over."""
    bed.calls(100)
    bed.verdict(bed.candidate("a", 100, 100))
    with pytest.raises(NotDecidable, match=r"cannot be 0\.2 now"):
        certify.again(bed.bench, TASK, margin=0.2)


def test_a_shared_error_rate_is_said_in_the_sentence(bed):
    """Two candidates, each at half the rate: no 95% is claimed."""
    bed.calls(300, right=290)
    bed.verdict(bed.candidate("a", 270, 300))
    verdict = bed.verdict(bed.candidate("b", 270, 300))
    assert verdict.estimate.alpha == 0.0125 and "97.5% lower bound" in certify.sentence(verdict)


def test_looks_at_earlier_rounds_are_told(bed):
    """A new round has looks of its own, and says how many there were before."""
    bed.calls(100, right=97)
    bed.verdict(bed.candidate("a", 97, 100))
    bed.calls(100, start=100)
    bed.samples.renew(TASK)
    bed.candidate("a", 100, 100, start=100)
    verdict = bed.verdict(bed.results.candidates("t")[0])
    assert (verdict.round, verdict.earlier, verdict.looks) == (2, 1, 1)


def test_a_bound_near_the_margin_is_told_from_it(bed):
    """No sentence says "-5.0, margin 5 points: non-inferior"."""
    bed.calls(100)
    verdict = bed.verdict(bed.candidate("a", 100, 100))
    near = msgspec.structs.replace(verdict, estimate=msgspec.structs.replace(verdict.estimate, lower=-0.04996))
    assert "lower bound -4.996, margin 5 points" in certify.sentence(near)
