"""A function of the user's own, ``score(request, answer, expected)``, in a file of Python.

It runs in a process of its own, with bounds on time and memory and, where the kernel has the layers, sealed: without a
network, without starting programs, and reading only what Python needs.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from freehold.errors import BadTask
from freehold.scorers import base
from freehold.scorers.process import Ended, Order, Process
from freehold.types import Answer, Sample, Score

MAX_SENTENCE = 300  # characters


class Settings(base.Settings):
    """``file``: the file with the function. ``measures``: what it measures, in one sentence. ``binary``: it returns
    0 or 1 alone. ``seconds``: time for one answer; ``memory_mb``: memory of its process."""

    file: str
    measures: Annotated[str, Meta(max_length=MAX_SENTENCE)] = (
        "The mean of the values of the task's own scoring function."
    )
    binary: bool = False
    seconds: Annotated[float, Meta(gt=0, le=600)] = 10.0
    memory_mb: Annotated[int, Meta(ge=64, le=65_536)] = 1024


class Python(base.Scorer):
    """Whatever the function says."""

    kind = "python"

    def __init__(self, settings: Settings, files: dict[str, bytes], seal: str = "best"):
        super().__init__(settings, files)
        self.measures, self.binary = settings.measures, settings.binary
        order = Order(_source(files["file"]), "python", settings.memory_mb << 20, seal)
        self._process = Process(order, settings.seconds)
        try:
            self._process.start()
        except Ended as error:
            raise BadTask(f"The scorer's file {settings.file} cannot be used: {error}", hint="Mend it.") from None

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _score(self, sample: Sample, answer: Answer, against: Answer) -> Score:
        try:
            said = self._process.ask({"request": sample.request, "answer": _plain(answer), "expected": _plain(against)})
        except Ended as error:
            return base.failed(str(error))
        if "error" in said:
            return base.failed(str(said["error"]))
        value = said["value"]
        if self.binary and value not in (0, 1):
            return base.failed(f"The function returned {value}, and the task says that it returns 0 or 1.")
        return Score(float(value), said["detail"])


def _source(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadTask("The scorer's file is not UTF-8.", hint="Save it as UTF-8.") from None


def _plain(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "tools": [{"name": call.name, "arguments": call.arguments} for call in answer.tools]}
