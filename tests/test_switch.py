"""The switch: stages in their order, each once, and the end that a person can act on. Commands are played by a stand-in
here; `tests/test_tune_whole.py` gives the real ones."""

from __future__ import annotations

import msgspec
import pytest

from freehold import config, cost, switch
from freehold.errors import BadConfig, CannotDo
from freehold.types import Candidate, Estimate, Outlook, Verdict

TASK = 'name = "t"\nmargin = 0.05\nalias = "gpt-4o-mini"\n[scorer]\nkind = "exact"\n'
FILE = """
task = "task.toml"
traffic = ["calls.jsonl"]
base = "small"
source = "file:small.gguf"
[tune]
rank = 8
epochs = 1.5
[replay]
baseline = 5
"""
TUNED = "small+t@1"


def a_verdict(outcome: Outlook) -> Verdict:
    lower = {Outlook.NON_INFERIOR: -0.01, Outlook.UNDECIDED: -0.09, Outlook.INFERIOR: -0.4}[outcome]
    upper = -0.2 if outcome is Outlook.INFERIOR else 0.02
    estimate = Estimate((lower + upper) / 2, lower, upper, 0.025, 0.01, "exact")
    return Verdict(
        task="t", candidate=Candidate(TUNED, "sha256:1"), outcome=outcome, why="", margin=0.05, fixed_at=1e9,
        against="the expected answers", measures="All or nothing.", calls=200, groups=200, incumbent_mean=0.95,
        candidate_mean=0.94, worse=4, better=2, psi=0.03, estimate=estimate, certifiable=0.03, needed=900,
        needed_groups=100, look=1, looks=1, errors=0, split="sha256:2",
    )  # fmt: skip


class Stand:
    """Answers every command with a document of its form, and remembers what it was given. ``fail`` is a verb at which
    it cannot do it."""

    def __init__(self, outcome: Outlook = Outlook.NON_INFERIOR):
        self.given: list[list[str]] = []
        self.fail = ""
        self.outcome = outcome

    def __call__(self, stage: str, words) -> switch.Said:
        words = list(words)
        if words[0] == self.fail:
            raise CannotDo(f"{stage} stopped.")
        self.given.append(words)
        return switch.Said(0, self.document(words))

    def document(self, words: list[str]):
        candidate = Candidate(TUNED, "sha256:1")
        if words[0] == "certify" and "--margin" in words:
            return {"margin": float(words[-1])}
        if words[0] == "certify":
            return msgspec.to_builtins([a_verdict(self.outcome)])
        if words[0] == "cost":
            rates = cost.rates(config.Settings().cost)
            found = cost.of_answers("t", candidate, [], price=None, missing="None is known.", rates=rates)
            return [msgspec.to_builtins(found)]
        means = {"calls": 5, "candidate": 0.5, "incumbent": 0.9, "compared": 0, "agreement": None}
        return {
            "models": {"licence": {"id": "Apache-2.0"}, "verdict": "admit"},
            "tasks": {"name": "t", "alias": "gpt-4o-mini", "margin": 0.05, "about": "", "scorer": {"kind": "exact"}},
            "traffic": {"done": {"kept": 900, "duplicates": 1, "skipped": 2}},
            "replay": {"candidates": [{"candidate": {"name": "small"}, "means": means,
                                       "totals": {"calls": 5, "errors": {}}}]},
            "tune": {"name": TUNED, "calls": 600, "tokens": 9000, "seconds": 30.0},
            "prove": {"verdict": "holds", "rows": [{"shows": "blocked"}, {"shows": "not judged"}]},
            "report": {},
        }[words[0]]  # fmt: skip


@pytest.fixture
def place(tmp_path):
    (tmp_path / "task.toml").write_text(TASK)
    (tmp_path / "calls.jsonl").write_text("{}\n")
    (tmp_path / "switch.toml").write_text(FILE)
    return tmp_path


def going(place, stand) -> switch.Going:
    return switch.Going(place / "switch.toml", place / "kept", stand)


def test_stages_come_in_the_order_of_the_sentence(place):
    """The margin is laid down before anybody is asked or tuned, and the verdict comes before the dossier."""
    stand = Stand()
    lines = list(going(place, stand).run())
    assert [line.name for line in lines] == [
        "model", "task", "import", "margin", "baseline", "tune", "replay", "certify", "cost", "privacy", "dossier",
    ]  # fmt: skip
    assert stand.given[5] == ["tune", "t", "--base", "small", "--resume", "--rank", "8", "--epochs", "1.5"]
    assert stand.given[3] == ["certify", "t", "--margin", "0.05"]
    assert stand.given[4][:6] == ["replay", "t", "--candidate", "small", "--split", "validation"]
    assert stand.given[6][:3] == ["replay", "t", "--candidate"] and TUNED in stand.given[6]
    assert [line.number for line in lines] == list(range(1, 12)) and {line.of for line in lines} == {11}


def test_a_switch_that_was_cut_off_goes_on(place):
    """What was done is not given again, and is shown as done before."""
    stand = Stand()
    stand.fail = "tune"
    with pytest.raises(CannotDo):
        list(going(place, stand).run())
    done = len(stand.given)
    stand.fail = ""
    lines = list(going(place, stand).run())
    assert [line.before for line in lines] == [True] * done + [False] * (len(lines) - done)
    assert len(stand.given) == len(lines)
    assert len(list(going(place, stand).run())) == len(lines) == len(stand.given)


def test_other_traffic_is_another_switch(place):
    """A changed file is not taken for what was done with the old one."""
    stand = Stand()
    list(going(place, stand).run())
    (place / "calls.jsonl").write_text("{}\n{}\n")
    assert not any(line.before for line in going(place, stand).run())


@pytest.mark.parametrize("outcome", Outlook)
def test_the_end_says_what_to_do(place, outcome):
    """A sentence with the verdict, and the one command that promotes; it passed only where it is non-inferior."""
    run = going(place, Stand(outcome))
    list(run.run())
    end = run.end()
    assert end.passed == (outcome is Outlook.NON_INFERIOR)
    assert outcome.value in end.sentence and TUNED in end.sentence
    assert end.promote == ("freehold", "promote", "gpt-4o-mini", TUNED)
    assert end.dossier == place / "dossier.html"


@pytest.mark.parametrize(
    "text, match",
    [
        ("task = 3", "no switch"),
        (FILE.replace("rank = 8", "ranks = 8"), "ranks"),
        (FILE.replace('base = "small"', ""), "base"),
        ("task = ", "no switch"),
    ],
)
def test_a_file_that_is_no_switch_is_refused(place, text, match):
    """The sentence names the setting that is wrong, and an example."""
    (place / "switch.toml").write_text(text)
    with pytest.raises(BadConfig, match=match) as raised:
        going(place, Stand())
    assert "switch.toml" in raised.value.sentence()


def test_a_missing_file_is_named(place):
    """Before anything is done."""
    (place / "calls.jsonl").unlink()
    stand = Stand()
    with pytest.raises(CannotDo, match=r"calls\.jsonl"):
        going(place, stand)
    assert not stand.given
