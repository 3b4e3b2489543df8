"""The mathematics of a verdict, held against scipy and statsmodels, against enumeration and against simulation."""

from __future__ import annotations

import math
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold import stats
from freehold.errors import NotDecidable
from freehold.stats import exact, grouped, special, weighted
from freehold.stats.paired import gather
from freehold.types import Estimate, Outlook

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import verdict

WITHOUT = "the cross-check needs it; `pip install scipy statsmodels`"


@pytest.fixture(scope="module")
def scipy_stats():
    return pytest.importorskip("scipy.stats", reason=WITHOUT)


def columns(worse: int, better: int, n: int) -> tuple[list[float], list[float]]:
    """Binary scores with so many worse and better pairs among n."""
    incumbent = [1.0] * worse + [0.0] * better + [1.0] * (n - worse - better)
    candidate = [0.0] * worse + [1.0] * better + [1.0] * (n - worse - better)
    return incumbent, candidate


def lone(worse: int, better: int, n: int, **options: float) -> Estimate:
    return stats.compare(*columns(worse, better, n), range(n), **{"margin": 0.03, **options})


@st.composite
def traffic(draw):
    """Scores and groups of any kind: binary or graded, alone or in groups of any size."""
    n = draw(st.integers(2, 40))
    score = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.sampled_from([0.5])]))
    incumbent, candidate = (draw(st.lists(score, min_size=n, max_size=n)) for _ in "ic")
    groups = draw(st.lists(st.integers(0, draw(st.integers(1, 40))), min_size=n, max_size=n))
    groups[:2] = [0, 1]
    return incumbent, candidate, draw(st.sampled_from([groups, list(range(n))]))


class TestDistributions:
    def test_beta(self, scipy_stats):
        """The incomplete beta function is scipy's, from tiny parameters to large ones."""
        rng = np.random.default_rng(0)
        a, b = 10 ** rng.uniform(-1, 4, (2, 500))
        for x in (rng.random(500), a / (a + b)):
            assert np.allclose(special.beta_cdf(x, a, b), scipy_stats.beta.cdf(x, a, b), atol=1e-10)

    def test_beta_quantile(self, scipy_stats):
        """So are its quantiles."""
        for q, a, b in ((0.025, 3, 50), (0.975, 1, 437), (5e-5, 700, 1300), (0.5, 0.3, 0.2)):
            assert special.beta_quantile(q, a, b) == pytest.approx(scipy_stats.beta.ppf(q, a, b), abs=2e-8)

    def test_binomial(self, scipy_stats):
        """The binomial distribution is scipy's, also outside its range."""
        k = np.arange(-2, 60)
        assert np.allclose(special.binomial_cdf(k, 57, 0.13), scipy_stats.binom.cdf(k, 57, 0.13), atol=1e-12)

    def test_student(self, scipy_stats):
        """Student's t is scipy's far into the tail, with fractional degrees of freedom and at infinity."""
        rng = np.random.default_rng(1)
        t, df = rng.normal(size=500) * 5, rng.uniform(0.5, 300, 500)
        assert np.allclose(special.t_upper(t, df), scipy_stats.t.sf(t, df), rtol=1e-9)
        assert special.t_upper([-np.inf, np.inf], [3, 3]).tolist() == [1.0, 0.0]

    def test_log_gamma(self):
        """The logarithm of the gamma function is the standard library's."""
        x = [0.01, 0.5, 1, 2, 7.9, 8, 100.5, 1e6]
        assert np.allclose(special.log_gamma(x), [math.lgamma(v) for v in x], rtol=1e-12, atol=1e-12)


class TestWeighted:
    def test_clopper_pearson(self):
        """With losses of 1 and an unseen one, the weighted bootstrap is Clopper and Pearson's exact bound."""
        for n, losses, margin in ((5, 0, 0.3), (10, 2, 0.5), (100, 5, 0.1), (437, 10, 0.04), (2, 1, 0.99)):
            u = np.array([margin, margin - 1])
            found = weighted.below_zero(u, np.array([n - losses, losses + 1.0]))
            assert found == pytest.approx(1 - float(special.beta_cdf(margin, losses + 1, n - losses)), abs=2e-6)

    def test_drawn(self):
        """It is what drawing the weights a million times gives."""
        rng = np.random.default_rng(2)
        for u in rng.normal(0.3, 1, (4, 7)):
            drawn = (rng.standard_exponential((1_000_000, 7)) @ u <= 0).mean()
            assert weighted.below_zero(u, np.ones(7)) == pytest.approx(drawn, abs=0.002)

    def test_edges(self):
        """Nothing below zero is 0, nothing above it is 1, and terms that occur no times count for nothing."""
        u = np.array([[0.0, 1.0], [-1.0, 0.0], [1.0, -1.0]])
        assert weighted.below_zero(u, np.array([[1, 1], [1, 1], [1, 0.0]])).tolist() == [0.0, 1.0, 0.0]


def chances(n: int, up: float, down: float) -> dict[tuple[int, int], float]:
    """The probability of each table (better, worse)."""
    tables = {}
    for b in range(n + 1):
        for w in range(n + 1 - b):
            ways = math.comb(n, b) * math.comb(n - b, w)
            tables[b, w] = ways * up**b * down**w * max(0.0, 1 - up - down) ** (n - b - w)
    return tables


class TestExact:
    @pytest.mark.parametrize("margin", [0.03, 0.1, 0.3])
    def test_level_by_enumeration(self, margin):
        """With a true difference of -margin no share of discordant pairs gives more than 2.5% of false verdicts."""
        n = 20
        passed = [
            (b, w) for b in range(n + 1) for w in range(n + 1 - b) if exact.p_value(b, w, n, margin) <= 0.025
        ]  # fmt: skip
        for share in np.linspace(margin, 1, 40):
            table = chances(n, (share - margin) / 2, (share + margin) / 2)
            assert sum(table[t] for t in passed) <= 0.025

    def test_p_by_enumeration(self):
        """The p-value is the largest probability of a table at least as good, which enumeration finds too."""
        n, seen, margin = 12, (2, 1), 0.2
        limits = {t: exact._limit(*t, n) for t in chances(n, 0.1, 0.1)}
        good = [t for t, limit in limits.items() if limit >= limits[seen] - 1e-9]
        low, high = exact._shares(sum(seen), n)
        largest = max(
            sum(chances(n, (s - margin) / 2, (s + margin) / 2)[t] for t in good)
            for s in np.linspace(max(low, margin), high, 60)
        )
        assert exact.p_value(*seen, n, margin) == pytest.approx(largest + exact.SLACK, abs=1e-3)

    def test_no_discordant_pair(self, scipy_stats):
        """Where no pair differs the bound is the exact binomial one for no loss among n."""
        for n in (30, 122, 437):
            exactly = scipy_stats.binomtest(0, n, alternative="less").proportion_ci(0.975, method="exact").high
            assert -1.02 * exactly <= lone(0, 0, n).lower <= -exactly + 1e-5

    def test_worse_pairs(self):
        """A pair that gets worse never raises the lower bound, nor one that gets better the p-value."""
        n, margin = 24, 0.2
        p = {(b, w): exact.p_value(b, w, n, margin) for b in range(n + 1) for w in range(n + 1 - b)}
        for (b, w), here in p.items():
            for after in ((b, w + 1), (b - 1, w), (b - 1, w + 1)):
                assert p.get(after, 1.0) >= here - 2 * exact.SLACK

    def test_margins(self):
        """The p-value falls as the margin grows, on both sides of 0."""
        p = [exact.p_value(5, 10, 200, m) for m in np.linspace(-0.3, 0.4, 141)]
        assert np.all(np.diff(p) <= 1e-12)

    def test_tango(self):
        """The score statistic at no difference is McNemar's: (better - worse) / sqrt(better + worse)."""
        assert exact.tango(7, 12, 100, 0.0) == pytest.approx(-5 / math.sqrt(19))


class TestGrouped:
    def sums(self, size: int = 20) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(5)
        which = np.repeat(np.arange(12), size)
        return rng.choice([-1.0, 0.0, 0.5, 1.0], p=[0.2, 0.5, 0.1, 0.2], size=which.size) + 0.0, which

    def test_t(self, scipy_stats):
        """Where groups have one size the jackknife t is scipy's t test of the group means."""
        differences, which = self.sums()
        means = differences.reshape(12, 20).mean(1)
        theirs = scipy_stats.ttest_1samp(means, -0.05, alternative="greater").pvalue
        assert grouped._jackknife(gather(differences, which), 0.05) == pytest.approx(theirs)

    def test_cluster_robust(self):
        """Its error is then that of statsmodels' cluster-robust regression, and the design effect follows from it."""
        api = pytest.importorskip("statsmodels.api", reason=WITHOUT)
        differences, which = self.sums()
        fit = api.OLS(differences, np.ones_like(differences))
        ratio = fit.fit(cov_type="cluster", cov_kwds={"groups": which}).bse[0] ** 2 / fit.fit().bse[0] ** 2
        assert stats.design_effect(differences, which) == pytest.approx(max(1.0, ratio))

    def test_jackknife_by_hand(self):
        """With groups of any size the error is that of leaving out one group after the other."""
        rng = np.random.default_rng(6)
        which = rng.integers(0, 9, 70)
        d = rng.choice([-1.0, 0.0, 1.0], size=70)
        left = np.array([d[which != g].mean() for g in range(9)])
        by_hand = math.sqrt(8 / 9 * ((left - d.mean()) ** 2).sum())
        assert stats.design_effect(d, which) == pytest.approx(max(1, by_hand**2 / (d.var(ddof=1) / 70)))

    def test_freedom(self):
        """Degrees of freedom are groups - 1 where groups have one size, and few where one group has most calls."""
        assert grouped.freedom(np.full(7, 30.0), np.ones(7)) == pytest.approx(6)
        assert grouped.freedom(np.array([5.0]), np.array([7.0])) == pytest.approx(6)
        assert grouped.freedom(np.array([1000.0, *[10.0] * 20]), np.ones(21)) < 2

    def test_freedom_by_matrix(self):
        """They are those of Bell and McCaffrey's formula with its matrices written out."""
        sizes = np.array([3, 5, 8, 2])
        n, which = sizes.sum(), np.repeat(np.arange(4), sizes)
        hat = np.eye(n) - np.ones((n, n)) / n
        columns = [hat[:, which == g].sum(1) / math.sqrt(1 - s / n) / n for g, s in enumerate(sizes)]
        eigenvalues = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
        expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        assert grouped._freedom(sizes * 1.0, np.ones(4), sizes * 1.0) == pytest.approx(expected)

    def test_alike_groups(self):
        """Groups that are alike may be counted together or one by one."""
        one = grouped.Groups(*(np.array(x, float) for x in ([-1, -1, 0, 2], [1, 1, 0, 2], [3, 3, 4, 4], [1, 1, 1, 1])))
        two = grouped.Groups(*(np.array(x, float) for x in ([-1, 0, 2], [1, 0, 2], [3, 4, 4], [2, 1, 1])))
        for margin in (-0.1, 0.03, 0.4):
            assert grouped.p_value(one, margin) == pytest.approx(grouped.p_value(two, margin), abs=1e-9)


class TestCompare:
    @settings(max_examples=30, deadline=None)
    @given(traffic(), st.sampled_from([0.01, 0.03, 0.2, 0.6]), st.sampled_from([0.025, 0.005, 0.2]))
    def test_agrees_with_itself(self, calls, margin, alpha):
        """Whatever the scores: no NaN, bounds in order and range, and p at most alpha where the bound is above it."""
        e = stats.compare(*calls, margin=margin, alpha=alpha)
        assert -1 <= e.lower <= e.difference <= e.upper <= 1
        assert 0 <= e.p <= 1
        assert (e.p <= alpha) == (e.lower > -margin)

    @settings(max_examples=15, deadline=None)
    @given(traffic())
    def test_mirror(self, calls):
        """Candidate and incumbent exchanged give the mirror image."""
        incumbent, candidate, groups = calls
        one = stats.compare(incumbent, candidate, groups, margin=0.05)
        other = stats.compare(candidate, incumbent, groups, margin=0.05)
        assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-6)

    def test_order(self):
        """Neither the order of the calls nor the names of the groups matter, and the same calls give the same bytes."""
        rng = np.random.default_rng(3)
        a, b, g = rng.random(60), rng.random(60), rng.integers(0, 12, 60)
        shuffled = rng.permutation(60)
        one = stats.compare(a, b, g.tolist(), margin=0.1)
        other = stats.compare(a[shuffled], b[shuffled], [f"user {x}" for x in g[shuffled]], margin=0.1)
        assert one == stats.compare(a, b, g.tolist(), margin=0.1)
        assert (one.lower, one.p) == pytest.approx((other.lower, other.p), abs=1e-6)

    def test_all_equal(self):
        """Pairs that are all equal give an interval with a width: by calls where alone, by groups where not."""
        alone = stats.compare([1.0] * 400, [1.0] * 400, range(400), margin=0.03)
        graded = stats.compare([0.5] * 399 + [0.4], [0.5] * 399 + [0.5], range(400), margin=0.03)
        together = stats.compare([1.0] * 400, [1.0] * 400, [i // 10 for i in range(400)], margin=0.03)
        assert -0.01 < alone.lower < -0.008
        assert -0.01 < graded.lower < -0.008
        assert together.lower == pytest.approx(-(1 - 0.025 ** (1 / 40)), abs=1e-4)
        assert stats.outlook(alone, 0.03) is Outlook.NON_INFERIOR
        assert stats.outlook(together, 0.03) is Outlook.UNDECIDED

    def test_one_call_repeated(self):
        """A hundred copies of each of eight calls say no more than the eight."""
        rng = np.random.default_rng(4)
        d = rng.choice([0.0, 1.0], size=8)
        few = stats.compare([1.0] * 8, d, range(8), margin=0.1)
        many = stats.compare([1.0] * 800, np.repeat(d, 100), np.repeat(range(8), 100).tolist(), margin=0.1)
        assert many.lower <= few.lower + 0.02

    def test_inferior(self):
        """A candidate that loses by far more than the margin is inferior, alone and in groups."""
        incumbent, candidate = [1.0] * 400, ([0.0] + [1.0] * 3) * 100
        assert stats.outlook(stats.compare(incumbent, candidate, range(400), margin=0.03), 0.03) is Outlook.INFERIOR
        groups = [i // 4 for i in range(400)]
        assert stats.outlook(stats.compare(incumbent, candidate, groups, margin=0.03), 0.03) is Outlook.INFERIOR

    def test_stricter_level(self):
        """A smaller alpha gives a wider interval and the same p."""
        wide, narrow = lone(10, 8, 300, alpha=0.005), lone(10, 8, 300)
        assert wide.lower < narrow.lower
        assert wide.upper > narrow.upper
        assert wide.p == narrow.p

    def test_large(self):
        """A hundred thousand calls are judged in bounded memory."""
        rng = np.random.default_rng(7)
        a = rng.random(100_000)
        b = np.clip(a + rng.normal(0, 0.1, a.size), 0, 1)
        groups = list(range(a.size))
        tracemalloc.start()
        assert stats.outlook(stats.compare(a, b, groups, margin=0.03), 0.03) is Outlook.NON_INFERIOR
        assert tracemalloc.get_traced_memory()[1] < 100e6
        tracemalloc.stop()

    def test_one_group(self):
        """One group, or no call, bears no verdict, and the error says so."""
        with pytest.raises(NotDecidable, match="1 group"):
            stats.compare([1.0, 0.0], [1.0, 1.0], ["a", "a"], margin=0.03)
        with pytest.raises(NotDecidable, match="no calls"):
            stats.compare([], [], [], margin=0.03)

    @pytest.mark.parametrize("bad", [[1.0, math.nan], [1.0, 1.1], [-0.1, 0.0], [1.0, math.inf], [1.0], [[1.0], [0.0]]])
    def test_bad_scores(self, bad):
        """NaN, numbers outside 0 to 1 and columns of another shape are refused."""
        with pytest.raises(ValueError, match="score"):
            stats.compare([1.0, 1.0], bad, ["a", "b"], margin=0.03)

    @pytest.mark.parametrize(("margin", "alpha"), [(0, 0.025), (1, 0.025), (math.nan, 0.025), (0.03, 0), (0.03, 0.5)])
    def test_bad_levels(self, margin, alpha):
        """So are a margin of 0 or 1 and a level outside 0 to 0.5."""
        with pytest.raises(ValueError, match=r"margin|alpha"):
            lone(1, 1, 10, margin=margin, alpha=alpha)


class TestHolm:
    @settings(max_examples=50, deadline=None)
    @given(st.dictionaries(st.text(max_size=3), st.floats(0, 0.1), min_size=1, max_size=6))
    def test_step_down(self, p):
        """A p is at most its level exactly where Holm's step-down rejects."""
        levels = stats.holm(p)
        rejected, order = set(), sorted(p, key=p.get)
        for rank, name in enumerate(order):
            if p[name] > 0.025 / (len(p) - rank):
                break
            rejected.add(name)
        assert {name for name in p if p[name] <= levels[name]} == rejected

    def test_statsmodels(self):
        """The decisions are statsmodels'."""
        multitest = pytest.importorskip("statsmodels.stats.multitest", reason=WITHOUT)
        p = {"a": 0.004, "b": 0.02, "c": 0.011, "d": 0.3}
        levels = stats.holm(p)
        theirs = multitest.multipletests(list(p.values()), 0.025, "holm")[0]
        assert [p[name] <= levels[name] for name in p] == theirs.tolist()

    def test_bad(self):
        """One candidate is judged at alpha, none gives none, and a p that is no probability is refused."""
        assert stats.holm({"a": 0.5}) == {"a": 0.025}
        assert stats.holm({}) == {}
        with pytest.raises(ValueError, match="p-value of b"):
            stats.holm({"a": 0.01, "b": math.nan})


class TestPlan:
    def test_formula(self):
        """The calls needed are 7.85 * psi / margin^2, rounded up."""
        assert [stats.needed(psi, 0.03) for psi in (0.05, 0.15, 0.25)] == [437, 1309, 2181]
        assert [stats.needed(psi, 0.05) for psi in (0.05, 0.15, 0.25)] == [157, 471, 785]

    def test_difference(self):
        """A true loss takes more calls, a design effect multiplies them, and past the margin no number helps."""
        assert stats.needed(0.15, 0.03, difference=-0.01) == pytest.approx(1309 * 9 / 4, abs=2)
        assert stats.needed(0.15, 0.03, design_effect=3) == pytest.approx(3 * 1309, abs=3)
        assert stats.needed(0.15, 0.03, difference=-0.03) is None

    def test_other_way_round(self):
        """The margin that needs n calls is the one that n calls certify."""
        for variance, margin in ((0.15, 0.03), (0.05, 0.05), (0.0, 0.03), (0.25, 0.1)):
            assert stats.certifiable(variance, stats.needed(variance, margin)) == pytest.approx(margin, rel=0.02)
        assert stats.certifiable(0.15, 100) == pytest.approx(0.109, abs=0.001)
        assert stats.certifiable(0.15, 0) == 1

    def test_groups(self):
        """A candidate without a differing pair is certified from the planned number of calls on, and not before."""
        assert stats.needed_groups(0.03) == stats.needed(0.0, 0.03) == 122
        assert lone(0, 0, 123).lower > -0.03 >= lone(0, 0, 120).lower

    def test_design_effect(self):
        """Copies multiply the variance by their number; equal pairs and independent calls leave it as it is."""
        d = np.repeat([1.0, 0.0, 0.0, -1.0, 0.0, 1.0], 50)
        assert stats.design_effect(d, np.repeat(range(6), 50).tolist()) == pytest.approx(50 * 299 / 300 * 6 / 5)
        assert stats.design_effect(np.zeros(9), range(9)) == 1
        assert stats.design_effect(np.arange(9) / 9, range(9)) == pytest.approx(1)


class TestRectified:
    def labels(self, n: int = 600, labelled: int = 150) -> dict:
        rng = np.random.default_rng(8)
        incumbent = (rng.random(n) < 0.8) * 1.0
        candidate = np.where(rng.random(n) < 0.9, incumbent, 0.0)
        rows = rng.choice(n, labelled, replace=False)
        return {
            "incumbent": incumbent, "candidate": np.maximum(candidate, rng.random(n) < 0.05), "groups": list(range(n)),
            "labelled": rows.tolist(), "human_incumbent": incumbent[rows], "human_candidate": candidate[rows],
        }  # fmt: skip

    def test_estimate(self):
        """The estimate is the judge's mean and what people's scores differ from it on their rows."""
        calls = self.labels()
        e = stats.rectified(**calls, margin=0.2)
        judged = calls["candidate"] - calls["incumbent"]
        people = calls["human_candidate"] - calls["human_incumbent"]
        assert e.difference == pytest.approx(judged.mean() + (people - judged[calls["labelled"]]).mean())
        assert -1 <= e.lower < e.difference < e.upper <= 1
        assert (e.p <= 0.025) == (e.lower > -0.2)

    def test_worth(self):
        """A judge that is mostly right narrows the interval that the labelled rows alone would give; trusted blindly it
        would narrow it further."""
        calls = self.labels()
        e = stats.rectified(**calls, margin=0.2)
        people = stats.compare(calls["human_incumbent"], calls["human_candidate"], range(150), margin=0.2)
        judge = stats.compare(calls["incumbent"], calls["candidate"], calls["groups"], margin=0.2)
        assert judge.upper - judge.lower < e.upper - e.lower < people.upper - people.lower

    def test_judge_that_says_nothing(self):
        """Where the judge calls everything equal, people's rows alone decide."""
        calls = self.labels()
        calls["candidate"] = calls["incumbent"]
        e = stats.rectified(**calls, margin=0.2)
        people = stats.compare(calls["human_incumbent"], calls["human_candidate"], range(150), margin=0.2)
        assert (e.lower, e.difference) == pytest.approx((people.lower, people.difference), abs=0.02)

    def test_few_labels(self):
        """Labels that never contradict the judge do not make it infallible: 30 of them leave some twelve points."""
        calls = self.labels(2000, 30)
        rows = calls["labelled"]
        calls["human_candidate"], calls["human_incumbent"] = calls["candidate"][rows], calls["incumbent"][rows]
        e = stats.rectified(**calls, margin=0.05)
        assert e.lower < e.difference - 0.1

    def test_refusals(self):
        """Labels of one group, rows that are not there or named twice, and columns of two lengths are refused."""
        calls = self.labels()
        with pytest.raises(NotDecidable, match="fewer than 2 groups"):
            stats.rectified(**{**calls, "groups": [0] * 599 + [1], "labelled": list(range(150))}, margin=0.1)
        for rows in ([0] * 150, [*range(149), 600], [*range(149), -1], range(3)):
            with pytest.raises(ValueError, match="labelled"):
                stats.rectified(**{**calls, "labelled": list(rows)}, margin=0.1)


class TestStudy:
    """A small run of benchmarks/verdict.py; the whole one is in docs/reference/statistics.md."""

    def false(self, cell: verdict.Cell, repetitions: int) -> verdict.Found:
        found = verdict.simulate(cell, repetitions)
        assert found.certified <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / repetitions), cell
        assert found.low_miss + found.high_miss <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions), cell
        return found

    @pytest.mark.parametrize("graded", [False, True])
    @pytest.mark.parametrize(("n", "psi", "margin"), [(50, 0.05, 0.03), (200, 0.15, 0.09), (200, 0.25, 0.05)])
    def test_lone(self, n, psi, margin, graded):
        """With a true difference of -margin, lone calls are falsely certified in 2.5% of the cases at most."""
        self.false(verdict.Cell("lone", n, 0, 0.0, "", False, psi, graded, margin, -margin), 400)

    @pytest.mark.parametrize("uneven", [False, True])
    @pytest.mark.parametrize("how", ["rates", "copies"])
    @pytest.mark.parametrize(("n", "groups", "psi", "margin"), [
        (50, 5, 0.15, 0.15), (400, 20, 0.15, 0.15), (2000, 100, 0.05, 0.05), (2000, 100, 0.25, 0.05),
    ])  # fmt: skip
    def test_groups(self, n, groups, psi, margin, how, uneven):
        """So it is with groups of even and uneven sizes, and the bootstrap that ignores them fails the same test."""
        found = self.false(verdict.Cell("groups", n, groups, 0.5, how, uneven, psi, False, margin, -margin), 400)
        assert found.unclustered > 0.1

    def test_t_alone(self):
        """The cluster t test alone, which most would use, certifies far too often where losses come together."""
        cell = verdict.Cell("groups", 400, 20, 0.5, "copies", False, 0.05, False, 0.05, -0.05)
        values, _ = verdict.outcomes(cell)
        counts, sizes = verdict.draw(np.random.default_rng(9), cell, 400)
        sums = grouped.Groups(counts @ values, counts @ np.abs(values), sizes * 1.0, np.ones(sizes.shape))
        assert (grouped._jackknife(sums, 0.05) <= 0.025).mean() > 0.1
        assert (grouped.p_value(sums, 0.05) <= 0.025).mean() <= 0.025

    def test_naive_bootstrap_without_groups(self):
        """Where few pairs differ the percentile bootstrap fails even for lone calls."""
        found = self.false(verdict.Cell("lone", 50, 0, 0.0, "", False, 0.05, False, 0.05, -0.05), 1000)
        assert found.unclustered > 0.05

    @pytest.mark.parametrize(("psi", "margin", "graded"), [(0.15, 0.1, False), (0.25, 0.1, False), (0.25, 0.03, True)])
    def test_power(self, psi, margin, graded):
        """At the calls that the formula asks for, four candidates in five without a difference are certified."""
        n = stats.needed(psi * (0.44 if graded else 1.0), margin)
        found = verdict.simulate(verdict.Cell("power", n, 0, 0.0, "", False, psi, graded, margin, 0.0), 250)
        assert found.certified >= 0.75 - 2 * math.sqrt(0.16 / 250)
        assert found.unpaired < found.certified

    def test_judge(self):
        """A judge that overlooks losses is caught by 100 labels, and believed without them would certify the loss."""
        cell = verdict.Cell("judge", 500, 50, 0.2, "copies", False, 0.25, False, 0.1, -0.1, 100)
        assert self.false(cell, 400).unpaired > 0.3
