"""The whole move on the synthetic tickets, measured: how long each stage takes, how much memory, and what came of it.

    python benchmarks/switch.py --home .demo [--page docs/reference/switch.md]

Runs ``freehold switch examples/tickets/switch.toml`` on the home (`make demo` makes the traffic first; stages that were
done before are not done again, and keep their seconds), and reads what its stages said. "All fields right" is worked
out here, from the kept answers, by the task's own scorer with every field required.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from freehold import app, config, scorers
from freehold.home import Home
from freehold.types import Candidate, Split, Verdict

ROOT = Path(__file__).parent.parent
SWITCH = ROOT / "examples" / "tickets" / "switch.toml"
PAGE = """# The whole move, measured

<!-- written by 'python benchmarks/switch.py'; run it to have your own -->

`make demo` on the synthetic task of examples/tickets: {cores} threads, Linux {kernel}, Python {python}, {date}.

Command: `make bench-switch`

| stage | what came of it | seconds |
| --- | --- | ---: |
{stages}
| all | | **{seconds:.0f}** |

{memory}

| | found | target |
| --- | --- | --- |
| all stages | {minutes:.1f} min | under 15 |
| all fields right, the base as it comes ({base_calls} validation calls) | {base_right:.1%} | reported |
| all fields right, tuned ({calls} calls, {groups} customers) | **{right:.1%}** | 95% |
| all fields right, the pretended incumbent on the same calls | {theirs:.1%} | |
| share of fields right, tuned / incumbent | {mean:.2%} / {incumbent:.2%} | |
| verdict at a margin of {margin:g} points | **{outcome}** ({lower:+.2f} to {upper:+.2f}) | non-inferior |
| likeliest token as in torch, tuned / base alone | {argmax:.2%} / {base_argmax:.2%} of {positions} | within 1 point |
| median difference in nats, tuned / base | {median:.4f} / {base_median:.4f} | at most twice |
| trained | {trained} calls, {tokens:,} tokens at {rate:.0f} a second ({dtype}) | |

No tuning call has the name in {new[name]} of the calls that certify, nor the goods in {new[item]}. {wrong}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".demo")
    parser.add_argument("--switch", type=Path, default=SWITCH)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reference" / "switch.md")
    words = parser.parse_args()
    command = [sys.executable, "-m", "freehold", "switch", str(words.switch), "--home", str(words.home)]
    done = subprocess.run(command, check=False)
    if done.returncode not in (0, 1):
        sys.exit("The switch did not come to its end.")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    latest = max((words.home / "switches").glob("*.json"), key=lambda path: path.stat().st_mtime)
    said = json.loads(latest.read_bytes())
    words.page.write_text(_page(words.home, said, peak), encoding="utf-8")
    print(words.page.read_text(encoding="utf-8"))


def _page(home: Path, said: dict[str, Any], peak: float) -> str:
    (verdict,) = msgspec.convert(said["certify"]["document"], list[Verdict])
    run = said["tune"]["document"]
    found = _right(home, verdict, said)
    seconds = sum(stage["seconds"] for stage in said.values())
    memory = f"The largest process held {peak:,.0f} MB (4,000 is the target)." if peak > 500 else ""
    parity, estimate = run["parity"], verdict.estimate
    wrong = ", ".join(f"{name} {count}" for name, count in sorted(found["wrong"].items(), key=lambda one: -one[1]))
    return PAGE.format(
        cores=os.cpu_count(), kernel=platform.release().split("-")[0], python=platform.python_version(),
        date=time.strftime("%Y-%m-%d"), stages="\n".join(_row(name, stage) for name, stage in said.items()),
        seconds=seconds, minutes=seconds / 60, memory=memory, base_calls=found["base_calls"],
        base_right=found["base"], calls=verdict.calls, groups=verdict.groups, right=found["tuned"],
        theirs=found["incumbent"], mean=verdict.candidate_mean, incumbent=verdict.incumbent_mean,
        margin=verdict.margin * 100, outcome=verdict.outcome.value, lower=estimate.lower * 100,
        upper=estimate.upper * 100, argmax=parity["adapter_argmax"], base_argmax=parity["base_argmax"],
        positions=parity["positions"], median=parity["adapter_median"], base_median=parity["base_median"],
        trained=run["calls"], tokens=run["tokens"], rate=run["tokens"] / run["seconds"], dtype=run["dtype"],
        new=found["new"],
        wrong=f"Fields that the tuned model has wrong: {wrong}." if wrong else "",
    )  # fmt: skip


def _row(name: str, stage: dict[str, Any]) -> str:
    document = stage["document"]
    told = {"tune": lambda: document["name"], "certify": lambda: document[0]["outcome"]}.get(name, str)()
    return f"| {name} | {told} | {stage['seconds']:.0f} |"


def _right(home: Path, verdict: Verdict, said: dict[str, Any]) -> dict[str, Any]:
    """The share of calls with every field right: of the tuned model, the incumbent, and the base as it comes."""
    with app.parts(Home(home, create=False), config.load(home)) as parts:
        task = parts.tasks.get(verdict.task)
        strict = msgspec.structs.replace(task, scorer=task.scorer | {"value": "all"})
        scorer = scorers.make(strict, parts.tasks.folder(task.name), parts.settings.seal)
        answers = {one.name: parts.results.answers(task.name, one.key) for one in parts.results.candidates(task.name)}
        base = msgspec.convert(said["baseline"]["document"]["candidates"][0]["candidate"], Candidate)
        wrong: dict[str, int] = {}
        taught = [json.loads(sample.expected.text) for sample in parts.samples.of_split(task, Split.TUNING)]
        known = {field: {call[field] for call in taught} for field in ("name", "item")}
        new = dict.fromkeys(known, 0)
        shares: dict[str, list[float]] = {"tuned": [], "incumbent": [], "base": []}
        for sample in parts.samples.of_split(task, Split.CERTIFICATION):
            answer = answers[verdict.candidate.name][sample.id].answer
            shares["tuned"].append(scorer.score(sample, answer, sample.expected).value)
            shares["incumbent"].append(scorer.score(sample, sample.answer, sample.expected).value)
            _count(wrong, answer.text if answer else "", sample.expected.text)
            for field, value in json.loads(sample.expected.text).items():
                if field in known:
                    new[field] += value is not None and value not in known[field]
        for sample in parts.samples.of_split(task, Split.VALIDATION):
            if found := answers[base.name].get(sample.id):
                shares["base"].append(scorer.score(sample, found.answer, sample.expected).value)
        scorer.close()
    means = {name: sum(values) / len(values) if values else 0.0 for name, values in shares.items()}
    return means | {"wrong": wrong, "new": new, "base_calls": len(shares["base"])}


def _count(wrong: dict[str, int], said: str, expected: str) -> None:
    """Which fields of one answer are wrong."""
    right = json.loads(expected)
    try:
        found = json.loads(said)
    except ValueError:
        found = {}
    for name, value in right.items():
        if not isinstance(found, dict) or found.get(name, "?") != value:
            wrong[name] = wrong.get(name, 0) + 1


if __name__ == "__main__":
    main()
