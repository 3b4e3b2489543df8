"""The libraries that tuning alone needs: are they there, and which."""

from __future__ import annotations

import importlib.util
from importlib import metadata

from freehold.errors import CannotDo

LIBRARIES = ("torch", "transformers", "peft", "gguf")


def missing() -> list[str]:
    """Those that are not installed. Nothing is imported to find out."""
    return [name for name in LIBRARIES if importlib.util.find_spec(name) is None]


def need() -> None:
    """Raises CannotDo, with the one command that helps, where a library is missing."""
    if lacking := missing():
        raise CannotDo(
            f"Tuning needs {', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not installed.",
            hint="Install it with: pip install 'freehold[tune]'",
        )


def versions() -> dict[str, str]:
    """The version of each library, for the record of a run."""
    return {name: metadata.version(name) for name in (*LIBRARIES, "xllamacpp")}
