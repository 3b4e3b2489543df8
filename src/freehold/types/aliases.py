"""An alias: the name that an application sends, what it points at, and the canary of what it may point at next."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Target(Struct, frozen=True):
    """What an alias points at: a model of the vault, by name and the digest of the file that an engine opens, or one
    that an ``upstream`` runs, which has no digest.

    ``by``, ``at`` and ``why`` say who pointed it there, when, and on what ground; ``left_at`` and ``left_by`` are those
    of the rollback that took it away.
    """

    model: str
    digest: str = ""
    upstream: str = ""
    task: str = ""
    by: str = ""
    at: float = 0.0
    why: str = ""
    left_at: float | None = None
    left_by: str = ""


class Canary(Struct, frozen=True):
    """A candidate that answers a ``share`` (0 to 1) of an alias's conversations, while the rest stay where they were.

    ``salt`` decides which conversations those are, and is nobody else's business. ``tolerance`` is how much oftener the
    candidate may go wrong (0.03: three calls in a hundred), ``alpha`` the chance of a false alarm, over all looks.
    ``ended`` says how it ended: promoted, rolled back, or shown worse.
    """

    id: str
    alias: str
    target: Target
    share: float
    salt: str
    tolerance: float
    alpha: float
    began_at: float
    ended_at: float | None = None
    ended: str = ""


class Alias(Struct, frozen=True):
    """An alias as it is now. ``moves`` counts its changes, so that nobody changes what somebody else just has."""

    name: str
    target: Target
    moves: int
    canary: Canary | None = None


class Aim(Struct, frozen=True):
    """What the name in a request leads to: ``model`` is the model's own name, ``alias`` the name that was sent, if that
    is one. In a canary, ``canary`` is its id, ``conversation`` the place of the call's conversation in it, and
    ``candidate`` says which of the two answers."""

    model: str
    alias: str = ""
    canary: str = ""
    candidate: bool = False
    conversation: int = 0


class Arm(Struct, frozen=True):
    """What became of the calls on one side of a canary: how many there were, how many of them ``went_wrong``, and how
    many the application complained of. Calls that were abandoned are none of them."""

    calls: int = 0
    went_wrong: int = 0
    complaints: int = 0


class Trial(Struct, frozen=True):
    """A canary with what is known of it: both sides' counts, how many calls could not be judged, and the state of the
    two tests, on the calls' own outcomes and on those with the application's word (`stats.sequential.Evidence`)."""

    canary: Canary
    incumbent: Arm = Arm()
    candidate: Arm = Arm()
    missed: int = 0
    own: dict[str, Any] = {}
    told: dict[str, Any] = {}
