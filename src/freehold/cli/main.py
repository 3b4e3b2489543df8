"""``freehold VERB ...``. A verb's file is imported when the verb is asked for, so that help is instant.

Exit codes: 0 done and clean; 1 done, and the answer is no; 2 could not do it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from freehold import __version__

VERBS = {
    "up": "serve: API and engine; prints the address, and on the first run a key, once",
    "ask": "one question to the running server, streamed to the terminal",
    "status": "what is true now: auth, bind, seal layers, models, ledger",
    "keys": "make, list and revoke the keys of callers",
    "ledger": "what was called, by whom, and what came of it",
    "audit": "the chain of acts: list it, and verify that nobody rewrote it",
    "prove": "put a claim to the test: prove privacy",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code. Nothing but SystemExit and the code leaves it."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    verb = next((word for word in words if word in VERBS), None)
    if verb is None:
        parser.parse_args(words or ["--help"])
        return 2
    module = importlib.import_module(f"freehold.cli.{verb}")
    common = _common()
    home, rest = common.parse_known_args(words)  # taken out first, so that it may stand anywhere
    rest.remove(verb)
    own = argparse.ArgumentParser(
        prog=f"freehold {verb}", description=module.__doc__, formatter_class=_Raw, parents=[common]
    )
    module.add_arguments(own)
    return _run(module, own.parse_args(rest, home))


def _run(module, arguments: argparse.Namespace) -> int:
    from freehold.errors import FreeholdError

    try:
        return module.run(arguments)
    except FreeholdError as error:
        print(f"freehold: {error.sentence()}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; there is nobody to tell
        return 0


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
