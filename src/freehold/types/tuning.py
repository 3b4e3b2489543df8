"""A tuning run: what was trained on what, how it went, and how well the engine reproduces the result."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class CurvePoint(Struct, frozen=True):
    """How a run stood after ``step`` updates: ``epoch`` counts passes over the data, ``tokens`` what was read so far,
    prompts included. Losses are means over answer tokens, in nats; ``validation_score`` is the task's own score of
    answers to validation calls, from 0 to 1, at the steps at which it was asked. ``seconds`` is time spent in training
    since the run began, pauses left out.
    """

    step: int
    epoch: float
    tokens: int
    loss: float
    validation_loss: float | None = None
    validation_score: float | None = None
    seconds: float = 0.0


class Parity(Struct, frozen=True):
    """How training library and engine agree on held-out prompts, without the adapter (``base_...``) and with it.

    ``argmax`` is the share of ``positions`` at which both hold the same token for the likeliest; ``median`` and ``p95``
    are of the difference, in nats, between their log-probabilities of the token that was chosen; ``spread`` is the
    median difference for the tokens that the engine holds for the likeliest. ``shares`` says of parts of the adapter
    ("the whole", "layer 7", "q_proj") how much of what they do in torch arrives in the engine, 1 being all of it.
    ``why`` says what is wrong where it has not ``passed``. `freehold.tune.parity` says how all this is measured.
    """

    prompts: int
    positions: int
    base_argmax: float
    base_median: float
    base_p95: float
    adapter_argmax: float
    adapter_median: float
    adapter_p95: float
    passed: bool
    why: str = ""
    base_spread: float = 0.0
    adapter_spread: float = 0.0
    shares: dict[str, float] = {}


class TuningRun(Struct, frozen=True):
    """One run, from recorded calls to an admitted adapter.

    ``name`` is the adapter model's, ``base`` its base's, each beside the digest of its file; ``data`` is the digest of
    what was trained on: token ids and which of them count, in order. ``tokens`` is how many were trained on, prompts
    included; ``settings`` holds every choice (rank, alpha, epochs, rate, seed...). Times are in seconds, ``began`` and
    ``ended`` since the epoch; ``seconds`` is training alone. ``best_step`` is the checkpoint that was kept, ``stopped``
    says why the run ended.
    """

    id: str
    task: str
    name: str
    base: str
    base_digest: str
    adapter_digest: str
    data: str
    calls: int
    validation_calls: int
    tokens: int
    settings: dict[str, Any]
    versions: dict[str, str]
    device: str
    dtype: str
    seconds: float
    began: float
    ended: float
    curve: tuple[CurvePoint, ...] = ()
    best_step: int = 0
    stopped: str = ""
    parity: Parity | None = None
