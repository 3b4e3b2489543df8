"""One command, measured: ``measure.py RESULT SECONDS BYTES COMMAND...`` writes what it took to RESULT as JSON.

This process stays small, since a child's largest size begins with that of whoever starts it. The largest size is that
of the largest single process among the command and all that it waited for.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time


def main() -> int:
    """Run the command in a group of its own, end the group where it takes too long."""
    result, seconds, memory, *command = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    begun = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, setpgroup=0)
    late = []
    signal.signal(signal.SIGALRM, lambda *_: (late.append(True), os.killpg(pid, signal.SIGKILL)))
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    _, status, usage = os.wait4(pid, 0)
    took = time.monotonic() - begun
    with open(result, "w") as file:
        json.dump({"code": os.waitstatus_to_exitcode(status), "seconds": round(took, 4), "late": bool(late),
                   "peak_mb": round(usage.ru_maxrss / 1024, 1)}, file)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
