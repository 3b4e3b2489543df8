"""A tuning run from recorded calls to an adapter that the engine reproduces: read, train, choose, export, compare.

Nothing is registered here. What comes out is a file and the record of how it came about; the file goes through the gate
like anything else that comes in (`intake`).

<home>/tuning/<run>/    run id: a digest of what is trained on what, with which choices
    checkpoint.safetensors, best.safetensors   see `checkpoint`
    adapter.gguf                               the result
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from freehold import disk, said
from freehold.config import EngineSettings, TrustSettings
from freehold.engine.probe import Passage, Probe
from freehold.errors import BadModel, CannotDo
from freehold.scorers import Judge, Scorer
from freehold.tune import adapter, data, extra, lora, parity, permit, speed, vocabulary, weights
from freehold.tune.data import Data
from freehold.tune.train import Choices, Tell, Trainer
from freehold.types import Manifest, Parity, Progress, Record, Sample, Task, TuningRun

if TYPE_CHECKING:
    from peft import PeftModel

SCORED = 24  # validation calls that are answered and scored at each look
_SPACE = 8  # times the adapter's own size: two states with moments, the best, the export, and room


class Base(Struct, frozen=True):
    """The model that is tuned: its manifest and record, and where its files lie, by their names in it."""

    manifest: Manifest
    record: Record
    files: Mapping[str, Path]

    @property
    def opened(self) -> Path:
        """The file that an engine opens. Raises BadModel where there is none."""
        for file in self.record.files:
            if file.digest == self.manifest.digest and self.manifest.format == "gguf":
                return self.files[file.path]
        raise BadModel(
            f"No engine opens {self.manifest.name!r}, which is {self.manifest.format}, so its adapter could not "
            "be served.",
            hint="Tune the GGUF of the model: 'freehold models add' brings one in.",
        )


class Bench(Struct, frozen=True):
    """What a run stands on: the folder of all runs, how an engine of this house is set and sealed, who scores, and who
    is told how far it is (``tell`` of things that are counted, ``show`` of training, ``say`` in sentences)."""

    folder: Path
    engine: EngineSettings
    seal: str
    trust: TrustSettings
    scorer: Scorer | Judge | None = None
    tell: Progress = lambda what, done, total: None
    show: Tell = lambda stand, rate, left: None
    say: Callable[[str], None] = lambda sentence: None


class Tuned(Struct, frozen=True):
    """What came of a run: its record, the adapter's file, and how many calls were left out, by why."""

    run: TuningRun
    file: Path
    left_out: dict[str, int]


def tune(
    bench: Bench, task: Task, base: Base, name: str, tuning: Sequence[Sample], validation: Sequence[Sample],
    choices: Choices, *, resume: bool = False,
) -> Tuned:  # fmt: skip
    """Train an adapter ``name`` for the base on a task's calls, and hold its export against what was trained.

    Raises:
        CannotDo: the extra is not installed; there is no disk; a state that was left is of another run.
        BadModel: the base may not be tuned, or cannot; or the engine does not compute what was trained.
        BadTraffic: too few calls can be learned from.
        KeyboardInterrupt: Ctrl-C, once the state is kept.
    """
    extra.need()
    permit.check(base.record, bench.trust)
    began = time.time()
    with _probe(bench, base) as probe:
        texts = data.texts(probe, base.manifest.name, tuning)
        compared = vocabulary.compare(texts, probe.tokens, base.files)
        read = data.encode(probe, base.manifest.name, tuning, validation, bench.tell)
    same = f"{compared.tokens:,} tokens of {compared.texts} texts are the same in {compared.against}."
    bench.say(compared.skipped or same)
    bench.say(_described(read))
    identity = _identity(task, base, read, choices)
    folder = _folder(bench.folder, identity, resume)
    device, low = _machine(folder, bench)
    longest = max(example.length for example in (*read.tuning, *read.validation))
    plain = weights.load(base.files, device=device, progress=bench.tell)
    model = lora.wrap(plain, choices, low=low, longest=longest)
    _need_space(folder, model)
    about = adapter.About(
        name=name, base=base.manifest.name, base_digest=base.manifest.digest, licence=base.record.licence.id,
        task=task.name, data=read.digest,
    )  # fmt: skip
    look = _Look(bench, base, model, folder / "look.gguf", about, list(validation[:: _every(len(validation))]))
    trainer = Trainer(
        model, read.tuning, read.validation, choices,
        folder=folder, identity=identity, low=low, score=look.score, tell=bench.show,
    )  # fmt: skip
    stand = trainer.run(resume=resume)
    file = folder / "adapter.gguf"
    adapter.write(model, file, about)
    found = _compare(bench, base, model, file, read)
    run = TuningRun(
        id=identity, task=task.name, name=name, base=base.manifest.name, base_digest=base.manifest.digest,
        adapter_digest="sha256:" + hashlib.sha256(file.read_bytes()).hexdigest(), data=read.digest,
        calls=len(read.tuning), validation_calls=len(read.validation), tokens=stand.tokens,
        settings=msgspec.to_builtins(choices), versions=extra.versions(), device=device,
        dtype="bfloat16" if low else "float32", seconds=stand.seconds, began=began, ended=time.time(),
        curve=stand.curve, best_step=stand.best_step, stopped=stand.stopped, parity=found,
    )  # fmt: skip
    if not found.passed:
        raise BadModel(
            f"The engine does not compute what was trained: {found.why}. The adapter was not admitted.",
            hint=f"This is a fault; the file is kept for whoever looks into it: {file}.",
        )
    return Tuned(run, file, read.left_out)


def forget(bench: Bench, run: TuningRun) -> None:
    """Remove a run's working files, once its adapter is in the vault."""
    shutil.rmtree(bench.folder / _short(run.id), ignore_errors=True)


class _Look:
    """The task's own score of the model as it is, on some validation calls, by the engine that would serve it."""

    def __init__(
        self, bench: Bench, base: Base, model: PeftModel, file: Path, about: adapter.About, samples: list[Sample]
    ):
        self._bench, self._base, self._model, self._file, self._about = bench, base, model, file, about
        self._samples = [sample for sample in samples if sample.expected or sample.answer]

    def score(self) -> float | None:
        """The mean score, from 0 to 1; None where the scorer is a judge, or nothing is there to score."""
        scorer = self._bench.scorer
        if scorer is None or scorer.asks or not self._samples:
            return None
        adapter.write(self._model, self._file, self._about)
        requests = [data.request_of(sample, self._base.manifest.name) for sample in self._samples]
        with _probe(self._bench, self._base, self._file) as probe:
            answered = probe.answers(
                requests, adapter=0, tell=lambda done: self._bench.tell("scoring", done, len(requests))
            )
        values = []
        for sample, found in zip(self._samples, answered, strict=True):
            told = said.answer(sample.kind, found.document) if found.document else None
            values.append(scorer.score(sample, told, sample.expected or sample.answer).value)
        return sum(values) / len(values)


def _compare(bench: Bench, base: Base, model: PeftModel, file: Path, read: Data) -> Parity:
    """Torch against the engine, with the adapter and without, on calls that were not trained on where there are any."""
    passages = [Passage(example.prompt, example.answer) for example in read.validation or read.tuning]
    with _probe(bench, base, file) as probe:
        return parity.check(_exact(base, model), probe, passages, tell=bench.tell)


def _exact(base: Base, model: PeftModel) -> PeftModel:
    """The trained model on the base's weights in float32, where it was trained on rounded ones."""
    import torch

    if next(model.get_base_model().get_decoder().parameters()).dtype == torch.float32:
        return model.eval()
    whole = dict(weights.load(base.files).named_parameters())
    for name, weight in model.get_base_model().named_parameters():
        plain = name.replace(".base_layer", "")
        if plain in whole and "lora_" not in name:
            weight.data = whole[plain].data.to(weight.device)
    return model.eval()


def _probe(bench: Bench, base: Base, *adapters: Path) -> Probe:
    bench.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Probe(
        base.manifest, base.opened, base.record.metadata, bench.folder, bench.engine, bench.seal, adapters=adapters
    )


def _machine(folder: Path, bench: Bench) -> tuple[str, bool]:
    """Where to train, and whether in bfloat16: measured when the run begins, and kept to when it goes on."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    note = folder / "bfloat16"
    if not note.exists():
        gain = speed.gain(torch.device(device))
        disk.write_atomically(note, f"{gain:.3f}".encode())
        bench.say(f"This machine ({device}) multiplies {gain:.1f} times as fast in bfloat16 as in float32.")
    return device, float(note.read_text()) >= speed.WORTH


def _every(count: int) -> int:
    return max(1, count // SCORED)


def _described(read: Data) -> str:
    left = "".join(f"; {count} left out: {why}" for why, count in sorted(read.left_out.items()))
    tokens = sum(example.length for example in read.tuning)
    return f"{len(read.tuning)} calls to learn from ({tokens:,} tokens), {len(read.validation)} to choose by{left}."


def _identity(task: Task, base: Base, read: Data, choices: Choices) -> str:
    whole = [task.name, base.manifest.digest, read.digest, msgspec.to_builtins(choices)]
    return "sha256:" + hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


def _short(identity: str) -> str:
    return identity.removeprefix("sha256:")[:16]


def _folder(runs: Path, identity: str, resume: bool) -> Path:
    folder = runs / _short(identity)
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CannotDo(f"{folder} cannot be made: {error.strerror}.", hint="See to the disk, and try again.") from None
    return folder


def _need_space(folder: Path, model: PeftModel) -> None:
    size = sum(one.numel() * one.element_size() for one in model.parameters() if one.requires_grad)
    free = shutil.disk_usage(folder).free
    if free < _SPACE * size:
        raise CannotDo(
            f"A run of this size keeps up to {_SPACE * size >> 20} MiB beside it, and {free >> 20} MiB are free.",
            hint="Free some space, or put the home on another disk with --home. Nothing was begun.",
        )
