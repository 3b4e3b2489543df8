"""A run's state on the disk, whole or not there, so that it goes on from any moment with the same result.

<run>/checkpoint.safetensors   the adapter's weights and the optimiser's moments; no pickle
<run>/best.safetensors         the adapter's weights at the best step so far
The plain numbers (steps, curve, settings) are in the first one's metadata, so that one file is one state.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from freehold import disk
from freehold.errors import CannotDo
from freehold.types import CurvePoint

if TYPE_CHECKING:
    import torch

STATE, BEST = "checkpoint.safetensors", "best.safetensors"
_KEY = "freehold"


class Stand(Struct, frozen=True):
    """Where a run stands: ``step`` updates done, ``total`` planned, ``tokens`` trained on in ``seconds`` of training;
    the curve; the best step with its score and loss on validation calls; in how many looks in a row nothing got
    better; and why the run ended, once it has."""

    step: int = 0
    total: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = 0.0  # of the updates since the last point of the curve, summed
    losses: int = 0
    curve: tuple[CurvePoint, ...] = ()
    best_step: int = 0
    best_score: float | None = None
    best_loss: float | None = None
    worse: int = 0
    stopped: str = ""


def save(folder: Path, stand: Stand, tensors: dict[str, torch.Tensor], identity: str) -> None:
    """Keep the state of the run that ``identity`` names.

    Raises:
        CannotDo: the disk is full, or cannot be written. The last state is still there.
    """
    told = {"identity": identity, "stand": msgspec.json.encode(stand).decode()}
    _write(folder / STATE, tensors, {_KEY: msgspec.json.encode(told).decode()})


def load(folder: Path, identity: str) -> tuple[Stand, dict[str, torch.Tensor]] | None:
    """The state that was kept; None where there is none.

    Raises:
        CannotDo: it is of a run with other data or settings, or cannot be read.
    """
    found = _read(folder / STATE)
    if found is None:
        return None
    tensors, metadata = found
    told = msgspec.json.decode(metadata.get(_KEY, "{}"), type=dict[str, str])
    if told.get("identity") != identity:
        raise CannotDo(
            "The run that was left is another one: its calls, base or settings are not those of now.",
            hint="Put them back as they were, or begin anew without --resume.",
        )
    return msgspec.json.decode(told["stand"], type=Stand), tensors


def save_best(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Keep the weights of the best step. Raises CannotDo as `save`."""
    _write(folder / BEST, tensors, {})


def load_best(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the best step. Raises CannotDo where they are not there."""
    found = _read(folder / BEST)
    if found is None:
        raise CannotDo("The run has no best step yet.", hint="Begin it anew.")
    return found[0]


def _write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save as encode

    try:
        disk.write_atomically(path, encode({name: one.contiguous() for name, one in tensors.items()}, metadata or None))
    except OSError as error:
        raise CannotDo(
            f"The state of the run cannot be kept: {error.strerror}.",
            hint="Free space where the home is, then give the same command with --resume: it goes on from there.",
        ) from None


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    from safetensors import SafetensorError, safe_open

    if not os.path.exists(path):
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CannotDo(f"{path.name} cannot be read: {error}.", hint="Begin the run anew, without --resume.") from None
