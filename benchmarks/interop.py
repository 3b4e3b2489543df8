"""Our Inspect AI logs, read by Inspect AI itself: ``make interop``. It brings 79 packages, so it has an environment
of its own, and is no part of the suite; tests/test_interop.py holds the shapes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
VENV = HERE / ".venvs" / "interop"
READER = """
import sys
from inspect_ai.log import read_eval_log, write_eval_log

made = read_eval_log(sys.argv[1])
assert [each.scores["json"].value for each in made.samples] == [0.25 * n for n in range(4)], made.samples
assert made.samples[3].error.message == "engine_failed: it died", made.samples[3].error
assert read_eval_log(sys.argv[1], header_only=True).results.scores[0].metrics["mean"].value == 0.375
write_eval_log(made, sys.argv[2])
"""


def main() -> int:
    """Write a log, let the real reader read and rewrite it, and read that again."""
    from freehold.traffic import inspectlog
    from freehold.traffic.exchange import Row
    from freehold.types import Answer, Candidate, Replayed, Sample, Score, Task

    if not (VENV / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(VENV / "bin/pip"), "install", "--quiet", "inspect-ai==0.3.285"], check=True)
    calls = [
        Sample(f"s{n}", {"messages": [{"role": "user", "content": f"q {n}"}]}, answer=Answer("a"), expected=Answer("b"))
        for n in range(4)
    ]
    came = [Replayed(call.id, Answer("c")) for call in calls[:3]] + [Replayed("s3", None, "engine_failed: it died")]
    rows = [Row(call, replayed, Score(0.25 * n)) for n, (call, replayed) in enumerate(zip(calls, came, strict=True))]
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours.json"), Path(folder, "theirs.json")
        inspectlog.write(ours, Task("tickets", {"kind": "json"}, 0.03), Candidate("small", "sha256:0"), rows)
        subprocess.run([str(VENV / "bin/python"), "-c", READER, str(ours), str(theirs)], check=True)
        assert list(inspectlog.read(theirs)) == calls
    print("Inspect AI reads our log, and what it writes of it comes back as the same calls.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
