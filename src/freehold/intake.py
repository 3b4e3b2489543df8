"""The offline sentence so far: a model is acquired into quarantine, scanned, and admitted, held for a decision, or
refused, with reasons."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from freehold import acquire, admit, bundle, convert, disk, names, sign
from freehold.aliases import Aliases
from freehold.config import Settings
from freehold.errors import BadModel, CannotDo
from freehold.held import Waiting, digest_of
from freehold.home import Home
from freehold.ledger import Ledger
from freehold.scan import adapter, gguf
from freehold.scan.base import Malformed
from freehold.scan.tape import Truncated
from freehold.types import Acquired, Admission, Held, Manifest, Progress, Record, Ruling
from freehold.vault import SERVED, Vault


class Wish(Struct, frozen=True):
    """What to bring in, and how. ``base`` names the admitted model that an adapter belongs to, whose ``name`` may then
    be given whole (``BASE+ADAPTER@VERSION``) or its own part alone; ``published`` is the chat template as its publisher
    has it; ``replace`` lets a name move from one model to another."""

    source: str
    name: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    convert: bool = False
    base: str = ""
    published: str = ""
    replace: bool = False


class Outcome(Struct, frozen=True):
    """What came of it: the record with its verdict, and the manifest if the model was admitted."""

    record: Record
    manifest: Manifest | None = None


class Intake:
    """The way into one home."""

    def __init__(
        self, home: Home, settings: Settings, vault: Vault, ledger: Ledger, aliases: Aliases, progress: Progress
    ):
        self._home, self._settings, self._vault, self._ledger, self._aliases = home, settings, vault, ledger, aliases
        self._waiting = Waiting(home.held)
        self._progress = progress

    def add(self, wish: Wish, actor: str) -> Outcome:
        """Bring a model in from where it is.

        Raises:
            CannotDo: as the parts do. Nothing is kept but a download that can be gone on with.
        """
        base = self._vault.get(wish.base) if wish.base else None
        name = wish.name if base is None or names.adapter_name(wish.name) else ""
        with acquire.quarantine(self._home.folder) as folder:
            acquired = acquire.fetch(
                acquire.parse(wish.source), folder, self._progress,
                name=name, include=wish.include, exclude=wish.exclude, downloads=self._home.downloads,
            )  # fmt: skip
            if wish.convert:
                acquired = convert.convert(acquired, self._settings.seal, self._progress)
            chosen = [f"--include {glob}" for glob in wish.include] + [f"--exclude {glob}" for glob in wish.exclude]
            name = self._adapter_name(base, wish.name, acquired) if base else acquired.name
            acquired = msgspec.structs.replace(acquired, name=name, chosen=tuple(chosen))
            digest = base.digest if base else ""
            return self._let_in(acquired, actor, base=digest, published=wish.published, replace=wish.replace)

    def starter(self, actor: str) -> Manifest:
        """Bring the starter model in, through the very same gate. Raises as `add`, and BadModel if it is refused."""
        with acquire.quarantine(self._home.folder) as folder:
            acquired = acquire.package(acquire.STARTER, folder, self._progress)
            return admitted(self._let_in(acquired, actor, replace=True))

    def decide(self, name: str, verdict: Admission, *, by: str, why: str, actor: str) -> Outcome:
        """Carry out what a named person decided of a model that waits. It is judged once more first: the decision holds
        for exactly the files and findings that were shown.

        Raises:
            CannotDo: none of that name waits; or what is found now is not what was found then.
            BadModel: it is refused now, whoever would decide otherwise; it is gone then.
        """
        held = self._waiting.get(name)
        ruling = Ruling(verdict, by, why, time.time(), digest_of(held.record))
        if verdict is not Admission.ADMIT:
            self._note_ruling(held.record, ruling, actor)
            self._waiting.drop(name)
            return Outcome(msgspec.structs.replace(held.record, ruling=ruling))
        judgement = self._look(held.acquired, held.published, held.record.base)
        if judgement.record.verdict is Admission.BLOCK:
            self._note("model.refused", judgement.record, actor)
            self._waiting.drop(name)
            admitted(Outcome(judgement.record))
        if judgement.record.verdict is Admission.HOLD and digest_of(judgement.record) != ruling.of:
            self._hold(judgement, actor, held.published, held.replace)
            raise CannotDo(
                f"What is in {name!r} is no longer what was there when it was held.",
                hint=f"See 'freehold models show {name}' and decide again.",
            )
        self._note_ruling(judgement.record, ruling, actor)
        return self._admit(judgement, actor, replace=held.replace, ruling=ruling)

    def bring(self, path: Path, signer: str, actor: str, *, replace: bool = False) -> list[Outcome]:
        """Bring in the models of a bundle: first its signature and its sender, then every byte, then the gate, as for
        any other model. What the sender decided about a model that was held holds here too, if the same is found here
        and this house's own policy has nothing to say against it.

        Raises:
            CannotDo: as `bundle.Bundle` and `bundle.Senders` do, and as `add`. Models before the one at fault are in.
        """
        senders, outcomes = bundle.Senders(self._home.folder / "senders.json"), []
        with bundle.opened(path) as carried, acquire.quarantine(self._home.folder) as folder:
            sender = sign.fingerprint(carried.index.key)
            senders.check(carried.index, signer)
            disk.need_space(folder, sum(member.size for member in carried.index.members.values()))
            for acquired, sent in carried.unpack(folder, self._progress):
                ruling = _from_afar(sent.ruling, sender)
                outcomes.append(self._let_in(acquired, actor, base=sent.base, replace=replace, ruling=ruling))
            if all(outcome.manifest for outcome in outcomes):
                _keep_wheels(folder / "bundle" / bundle.WHEELS, self._home.wheels)
            senders.keep(carried.index)
        states = {outcome.record.name: "admitted" if outcome.manifest else "not admitted" for outcome in outcomes}
        detail = {"signer": sender, "state": carried.index.state, "models": states}
        self._ledger.record("bundle.imported", path.name, actor=actor, detail=detail)
        return outcomes

    def carry(self, names: Sequence[str], out: Path, actor: str, *, wheels: Sequence[Path] = ()) -> bundle.Index:
        """Write models into one signed file. Raises CannotDo, as `bundle.export`."""
        manifests = bundle.wanted(self._vault, names, out)
        key = sign.SigningKey.load(self._home.signing_key)
        detail = {model.name: model.digest for model in manifests}
        state = self._ledger.record("bundle.exported", out.name, actor=actor, detail={"models": detail}).seq
        return bundle.export(self._vault, manifests, out, key, state=state, wheels=wheels, progress=self._progress)

    def waiting(self) -> list[Held]:
        """The models that wait for a decision."""
        return self._waiting.list()

    def _let_in(
        self, acquired: Acquired, actor: str, *, replace: bool, base: str = "", published: str = "",
        ruling: Ruling | None = None,
    ) -> Outcome:  # fmt: skip
        """Judge, and admit, hold or refuse."""
        judgement = self._look(acquired, published, base)
        record = judgement.record
        if record.verdict is Admission.BLOCK:
            self._note("model.refused", record, actor)
            return Outcome(record)
        self._check_aliases(record)
        self._check_waiting(record, replace)
        if record.verdict is Admission.HOLD and not _covers(ruling, record):
            self._vault.check_name(_named(record), replace=replace)
            self._hold(judgement, actor, published, replace)
            return Outcome(record)
        if record.verdict is Admission.ADMIT:
            ruling = None
        if ruling is not None:
            self._note_ruling(record, ruling, actor)
        return self._admit(judgement, actor, replace=replace, ruling=ruling)

    def _look(self, acquired: Acquired, published: str, base: str) -> admit.Judgement:
        settings, found = self._settings, self._base(base) if base else None
        return admit.judge(acquired, settings.trust, settings.seal, self._progress, published=published, base=found)

    def _base(self, digest: str) -> admit.Base:
        """What an adapter is held against. Raises CannotDo, BadModel: its base is not here, or is not what it was."""
        manifest = self._vault.find(digest)
        if manifest is None:
            raise CannotDo(f"The base of the adapter, {digest}, is not here.", hint="Add it first.")
        record, shapes = self._vault.record(manifest), None
        if manifest.format in SERVED:
            self._vault.check(manifest, lambda done, total: self._progress("verifying", done, total))
            try:
                shapes = gguf.shapes(self._vault.blob(digest))
            except (Malformed, Truncated, OSError) as error:
                raise BadModel(
                    f"The base {manifest.name!r} cannot be read: {error}.", hint="See 'freehold models verify'."
                ) from None
        return admit.Base(digest, record.licence, adapter.Base(manifest.name, manifest.architecture, shapes))

    def _adapter_name(self, base: Manifest, wished: str, acquired: Acquired) -> str:
        """What an adapter is called: as was wished, its own part completed by its base and the next version that is
        free; the same file keeps its name."""
        whole = names.adapter_name(wished)
        if whole is not None and whole.base != base.name:
            raise CannotDo(
                f"{wished!r} would be an adapter of {whole.base!r}, and its base is {base.name!r}.",
                hint=f"Call it {names.AdapterName(base.name, whole.adapter, whole.version)}, or name the other --base.",
            )
        if whole is not None:
            return wished
        stem = wished or names.adapter_stem(acquired.name)
        names.check_model_name(f"{base.name}+{stem}@1", adapter=True)
        digests = {disk.hash_file(path) for path in acquired.folder.glob("*.gguf")}
        taken = [
            (parts.version, known)
            for known in self._vault.list()
            if (parts := names.adapter_name(known.name)) and (parts.base, parts.adapter) == (base.name, stem)
        ]
        same = [known.name for _, known in taken if known.digest in digests and known.base == base.digest]
        next_free = max((version for version, _ in taken), default=0) + 1
        return same[0] if same else str(names.AdapterName(base.name, stem, next_free))

    def _admit(self, judgement: admit.Judgement, actor: str, *, replace: bool, ruling: Ruling | None) -> Outcome:
        self._check_aliases(judgement.record)
        key = sign.SigningKey.load(self._home.signing_key)
        ruling = ruling if judgement.record.verdict is Admission.HOLD else None
        manifest = admit.admit(judgement, self._vault, self._ledger, key, actor=actor, replace=replace, ruling=ruling)
        self._waiting.drop(manifest.name)
        return Outcome(self._vault.record(manifest), manifest)

    def _hold(self, judgement: admit.Judgement, actor: str, published: str, replace: bool) -> None:
        self._waiting.put(Held(judgement.acquired, judgement.record, time.time(), published, replace))
        self._note("model.held", judgement.record, actor)

    def _note(self, act: str, record: Record, actor: str) -> None:
        rules = sorted({found.rule for found in record.findings})
        files = {file.path: file.digest for file in record.files[:100]}
        detail = {"source": record.source, "rules": rules, "of": digest_of(record), "files": files}
        self._ledger.record(act, record.name, actor=actor, detail=detail)

    def _note_ruling(self, record: Record, ruling: Ruling, actor: str) -> None:
        said = {"verdict": ruling.verdict.value, "by": ruling.by, "why": ruling.why, "of": ruling.of}
        self._ledger.record("model.decided", record.name, actor=actor, detail=said | {"source": record.source})

    def _check_aliases(self, record: Record) -> None:
        """A model takes no name that applications send for another, and none from under an alias. Raises CannotDo."""
        digests = {file.digest for file in record.files}
        for alias in self._aliases.every():
            if alias.name == record.name:
                raise CannotDo(
                    f"{record.name!r} is an alias, which points at {alias.target.model}: applications send it.",
                    hint=f"Give this model another name with --name, then 'freehold promote {alias.name}' it.",
                )
            for target in (alias.target, alias.canary.target if alias.canary else alias.target):
                if target.model == record.name and not target.upstream and target.digest not in digests:
                    raise CannotDo(
                        f"The alias {alias.name!r} points at {record.name!r}, which is {target.digest}.",
                        hint="Give this one another name with --name: what answers under an alias is never exchanged.",
                    )

    def _check_waiting(self, record: Record, replace: bool) -> None:
        """A model that waits is not pushed aside by another of its name."""
        for held in [] if replace else self._waiting.list():
            if held.record.name == record.name and held.record.files != record.files:
                raise CannotDo(
                    f"Another model called {record.name!r} waits for a decision.",
                    hint="Decide about that one, give this one another name with --name, or say --replace.",
                )


def admitted(outcome: Outcome) -> Manifest:
    """The manifest of a model that was to come in. Raises BadModel with the reasons where it did not."""
    if outcome.manifest is not None:
        return outcome.manifest
    record = outcome.record
    if record.verdict is Admission.HOLD:
        raise BadModel(
            f"{record.source} waits for a decision: {admit.reasons(record)}",
            hint=f"'freehold models show {record.name}' has all of it; then 'freehold models decide {record.name} "
            "--admit --by WHO --why ...'.",
        )
    raise BadModel(f"{record.source} was refused: {admit.reasons(record)}", hint="Nothing was kept.")


def from_file(path: Path) -> Wish:
    """The wish for a file or folder of this machine."""
    return Wish(f"file:{path}", replace=True)


def _named(record: Record) -> Manifest:
    """As much of a manifest as a name is checked by."""
    digest = next((file.digest for file in record.files if file.kind == "weights"), "")
    return Manifest(record.name, digest, 0, record.format, record.source, record.pinned, base=record.base)


def _from_afar(ruling: Ruling | None, sender: str) -> Ruling | None:
    """A decision of another house, with its fingerprint, so that nobody takes it for one of ours."""
    return ruling and msgspec.structs.replace(ruling, by=f"{ruling.by}, of the house {sender}")


def _covers(ruling: Ruling | None, record: Record) -> bool:
    """Does a decision of another house settle this? Only if the same is found here, and nothing of our own policy."""
    if ruling is None or ruling.verdict is not Admission.ADMIT or ruling.of != digest_of(record):
        return False
    return not any(found.rule in admit.POLICY for found in record.findings)


def _keep_wheels(source: Path, target: Path) -> None:
    for wheel in source.iterdir() if source.is_dir() else ():
        target.mkdir(mode=0o700, exist_ok=True)
        os.replace(wheel, target / wheel.name)
