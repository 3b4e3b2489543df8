"""The models of this house: bring one in through the gate, decide about one that waits, look at one, verify the bytes,
take one out, and carry them to another house."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

import msgspec

from freehold import acquire, bom, intake, names, sign
from freehold.app import Parts
from freehold.cli import local
from freehold.errors import CannotDo
from freehold.intake import Outcome
from freehold.types import Admission, Finding, Held, Manifest, Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``freehold models``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(_COMMANDS))
    for name, (add, _, said) in _COMMANDS.items():
        command = commands.add_parser(name, help=said, description=said[0].upper() + said[1:] + ".")
        add(command)


def run(arguments: argparse.Namespace) -> int:
    """Do what the sub-command says."""
    creates = arguments.command in ("add", "import")
    with local.opened(arguments, create=creates) as parts:
        return _COMMANDS[arguments.command][1](parts, arguments)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="hf:ORG/REPO[@REVISION][/FILE]; file:PATH or PATH, a file or a folder; "
        "pkg:NAME==VERSION/PATH[#sha256=...]; oci:PATH[:TAG] or oci-archive:PATH[:TAG]",
    )
    parser.add_argument(
        "--name",
        default="",
        help="what to call it here (default: from the source); of an adapter its own part is enough: with --base B, "
        "'tickets' becomes B+tickets@1, or @2 where that is taken",
    )
    parser.add_argument("--include", metavar="GLOB", action="append", default=[], help="only these files; repeatable")
    parser.add_argument("--exclude", metavar="GLOB", action="append", default=[], help="not these files; repeatable")
    parser.add_argument("--convert", action="store_true", help="turn a plain-data PyTorch checkpoint into safetensors")
    parser.add_argument("--base", metavar="NAME", default="", help="the admitted model that this adapter belongs to")
    parser.add_argument("--template", metavar="FILE", type=Path, help="the publisher's chat template, to compare with")
    parser.add_argument("--replace", action="store_true", help="let the name move from another model to this one")
    parser.add_argument("--json", action="store_true", help="for programs")


def _add(parts: Parts, arguments: argparse.Namespace) -> int:
    wish = intake.Wish(
        arguments.source, arguments.name, tuple(arguments.include), tuple(arguments.exclude), arguments.convert,
        arguments.base, _text(arguments.template), arguments.replace,
    )  # fmt: skip
    bar = local.Bar()
    outcome = parts.intake(bar).add(wish, local.actor())
    bar.end()
    return _tell(outcome, arguments.json)


def _decide_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a model that waits")
    verdict = parser.add_mutually_exclusive_group(required=True)
    verdict.add_argument("--admit", action="store_const", const=Admission.ADMIT, dest="verdict", help="let it in")
    verdict.add_argument("--refuse", action="store_const", const=Admission.BLOCK, dest="verdict", help="remove it")
    parser.add_argument("--by", metavar="WHO", required=True, help="who decides")
    parser.add_argument("--why", metavar="REASON", required=True, help="for what reason")
    parser.add_argument("--json", action="store_true", help="for programs")


def _decide(parts: Parts, arguments: argparse.Namespace) -> int:
    by, why = arguments.by.strip(), arguments.why.strip()
    if not by or not why:
        raise CannotDo("A decision needs a name and a reason.", hint="Give --by WHO and --why REASON.")
    bar = local.Bar()
    outcome = parts.intake(bar).decide(arguments.name, arguments.verdict, by=by, why=why, actor=local.actor())
    bar.end()
    _tell(outcome, arguments.json)
    return 0  # what was to be done is done, whichever it was


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _list(parts: Parts, arguments: argparse.Namespace) -> int:
    admitted, waiting = parts.vault.list(), parts.intake().waiting()
    if arguments.json:
        held = [msgspec.to_builtins(held.record) for held in waiting]
        local.print_json({"admitted": [msgspec.to_builtins(known) for known in admitted], "waiting": held})
        return 0
    rows = [_row(known) for known in admitted] + [_waiting_row(held) for held in waiting]
    local.table(rows, ("NAME", "STATE", "FORMAT", "SIZE", "LICENCE", "DIGEST", "SOURCE"))
    return 0


def _row(known: Manifest) -> tuple[str, ...]:
    licence, digest = known.licence or "unknown", known.digest[:19]
    return (known.name, "admitted", known.format, local.size(known.size), licence, digest, known.source)


def _waiting_row(held: Held) -> tuple[str, ...]:
    record = held.record
    size = local.size(sum(file.size for file in record.files))
    return (record.name, "held", record.format, size, record.licence.id or "unknown", "", record.source)


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="an admitted model, or one that waits")
    parser.add_argument("--json", action="store_true", help="the whole record, for programs")
    parser.add_argument("--file", action="store_true", help="only the path of the file that an engine opens")
    parser.add_argument("--bom", choices=["cyclonedx", "spdx"], help="its bill of materials, for programs")


def _show(parts: Parts, arguments: argparse.Namespace) -> int:
    manifest, record = _find(parts, arguments.name)
    if arguments.file:
        if manifest is None:
            raise CannotDo(f"{arguments.name} waits for a decision; no engine opens it.", hint="Decide it first.")
        print(parts.vault.blob(manifest.digest))
    elif arguments.bom:
        local.print_json(bom.document(record, arguments.bom))
    elif arguments.json:
        local.print_json(_facts(record, manifest))
    else:
        print(local.lines(_page(manifest, record)))
    return 0


def _facts(record: Record, manifest: Manifest | None) -> dict:
    """The whole record, for programs; what a decision is bound to where it still waits for one."""
    facts = {"state": _state(Outcome(record, manifest)), "manifest": msgspec.to_builtins(manifest)}
    return msgspec.to_builtins(record) | facts


def _find(parts: Parts, name: str) -> tuple[Manifest | None, Record]:
    for held in parts.intake().waiting():
        if held.record.name == name:
            return None, held.record
    manifest = parts.vault.get(name)
    return manifest, parts.vault.record(manifest)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="which (default: all)")
    parser.add_argument("--json", action="store_true", help="for programs")


def _verify(parts: Parts, arguments: argparse.Namespace) -> int:
    manifests = [parts.vault.get(name) for name in arguments.names] or parts.vault.list()
    if not manifests and not arguments.json:
        print("There are no admitted models.")
    bar = local.Bar()
    wrong = parts.vault.verify_all(manifests, lambda done, total: bar("verifying", done, total))
    bar.end()
    unsigned = {manifest.name for manifest in manifests if not parts.signed(manifest)}
    if arguments.json:
        local.print_json(
            {
                name: {"good": not faults, "wrong": faults, "signed": name not in unsigned}
                for name, faults in wrong.items()
            }
        )
    for name, faults in wrong.items() if not arguments.json else ():
        bytes_said = "NOT WHAT WAS ADMITTED" if faults else "every byte is what was admitted"
        signed_said = "ITS RECORD IS NOT SIGNED BY THIS HOUSE'S KEY" if name in unsigned else "its record is signed"
        print(local.lines([f"{name}  {bytes_said}; {signed_said}", *(f"  {fault}" for fault in faults)]))
    return 1 if unsigned or any(wrong.values()) else 0


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="an admitted model")
    parser.add_argument("--json", action="store_true", help="for programs")


def _remove(parts: Parts, arguments: argparse.Namespace) -> int:
    if any(held.record.name == arguments.name for held in parts.intake().waiting()):
        raise CannotDo(f"{arguments.name!r} waits for a decision.", hint="See 'freehold models decide --refuse'.")
    manifest = parts.vault.get(arguments.name)
    if pointing := parts.aliases.pointing_at(arguments.name):
        raise CannotDo(
            f"{arguments.name!r} answers the calls to {', '.join(pointing)}.",
            hint=f"'freehold rollback {pointing[0]}' first, or promote another model.",
        )
    live = local.live(parts.home)
    if live and any(engine["digest"] == manifest.digest and engine["pid"] for engine in live["engines"]):
        raise CannotDo(
            f"An engine of the running server has {arguments.name!r} open.",
            hint="Stop the server, or wait until the engine is idle and has ended.",
        )
    freed = parts.vault.remove(arguments.name)
    parts.ledger.record("model.removed", arguments.name, actor=local.actor(), detail={"digest": manifest.digest})
    if arguments.json:
        local.print_json({"removed": arguments.name, "freed": freed})
    else:
        print(f"{arguments.name} is removed; {local.size(freed)} came free.")
    return 0


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="admitted models")
    parser.add_argument("--output", "-o", metavar="FILE", type=Path, required=True, help="the bundle to write")
    parser.add_argument("--with-engine", action="store_true", help="also the wheels of the engine, for this platform")
    parser.add_argument("--json", action="store_true", help="for programs")


def _export(parts: Parts, arguments: argparse.Namespace) -> int:
    bar = local.Bar()
    way = parts.intake(bar)
    with acquire.quarantine(parts.home.folder) as folder:
        wheels = acquire.engine(folder, bar) if arguments.with_engine else []
        index = way.carry(arguments.names, arguments.output, local.actor(), wheels=wheels)
    bar.end()
    signer = sign.fingerprint(index.key)
    names, size = [model.name for model in index.models], arguments.output.stat().st_size
    if arguments.json:
        local.print_json(
            {"file": str(arguments.output), "size": size, "signer": signer, "state": index.state, "models": names}
        )
    else:
        print(f"{arguments.output}: {', '.join(names)}; {local.size(size)}, state {index.state} of this house")
        print(f"  signed by {signer}")
        print(
            "  Tell them this fingerprint by another way than the file; there they give it to 'models import --signer'."
        )
    return 0


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a bundle")
    parser.add_argument(
        "--signer",
        metavar="FINGERPRINT",
        default="",
        help="the sender's key, as they told you by another way; needed once",
    )
    parser.add_argument("--replace", action="store_true", help="let names move from other models to these")
    parser.add_argument("--json", action="store_true", help="for programs")


def _import(parts: Parts, arguments: argparse.Namespace) -> int:
    bar = local.Bar()
    outcomes = parts.intake(bar).bring(arguments.file, arguments.signer, local.actor(), replace=arguments.replace)
    bar.end()
    if arguments.json:
        local.print_json([_facts(outcome.record, outcome.manifest) for outcome in outcomes])
    for outcome in outcomes if not arguments.json else ():
        _tell(outcome, as_json=False)
    if parts.home.wheels.is_dir() and not arguments.json:
        print(f"The engine's wheels: pip install --no-index --find-links {parts.home.wheels} xllamacpp")
    return 0 if all(outcome.manifest for outcome in outcomes) else 1


def _tell(outcome: Outcome, as_json: bool) -> int:
    """Say what came of it; the exit code says whether it is in."""
    if as_json:
        local.print_json(_facts(outcome.record, outcome.manifest))
    else:
        print(local.lines(_short(outcome)))
    return 0 if outcome.manifest else 1


def _state(outcome: Outcome) -> str:
    """What became of a model: where it is now, whatever was found."""
    if outcome.manifest is not None:
        return "admitted"
    refused = outcome.record.verdict is Admission.BLOCK or outcome.record.ruling is not None
    return "refused" if refused else "held"


def _short(outcome: Outcome) -> list[str]:
    record, state = outcome.record, _state(outcome)
    count = len(record.files)
    size = local.size(sum(file.size for file in record.files))
    lines = [f"{record.name}: {state}. {count} file{'s' * (count != 1)}, {size}, from {record.source}"]
    lines += [f"  licence   {_licence(record)}", *_ruling(record), *_findings(record.findings)]
    if state == "held":
        lines.append("Nothing of it is served before somebody decides (--admit or --refuse):")
        lines.append(f"  freehold models decide {record.name} --admit --by WHO --why REASON")
    return lines


def _ruling(record: Record) -> list[str]:
    ruling = record.ruling
    if ruling is None:
        return []
    said = "admit" if ruling.verdict is Admission.ADMIT else "refuse"
    return [f"  decided   to {said} it, by {ruling.by}, {local.when(ruling.at)}: {ruling.why}"]


def _page(manifest: Manifest | None, record: Record) -> list[str]:
    """The whole record, for people."""
    openness = record.openness
    lines = [
        f"{record.name}: {_state(Outcome(record, manifest))}",
        f"  source        {record.source}{' (its digest was known beforehand)' if record.pinned else ''}",
        f"  judged        {local.when(record.judged_at)} by {record.judged_by}: {record.verdict.value}",
    ]
    if manifest:
        lines += [f"  admitted      {local.when(manifest.admitted_at)}", f"  digest        {manifest.digest}"]
    lines += [line.replace("decided   ", "decided       ") for line in _ruling(record)]
    lines += [f"  carried       by {record.via}"] if record.via else []
    lines += [f"  chosen        {', '.join(record.chosen)}"] if record.chosen else []
    lines += [
        f"  model         {record.format}, {record.architecture or 'unknown'}, "
        f"{record.parameters:,} parameters, context {record.context or 'unknown'}",
        *(f"  converted     {path} from {old}" for path, old in record.converted.items()),
        *([f"  adapter of    {_base_name(record)}{record.base}"] if record.base else []),
        f"  base          {', '.join(record.base_models) or 'none stated'}",
        f"  licence       {_licence(record)}",
        *(f"                asks: {ask}" for ask in record.licence.asks),
        *(f"                {stated.where} says {stated.says!r}" for stated in record.licence.stated),
        f"  openness      class {openness.grade or 'none'} of the Model Openness Framework; open source AI "
        f"(OSAID): {openness.osaid}",
        *(f"                missing: {missing}" for missing in openness.missing),
        *(f"                {reason}" for reason in openness.reasons),
        *(f"  template      {name}: sha256:{digest}" for name, digest in record.templates.items()),
        *(_signature(found) for found in record.signatures),
        *([] if record.signatures else ["  signature     none"]),
        "  files",
        *(f"    {file.digest}  {local.size(file.size):>8}  {file.format:<12} {file.path}" for file in record.files),
        *(["  findings", *_findings(record.findings)] if record.findings else ["  findings      none"]),
    ]
    return lines


def _base_name(record: Record) -> str:
    parts = names.adapter_name(record.name)
    return f"{parts.base}, " if parts else ""


def _signature(found) -> str:
    signer = found.signer or "somebody unknown here"
    return f"  signature     {'good' if found.good else 'NOT GOOD'}, by {signer} (key {found.key[:16]}): {found.detail}"


def _licence(record: Record) -> str:
    return f"{record.licence.id or 'unknown'} ({record.licence.kind.value})"


def _findings(findings: tuple[Finding, ...]) -> list[str]:
    lines = []
    for found in findings:
        place = ", ".join(part for part in (found.file, found.where) if part)
        lines.append(f"  {found.severity.value.upper():<5} {found.rule}  {place}".rstrip())
        lines += [f"        {line}" for line in found.meaning.splitlines()] + [f"        {found.remedy}"]
    return lines


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CannotDo(f"The template {path} cannot be read: {why}.", hint="See --template.") from None


_COMMANDS = {
    "add": (_add_arguments, _add, "bring a model in: quarantine, scan, licence, then admitted, held or refused"),
    "decide": (_decide_arguments, _decide, "say by name and reason what becomes of a model that waits"),
    "list": (_list_arguments, _list, "the models that are in, and those that wait"),
    "show": (_show_arguments, _show, "all that is known of one model"),
    "verify": (_verify_arguments, _verify, "read every byte again and compare"),
    "remove": (_remove_arguments, _remove, "take a model out and free what nothing else needs"),
    "export": (_export_arguments, _export, "write models into one signed file, for a house without a network"),
    "import": (_import_arguments, _import, "bring in the models of such a file"),
}
