"""The training itself: a LoRA adapter that learns the answers of examples, on whatever machine there is.

What is done for speed, each measured by ``benchmarks/tuning.py``:

- The loss is that of answer tokens, so the output matrix is applied to those positions alone.
- What all prompts begin with is read once a micro-batch, and its keys and values are shared by all rows; the gradient
  flows back through them, so the update is the same (up to rounding) as if each row had read it.
- Examples of like length go together (`batches`).
- A layer with its adapter is one step of autograd (`fused`).
- bfloat16 where the machine really gains from it (`speed`): the base's weights and the products; the adapter and its
  optimiser stay in float32.

A run can end anywhere, kill -9 included: it goes on from its last state (`checkpoint`) with the same result.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from freehold.errors import CannotDo
from freehold.tune import batches, checkpoint
from freehold.tune.batches import Example
from freehold.tune.checkpoint import Stand
from freehold.types import CurvePoint

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

LOOKS = 3  # at validation calls, evenly over the run; the last one is at its end
POINTS = 24  # of the curve
SAVE_SECONDS = 30.0
_PATIENCE = 2  # looks in a row that were no better than the best
_WARM = 0.06  # of the updates, over which the rate rises
_LEAST = 0.1  # of the rate, to which it falls
_TRIAL = 4  # updates after which a bound in minutes is made into a number of updates
_LONGEST_STEP = 1.0  # bound on the norm of a gradient
_TIDY = 8  # updates after which memory that was freed is given back to the system


class Choices(Struct, frozen=True):
    """How to train. ``rank`` and ``alpha`` are LoRA's; ``epochs`` passes over the data at the learning ``rate``, with
    ``update`` examples for an update of the weights; ``minutes`` bounds training alone (0: no bound). ``tokens`` is the
    most that goes through the model at once, and what memory follows."""

    rank: int = 16
    alpha: int = 32
    epochs: float = 3.0
    rate: float = 2e-3
    update: int = 4
    tokens: int = 1024
    seed: int = 0
    minutes: float = 0.0


Tell = Callable[[Stand, float, float | None], None]  # how it stands, tokens a second, and the seconds that are left


class Trainer:
    """One run. ``score`` gives the task's own score of the model as it is now, where the task has one to ask for;
    ``identity`` names what is trained on what, so that no other run's state is gone on with.

    ``low`` says whether products are made in bfloat16.
    """

    def __init__(
        self, model: PeftModel, tuning: Sequence[Example], validation: Sequence[Example], choices: Choices, *,
        folder: Path, identity: str, low: bool, score: Callable[[], float | None] = lambda: None,
        tell: Tell = lambda stand, rate, left: None,
    ):  # fmt: skip
        import torch

        self._torch, self._model, self._choices, self._low = torch, model, choices, low
        self._tuning, self._validation = tuning, validation
        self._folder, self._identity, self._score, self._tell = folder, identity, score, tell
        self._prefix = batches.shared_prefix([*tuning, *validation])
        self._weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self._optimiser = torch.optim.AdamW(self._weights.values(), lr=choices.rate, betas=(0.9, 0.99), weight_decay=0)
        self._device = next(iter(self._weights.values())).device
        self._updates_an_epoch = len(batches.epoch(tuning, 0, seed=0, update=choices.update, tokens=choices.tokens))
        self.stand = Stand(total=math.ceil(self._updates_an_epoch * choices.epochs))

    def run(self, *, resume: bool = False) -> Stand:
        """Train to the end, and leave the model with the weights of the best step.

        Raises:
            CannotDo: there is no disk for the state, or (``resume``) the state that was left is another run's.
            KeyboardInterrupt: at the first Ctrl-C, once the state is on the disk.
        """
        if resume and (found := checkpoint.load(self._folder, self._identity)):
            self._take_up(*found)
        with _interrupts() as interrupted:
            saved = time.monotonic()
            for micros in self._to_do():
                self._update(micros)
                if self._is_look():
                    self._look()
                if interrupted() or self._is_look() or time.monotonic() - saved > SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
                if interrupted():
                    raise KeyboardInterrupt
                if self.stand.stopped:
                    break
        self._put(checkpoint.load_best(self._folder))
        return self.stand

    # the updates

    def _to_do(self) -> Iterator[list[list[int]]]:
        """The updates that are left, in their order."""
        while self.stand.step < self.stand.total and not self.stand.stopped:
            number, done = divmod(self.stand.step, self._updates_an_epoch)
            choices = self._choices
            yield from batches.epoch(
                self._tuning, number, seed=choices.seed, update=choices.update, tokens=choices.tokens,
                prefix=self._prefix,
            )[done : done + self.stand.total - self.stand.step]  # fmt: skip

    def _update(self, micros: list[list[int]]) -> None:
        began = time.perf_counter()
        examples = [[self._tuning[place] for place in places] for places in micros]
        answers = sum(len(example.answer) for rows in examples for example in rows)
        self._model.train()
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        loss = 0.0
        for rows in examples:
            part = self._loss(rows) / answers
            part.backward()
            loss += part.item()
        if not math.isfinite(loss):
            raise CannotDo(
                f"Training came apart at update {self.stand.step + 1}: the loss is {loss}.",
                hint="Give a lower --lr, and begin anew without --resume.",
            )
        self._torch.nn.utils.clip_grad_norm_(self._weights.values(), _LONGEST_STEP)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._count(loss, sum(example.length for rows in examples for example in rows), time.perf_counter() - began)

    def _loss(self, rows: Sequence[Example]) -> torch.Tensor:
        """The summed loss of these examples' answer tokens, in nats."""
        torch, prefix = self._torch, self._prefix
        model = self._model.get_base_model()
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        longest = max(example.length for example in rows) - prefix
        read = torch.zeros((len(rows), longest), dtype=torch.long)
        at: list[tuple[int, int]] = []
        wanted: list[int] = []
        for row, example in enumerate(rows):
            tokens = (*example.prompt, *example.answer)[prefix:]
            read[row, : len(tokens)] = torch.tensor(tokens)
            begins = len(example.prompt) - prefix
            at += [(row, place - 1) for place in range(begins, begins + len(example.answer))]
            wanted += example.answer
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._low):
            cache = None
            if prefix:
                common = torch.tensor([rows[0].prompt[:prefix]], device=self._device)
                cache = decoder(input_ids=common, use_cache=True).cache
                cache.batch_repeat_interleave(len(rows))
            # no mask: padding stands at the end, where nothing that counts attends to it
            hidden = decoder(input_ids=read.to(self._device), cache=cache, use_cache=bool(prefix)).last_hidden_state
            row, place = (torch.tensor(side, device=self._device) for side in zip(*at, strict=True))
            logits = head(hidden[row, place])
        target = torch.tensor(wanted, device=self._device)
        return torch.nn.functional.cross_entropy(logits.float(), target, reduction="sum")

    def _rate(self) -> float:
        """Up in a line, then down with a cosine."""
        warm = max(1, round(self.stand.total * _WARM))
        if self.stand.step < warm:
            return self._choices.rate * (self.stand.step + 1) / warm
        way = (self.stand.step - warm) / max(1, self.stand.total - warm)
        return self._choices.rate * (_LEAST + (1 - _LEAST) * (1 + math.cos(math.pi * way)) / 2)

    def _count(self, loss: float, tokens: int, seconds: float) -> None:
        now = self.stand
        self.stand = now = msgspec.structs.replace(
            now, step=now.step + 1, tokens=now.tokens + tokens, seconds=now.seconds + seconds,
            loss=now.loss + loss, losses=now.losses + 1,
        )  # fmt: skip
        if now.step == _TRIAL and self._choices.minutes:
            fits = max(_TRIAL, int(self._choices.minutes * 60 * now.step / now.seconds))
            self.stand = msgspec.structs.replace(now, total=min(now.total, fits))
        if self.stand.step % max(1, self.stand.total // POINTS) == 0 or self.stand.step == self.stand.total:
            self._point()
        if self.stand.step % _TIDY == 0:
            _give_back()
        rate = self.stand.tokens / self.stand.seconds
        left = self.stand.seconds / self.stand.step * (self.stand.total - self.stand.step)
        self._tell(self.stand, rate, left)

    def _point(self, validation: float | None = None, score: float | None = None) -> None:
        """Another point of the curve, or what a look found at the last one."""
        now = self.stand
        if now.losses:
            epoch = now.step / self._updates_an_epoch
            point = CurvePoint(now.step, epoch, now.tokens, now.loss / now.losses, seconds=now.seconds)
            now = msgspec.structs.replace(now, curve=(*now.curve, point), loss=0.0, losses=0)
        if validation is not None:
            last = msgspec.structs.replace(now.curve[-1], validation_loss=validation, validation_score=score)
            now = msgspec.structs.replace(now, curve=(*now.curve[:-1], last))
        self.stand = now

    # looks at validation calls

    def _is_look(self) -> bool:
        now = self.stand
        return now.step == now.total or (now.step >= _TRIAL and now.step % max(1, math.ceil(now.total / LOOKS)) == 0)

    def _look(self) -> None:
        """Is it better than it was? By the task's own score where there is one, and then by loss."""
        loss, score = self.validation_loss(), self._score()
        self._point(loss, score)
        now = self.stand
        if now.best_loss is None or (score or 0.0, -loss) > (now.best_score or 0.0, -now.best_loss):
            checkpoint.save_best(self._folder, self._own())
            now = msgspec.structs.replace(now, best_step=now.step, best_score=score, best_loss=loss, worse=0)
        else:
            now = msgspec.structs.replace(now, worse=now.worse + 1)
        if now.step == now.total:
            now = msgspec.structs.replace(now, stopped="all updates are done")
        elif now.worse >= _PATIENCE:
            now = msgspec.structs.replace(now, stopped=f"no better in {_PATIENCE} looks at validation calls")
        self.stand = now

    def validation_loss(self) -> float:
        """The mean loss of an answer token of validation calls, in nats; of tuning calls where there are none."""
        examples = self._validation or self._tuning[: self._choices.update * 4]
        self._model.eval()
        total = 0.0
        with self._torch.no_grad():
            for places in batches.groups(examples, self._choices.tokens, self._prefix):
                total += self._loss([examples[place] for place in places]).item()
        return total / sum(len(example.answer) for example in examples)

    # its state

    def _own(self) -> dict[str, torch.Tensor]:
        return {name: one.detach().cpu().clone() for name, one in self._weights.items()}

    def _put(self, tensors: dict[str, torch.Tensor]) -> None:
        with self._torch.no_grad():
            for name, one in self._weights.items():
                one.copy_(tensors[name])

    def _save(self) -> None:
        tensors = self._own()
        for name, one in self._weights.items():
            state = self._optimiser.state[one]
            tensors |= {f"first {name}": state["exp_avg"].cpu(), f"second {name}": state["exp_avg_sq"].cpu()}
        checkpoint.save(self._folder, self.stand, tensors, self._identity)

    def _take_up(self, stand: Stand, tensors: dict[str, torch.Tensor]) -> None:
        self.stand = stand
        self._put(tensors)
        for name, one in self._weights.items():
            self._optimiser.state[one] = {
                "step": self._torch.tensor(float(stand.step)),
                "exp_avg": tensors[f"first {name}"].to(one.device),
                "exp_avg_sq": tensors[f"second {name}"].to(one.device),
            }


def _give_back() -> None:
    """Batches of ever other shapes leave glibc's heap full of holes, which grows by gigabytes over a run."""
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have no such thing
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was given: an update is not cut in half for it. The second one ends the process as ever."""
    given = False

    def note(number: int, frame: object) -> None:
        nonlocal given
        given = True
        signal.signal(signal.SIGINT, before)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread, where signals do not come
        yield lambda: False
        return
    try:
        yield lambda: given
    finally:
        signal.signal(signal.SIGINT, before)
