"""``freehold VERB ...``. A verb's file is imported when the verb is asked for, so that help is instant.

Exit codes: 0 done and clean; 1 done, and the answer is no; 2 could not do it; 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from freehold import __version__

VERBS = {
    "up": "serve: API and engine; prints the address, and on the first run a key, once",
    "ask": "one question to the running server, streamed to the terminal",
    "status": "what is true now: auth, bind, seal layers, models, ledger",
    "metrics": "the figures of the running server, in Prometheus' format",
    "scan": "judge model files: what is in them, and may they come in",
    "models": "the models of this house: add, decide, list, show, verify, remove, export, import",
    "traffic": "recorded calls of a task: import, list, show, export, erase, expire, encrypt, renew",
    "tasks": "the jobs that an application gives to a model: add, list, show, remove",
    "replay": "what a candidate makes of a task's recorded calls, through the running server",
    "tune": "teach a model a task: an adapter trained on its recorded calls, on this machine",
    "certify": "the verdict: is a candidate good enough, on the task's own later calls",
    "promote": "point the name that an application sends at a candidate; without names: what points where",
    "rollback": "point such a name back at what it pointed at before",
    "cost": "what calls cost on this machine, beside what somebody else charges for them",
    "switch": "the whole move in one command: import, tune, certify, dossier; stops before promotion",
    "report": "the dossier: one signed file for a switch; and verify one, offline",
    "keys": "make, list and revoke the keys of callers",
    "teams": "teams of keys: add, list, remove, and move a key into one",
    "limits": "how much a key or a team may have: set, show, list, unset",
    "guard": "what may go where of secrets and personal data: show the rules, try a text",
    "ledger": "what was called, by whom, and what came of it",
    "audit": "the chain of acts and calls: verify that none was changed, list, sign, export",
    "prove": "put a claim to the test: prove privacy",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Nothing but SystemExit and the code leaves it."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; there is nobody to tell
        return 0
    except Exception as error:  # noqa: BLE001 - a traceback never reaches a person
        return _explain(error)


def _run(words: list[str]) -> int:
    common = _common()
    home, rest = common.parse_known_args(words)  # taken out first, so that it may stand anywhere
    parser = _parser()
    verb = next((word for word in rest if word in VERBS), None)
    if verb is None:
        parser.parse_args(rest or ["--help"])
        return 2
    module = importlib.import_module(f"freehold.cli.{verb}")
    rest.remove(verb)
    own = argparse.ArgumentParser(
        prog=f"freehold {verb}", description=module.__doc__, formatter_class=_Raw, parents=[common]
    )
    module.add_arguments(own)
    return module.run(own.parse_args(rest, home))


def _explain(error: Exception) -> int:
    """One sentence for an error; where it is none of ours, with what is needed to report it."""
    from freehold.errors import FreeholdError

    if isinstance(error, FreeholdError):
        from freehold.cli import local

        print(f"freehold: {local.plain(error.sentence())}", file=sys.stderr)
        return 2
    if os.environ.get("FREEHOLD_TRACEBACK"):
        sys.excepthook(type(error), error, error.__traceback__)
    said = f"An unexpected fault, {type(error).__name__}: {error}."
    print(f"freehold: {said} Please report it; FREEHOLD_TRACEBACK=1 shows where it was.", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:<8} {said}" for name, said in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="freehold",
        usage="freehold VERB [options]",
        description="Open models on your own machines, behind the APIs your applications already call.",
        epilog=f"verbs:\n{verbs}\n\n'freehold VERB --help' says more.",
        formatter_class=_Raw,
    )
    parser.add_argument("verb", nargs="?", choices=list(VERBS), metavar="VERB", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"freehold {__version__}")
    return parser


def _common() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--home", metavar="DIR", help="the folder that holds everything (or FREEHOLD_HOME)")
    return parser


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps our own line breaks."""
