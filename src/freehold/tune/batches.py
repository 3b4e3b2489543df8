"""In what order examples are trained on, and which of them together. Pure: the same data and seed, the same batches.

Examples of like length go into one micro-batch, since a batch is as long as its longest example and the rest is
padding. That is done within a window of shuffled examples, so that every pass has another order and short examples do
not all come first. What all prompts begin with (an application's system prompt) is left out of the lengths, since it is
computed once a
batch, see `train`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

_WINDOW = 8  # updates' worth of examples that are sorted by length together


class Example(Struct, frozen=True):
    """One call to learn from, in token ids: what is read, and the answer to it with the token that ends it. Only the
    answer counts in the loss. ``sample`` is the recorded call's id."""

    sample: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def length(self) -> int:
        """Prompt and answer."""
        return len(self.prompt) + len(self.answer)


def shared_prefix(examples: Sequence[Example]) -> int:
    """How many tokens every prompt begins with, the last token of none: something is left of each to go on from."""
    if not examples:
        return 0
    shortest = min(examples, key=lambda one: len(one.prompt)).prompt
    length = max(len(shortest) - 1, 0)
    for example in examples:
        while example.prompt[:length] != shortest[:length]:
            length -= 1
    return length


def epoch(
    examples: Sequence[Example], number: int, *, seed: int, update: int, tokens: int, prefix: int = 0
) -> list[list[list[int]]]:
    """One pass over the examples: updates, each of micro-batches, each of places in ``examples``.

    ``update`` is how many examples make an update of the weights, ``tokens`` the most that a micro-batch holds with its
    padding and without the ``prefix`` tokens that all begin with (but for a single example that is longer).
    """
    chance = random.Random(f"{seed} {number}")
    order = list(range(len(examples)))
    chance.shuffle(order)
    updates: list[list[int]] = []
    for start in range(0, len(order), update * _WINDOW):
        window = sorted(order[start : start + update * _WINDOW], key=lambda place: examples[place].length)
        updates += [window[at : at + update] for at in range(0, len(window), update)]
    chance.shuffle(updates)
    return [_micro(examples, places, tokens, prefix) for places in updates]


def groups(examples: Sequence[Example], tokens: int, prefix: int = 0) -> list[list[int]]:
    """All examples by length, in micro-batches, for when the order does not matter."""
    return _micro(examples, sorted(range(len(examples)), key=lambda place: examples[place].length), tokens, prefix)


def _micro(examples: Sequence[Example], places: Sequence[int], tokens: int, prefix: int) -> list[list[int]]:
    """Places in the order given, cut where another would make a micro-batch too large."""
    made: list[list[int]] = []
    longest = 0
    for place in places:
        length = examples[place].length - prefix
        longest = max(longest, length)
        if not made or longest * (len(made[-1]) + 1) > tokens:
            made.append([])
            longest = length
        made[-1].append(place)
    return made
