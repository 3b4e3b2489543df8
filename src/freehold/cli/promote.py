"""Point the name that an application sends at a candidate, for all its calls or for a share of its conversations.

It takes a non-inferior verdict for exactly this model, on every task whose alias the name is (or on --task). Without
names it shows what each alias points at, and how its canary goes. Whether a server runs does not matter; calls that are
under way end where they are. Exit code 1: not promoted, and why.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import msgspec

from freehold import promote
from freehold.cli import local
from freehold.errors import BadTraffic, CannotDo, FreeholdError, NotDecidable
from freehold.types import Manifest, Target, Task, Verdict

if TYPE_CHECKING:
    from freehold.app import Parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold promote``."""
    parser.add_argument("alias", nargs="?", help="the model name that the application sends")
    parser.add_argument("model", nargs="?", help="the model that is to answer: one of the vault, or an upstream's")
    parser.add_argument("--task", help="the task whose verdict counts (default: every task with this alias)")
    parser.add_argument(
        "--share", metavar="PERCENT", type=_share, help="a canary: this share of the conversations, such as 10%%"
    )
    parser.add_argument(
        "--tolerance", metavar="SHARE", type=_tolerance,
        help="how much oftener a canary's candidate may go wrong: 0.03 is three points (default: the task's margin)",
    )  # fmt: skip
    parser.add_argument("--anyway", metavar="REASON", help="without the verdict; the reason goes into the audit chain")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Promote, or show."""
    with local.opened(arguments) as parts:
        if arguments.alias is None:
            return _list(parts, arguments)
        if arguments.model is None:
            raise CannotDo(f"What shall {arguments.alias!r} point at?", hint="Name a model: 'freehold models list'.")
        anyway = arguments.anyway.strip() if arguments.anyway is not None else ""
        if arguments.anyway is not None and not anyway:
            raise CannotDo("--anyway needs a reason.", hint='Say why: --anyway "the old model is switched off today".')
        return _promote(parts, arguments, anyway)


def _promote(parts: Parts, arguments: argparse.Namespace, anyway: str) -> int:
    desk = parts.desk
    target = desk.target(arguments.model)
    found = _standing(parts, arguments.alias, target, arguments.task, forgiving=bool(anyway))
    if not found.may and not anyway:
        _say_no(arguments, found)
        return 1
    moved = promote.promote(
        desk, arguments.alias, target, found, by=local.actor(), share=arguments.share, tolerance=arguments.tolerance,
        anyway=anyway,
    )  # fmt: skip
    if arguments.json:
        local.print_json({"promoted": True} | promote.told(moved))
    else:
        print(local.lines(_moved(moved, found, anyway)))
    return 0


def _standing(parts: Parts, alias: str, target: Target, task: str | None, *, forgiving: bool) -> promote.Standing:
    """How a target stands for an alias; the verdicts are those of 'freehold certify', as they stand: nothing is
    scored or looked at for a promotion."""
    tasks = [parts.tasks.get(task)] if task else [one for one in parts.tasks.every() if one.alias == alias]
    manifest: Manifest | None = None if target.upstream else parts.vault.models().get(target.model)
    verdicts = {} if target.upstream else {one.name: _verdicts(parts, one, forgiving) for one in tasks}
    return promote.standing(alias, target, manifest, tasks, verdicts)


def _verdicts(parts: Parts, task: Task, forgiving: bool) -> list[Verdict] | str:
    from freehold import certify  # numpy, which a listing does not need

    try:
        with parts.bench(task, local.Progress(), asking=False) as bench:
            return certify.standing(bench, task)
    except (NotDecidable, BadTraffic) as error:
        return error.sentence()
    except FreeholdError as error:
        if forgiving:
            return error.sentence()
        raise


def _say_no(arguments: argparse.Namespace, found: promote.Standing) -> None:
    if arguments.json:
        local.print_json({"promoted": False, "alias": arguments.alias, "why": found.why, "verdicts": found.ground})
        return
    print(local.lines([f"{arguments.alias} is not promoted. {found.why}"]))
    print('--anyway "REASON" does it all the same; the reason goes into the audit chain.')


def _moved(moved: promote.Moved, found: promote.Standing, anyway: str) -> list[str]:
    ground = f"Anyway: {anyway}" if anyway else found.why
    if not moved.act:
        return [f"{moved.alias}: nothing to change; {_where(moved)}"]
    if moved.canary is not None:
        return [
            f"{moved.alias}: a canary of {name(moved.canary.target)} has {_percent(moved.canary.share)} of the "
            f"conversations; the rest stays at {name(moved.now)}.",
            f"  {ground}",
            f"  It is rolled back by itself where it is shown to go wrong oftener by more than "
            f"{moved.canary.tolerance * 100:g} points. 'freehold promote' shows how it goes.",
        ]
    before = f", before at {name(moved.before)}" if moved.before else ""
    return [
        f"{moved.alias} points at {name(moved.now)}{before}.",
        f"  {ground}",
        f"  The next call goes there. 'freehold rollback {moved.alias}' takes it back.",
    ]


def _where(moved: promote.Moved) -> str:
    if moved.canary is None:
        return f"it points at {name(moved.now)} already."
    return f"the canary of {name(moved.canary.target)} has {_percent(moved.canary.share)} of the conversations already."


def name(target: Target) -> str:
    """A target in a sentence: its model's name with its digest, or whose it is."""
    return f"{target.model} ({f'upstream {target.upstream}' if target.upstream else target.digest[:19]})"


def _list(parts: Parts, arguments: argparse.Namespace) -> int:
    found = promote.facts(parts.aliases)
    if arguments.json:
        local.print_json(found)
        return 0
    if not found:
        print("There are no aliases. 'freehold promote ALIAS MODEL' makes one.")
        return 0
    here = parts.desk
    rows = [_row(here, alias) for alias in found]
    local.table(rows, ("ALIAS", "POINTS AT", "DIGEST", "TASK", "SINCE", "BY", "BEFORE"))
    for alias in found:
        if alias["canary"] or alias["canaries"]:
            print()
            print(local.lines(_canary(alias) if alias["canary"] else _last(alias)))
    return 0


def _row(desk: promote.Desk, alias: dict[str, Any]) -> tuple[str, ...]:
    target = alias["target"]
    gone = "" if desk.has(msgspec.convert(target, Target)) else " (NOT HERE ANY MORE)"
    whose = f"upstream {target['upstream']}" if target["upstream"] else target["digest"][:19]
    before = ", ".join(one["model"] for one in alias["before"])
    since = local.when(target["at"])
    return (alias["alias"], target["model"] + gone, whose, target["task"], since, target["by"], before)


def _canary(alias: dict[str, Any]) -> list[str]:
    """A running canary, for people."""
    canary = alias["canary"]
    lines = [
        f"{alias['alias']}: a canary of {canary['target']['model']} at {_percent(canary['share'])} of the "
        f"conversations, since {local.when(canary['began_at'])}, by {canary['target']['by']}",
    ]
    for side, model in (("incumbent", alias["target"]["model"]), ("candidate", canary["target"]["model"])):
        arm = canary[side]
        lines.append(
            f"  {side:<10} {arm['calls']:,} calls, {arm['went_wrong']:,} went wrong{_rate(arm)}, "
            f"{arm['complaints']:,} complained of  [{model}]"
        )
    if canary["missed"]:
        lines.append(f"  not judged {canary['missed']:,} calls, for want of room")
    lines += [_test(canary, test, said) for test, said in _TESTS]
    return lines


def _last(alias: dict[str, Any]) -> list[str]:
    """The latest of the canaries that are over, for people."""
    canary = alias["canaries"][0]
    sides = (
        f"{canary[side]['went_wrong']:,} of {canary[side]['calls']:,} of the {side}'s calls"
        for side in ("incumbent", "candidate")
    )
    return [
        f"{alias['alias']}: the last canary, of {canary['target']['model']}, was {canary['ended']} on "
        f"{local.when(canary['ended_at'])}; {' and '.join(sides)} went wrong"
    ]


_TESTS = (("own", "by itself"), ("told", "with complaints"))


def _rate(arm: dict[str, Any]) -> str:
    return f" ({arm['went_wrong'] / arm['calls']:.1%})" if arm["calls"] else ""


def _test(canary: dict[str, Any], test: str, said: str) -> str:
    """A test in a line: what it counts, what is shown now, and how near it is to a rollback."""
    found = canary["tests"][test]
    counts = " and ".join(
        f"{found[side]['went_wrong']:,} of {found[side]['conversations']:,}" for side in ("incumbent", "candidate")
    )
    bounds = [
        f"{word} {found[name] * 100:+g} points"
        for word, name in (("more than", "more_than"), ("less than", "less_than"))
        if found[name] is not None
    ]
    shown = f"the difference is {' and '.join(bounds)}" if bounds else "no difference is shown or ruled out yet"
    return (
        f"  {said}: {counts} conversations went wrong; {shown}; evidence {found['evidence']:.3g} of the "
        f"{found['needed']:g} that roll it back (tolerance {canary['tolerance'] * 100:g} points)"
    )


def _percent(share: float) -> str:
    return f"{share * 100:g}%"


def _share(text: str) -> float:
    """A share, as 10% or 0.1."""
    try:
        found = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        found = float("nan")
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; 10% or 0.1 is one")
    return found


def _tolerance(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not 0 <= found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1; 0.03 means three points")
    return found
