"""The corpus: inert attack files and near-misses for every class that the gate has to know.

``build(folder)`` writes them, the same bytes each time. What a payload would do is print a word; nothing in here
loads, imports or runs what it writes. As a script: ``python corpus.py FOLDER`` writes and lists them.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a script, or found beside itself
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from assets import (
    containers,  # noqa: F401
    gguf_files,  # noqa: F401
    keras_files,  # noqa: F401
    licence_files,  # noqa: F401
    numpy_files,  # noqa: F401
    onnx_files,  # noqa: F401
    pickle_imports,  # noqa: F401
    pickle_plain,  # noqa: F401
    pickle_tricks,  # noqa: F401
    repository_files,  # noqa: F401
    safetensor_files,  # noqa: F401
    template_files,  # noqa: F401
    tensorflow_files,  # noqa: F401
    torches,  # noqa: F401
    zip_lies,  # noqa: F401
)
from assets.shelf import Case, write

__all__ = ["Case", "build"]


def build(folder: Path) -> list[Case]:
    """Write every case under ``folder``, which has none of them yet. FileExistsError where it has."""
    return list(write(folder))


if __name__ == "__main__":
    for case in build(Path(sys.argv[1])):
        print(case.expect.ljust(6), case.name.ljust(48), case.says)
