"""The last chapters: the terms of the data, the machine, what all of this does not say, and how to check it."""

from __future__ import annotations

from collections.abc import Iterator

from freehold.dossier import say
from freehold.names import size
from freehold.types.dossier import Chapter, Evidence, Figure, Known, Part, Table
from freehold.types.traffic import Outlook, Verdict

FEW_GROUPS = 30


def terms(evidence: Evidence) -> Chapter:
    """Under which terms the recorded answers are, as whoever brought them said."""
    task = evidence.task
    shows = say.command("tasks", "show", task.name)
    export = say.command("traffic", "export", task.name, "-o", "calls.jsonl")
    lead = (
        "Whether the incumbent's answers may be used to choose, to tune or to certify another model is between you and "
        "whoever provided them. Freehold keeps what was said about it and does not judge it.",
    )
    own = (
        Figure("terms.task", "By the task", task.terms, task.terms, shows, Known.STATED)
        if task.terms
        else say.missing("terms.task", "By the task", "the task's file says nothing of terms", shows)
    )
    rows = tuple((text or "nothing is said", f"{count:,}") for text, count in evidence.terms)
    table = Table(
        "terms.samples", "By the recorded calls", ("terms", "calls"), rows, export, Known.STATED, numeric=(1,)
    )
    named = tuple((name or "not named", f"{count:,}") for name, count in evidence.incumbents)
    who = Table(
        "terms.incumbents", "Who answered them", ("incumbent", "calls"), named, export, Known.STATED, numeric=(1,)
    )
    tables = tuple(table for table in (table, who) if table.rows)
    return Chapter("terms", "Terms of the data", (Part("terms.main", "", lead, figures=(own,), tables=tables),))


def environment(evidence: Evidence) -> Chapter:
    """What it all ran on. Nothing here names the machine."""
    machine, again = evidence.machine, say.command("report", evidence.task.name, "--format", "json")
    found = (
        ("freehold", "Freehold", machine.freehold), ("library", "Engine library", machine.engine),
        ("python", "Python", machine.python), ("system", "System", machine.system),
        ("kernel", "Kernel", machine.kernel), ("processor", "Processor", machine.processor),
        ("cores", "Cores", machine.cores), ("memory", "Memory", machine.memory),
    )  # fmt: skip
    figures = [
        Figure(
            "environment.engine", "Engine of the candidate", evidence.verdict.candidate.engine,
            evidence.verdict.candidate.engine or "not known", say.certify(evidence.task), Known.STATED,
            note="a part of the candidate's key: another engine or setting is another candidate",
        )
    ]  # fmt: skip
    for id, label, value in found:
        shown = size(value) if id == "memory" else str(value or "not known")
        figures.append(Figure(f"environment.{id}", label, value, shown, again, lasting=False))
    lead = ("The versions and sizes below are those of the machine that made this dossier, when it was made.",)
    return Chapter("environment", "Environment", (Part("environment.main", "", lead, figures=tuple(figures)),))


# limits


def limits(evidence: Evidence) -> Chapter:
    """What the verdict does not say."""
    return Chapter("limits", "What this does not say", (Part("limits.main", points=tuple(_limits(evidence))),))


def short_limits(evidence: Evidence) -> tuple[str, ...]:
    """The gravest of them, for the first page."""
    return tuple(_limits(evidence))[:3]


def _limits(evidence: Evidence) -> Iterator[str]:
    """In the order in which they matter."""
    verdict = evidence.verdict
    if is_synthetic(evidence):
        yield (
            "The data are synthetic: nobody's application made these calls. The verdict shows how the method works, "
            "and nothing about real work."
        )
    if say.agreement(verdict):
        yield (
            "Agreement with the incumbent is all that was measured: where the incumbent is wrong, agreeing with it is "
            "wrong too, and a better answer counts as a loss."
        )
    if verdict.judge:
        yield "A model judged the answers. It is believed only as far as people's labels show that it can be."
    yield from _of_outcome(verdict)
    if verdict.groups < FEW_GROUPS and verdict.estimate is not None:
        yield (
            f"There are only {verdict.groups:,} groups of calls. What holds for these customers or conversations may "
            "not hold for others."
        )
    yield (
        "It holds for calls like those that were recorded. If the application, its prompts or its users change, it has "
        "to be certified anew."
    )
    yield (
        "It is a mean: single answers do change, and the chapter on calls that changed lists which. Whether one of "
        "them would be a disaster is for whoever knows the work."
    )
    if evidence.costs is not None:
        yield "Costs are estimates: they rest on an hourly price, on power and on a price list, each as it is stated."
    yield (
        "Safety, bias and behaviour outside this task were not measured, nor what the model does when somebody attacks "
        "it through what it reads."
    )
    yield (
        "The signature says that this house's key signed these figures and that nobody changed them since. It does not "
        "say that the house told the truth: the commands beside the figures are there so that this can be seen, in the "
        "home."
    )


def _of_outcome(verdict: Verdict) -> Iterator[str]:
    if verdict.outcome is Outlook.NON_INFERIOR:
        yield (
            f"Non-inferior is not equal and not better: a loss of up to {say.points(verdict.margin)} was accepted "
            "beforehand, and a smaller one may be there."
        )
    elif verdict.outcome is Outlook.UNDECIDED:
        yield "Undecided is neither a yes nor a no: these calls do not tell whether the loss is small enough."
    else:
        yield "Inferior means: on this task, with these settings, by more than the margin. It says nothing of others."


def is_synthetic(evidence: Evidence) -> bool:
    """Does anybody who described the data say that they are made up?"""
    said = (evidence.task.about, evidence.task.terms, *(text for text, _ in evidence.terms))
    return any("synthetic" in text.casefold() for text in said)


# how to check it


def check(evidence: Evidence) -> Chapter:
    """Who signed, and how anybody can see that nothing was changed."""
    chain, public = evidence.chain, say.command("report", "--public-key")
    verify, audit = say.command("report", "verify", "dossier.html"), say.command("audit", "verify")
    holds = f"holds: {chain.events:,} events" if chain.holds else f"BROKEN: {chain.problem}"
    figures = (
        Figure("check.made", "Made", evidence.at, f"{say.moment(evidence.at)}, by {evidence.by}", verify),
        Figure("check.signer", "Signed with the key", evidence.signer, evidence.signer, public, Known.COMPUTED),
        Figure("check.key", "Public key", evidence.key, evidence.key, public, Known.STATED),
        Figure("check.chain", "Audit chain", [chain.events, chain.holds], holds, audit),
        Figure("check.head", "Head of the chain", chain.head, chain.head, audit, Known.COMPUTED),
    )
    points = (
        "Whole and unchanged: 'freehold report verify FILE' needs no network and no server. It says whose key signed, "
        "and names what was changed.",
        "Trusted: compare the fingerprint of the key with the one that the house tells you by another way, on the "
        "telephone say, and give it with --key. A good signature by a key that you do not know is worth nothing.",
        "True: in the home that made it, 'freehold report verify FILE --recompute' works every figure out anew from "
        "the store and names each that differs. Each chapter names the commands that do it one by one.",
    )
    return Chapter("check", "How to check this dossier", (Part("check.main", points=points, figures=figures),))
