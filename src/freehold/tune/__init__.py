"""Tuning: a task's recorded calls teach a base, as an adapter that the engine reads.

Torch, transformers, peft and gguf are an extra. They are imported when tuning runs and by nothing else; see `need`.
"""

from freehold.tune.extra import need
from freehold.tune.run import Base, Bench, Tuned, forget, tune
from freehold.tune.train import Choices

__all__ = ["Base", "Bench", "Choices", "Tuned", "forget", "need", "tune"]
