"""How a tuning run went, as an element of an HTML page: the loss over training, and the checkpoint that was kept.

It has the classes of `svg.STYLE`, which the page must have, and holds nothing but numbers. The loss is drawn on a
logarithmic axis where it falls far, since otherwise all but the beginning would be one flat line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from freehold.chart.svg import line, opened, place, text
from freehold.types.tuning import CurvePoint

_TOP, _FOOT, _LEFT, _RIGHT = 24, 44, 46, 12
_FAR = 8  # the highest loss over the lowest, from which on the axis is logarithmic


def curve(points: Sequence[CurvePoint], best_step: int, width: int) -> str:
    """The picture, ``width`` wide. Losses that are no finite positive number are not drawn."""
    return _Curve(points, best_step, width).element()


class _Curve:
    def __init__(self, points: Sequence[CurvePoint], best_step: int, width: int):
        self.width, self.height, self.best = max(width, 320), 220 if width > 500 else 200, best_step
        self.trained = [(one.step, one.loss) for one in points if _drawn(one.loss)]
        self.judged = [(one.step, one.validation_loss) for one in points if _drawn(one.validation_loss)]
        every = [loss for _, loss in (*self.trained, *self.judged)] or [1.0]
        self.low, self.high = min(every), max(every)
        self.far = self.high > _FAR * self.low
        if not self.far:
            self.low = 0.0
        self.last = max([step for step, _ in (*self.trained, *self.judged)] + [1])

    def element(self) -> str:
        body = "\n".join([*self.axes(), *self.lines(), *self.kept(), *self.legend()])
        return opened(self.width, self.height, "Loss over training", self.told(), body) + f"{body}\n</svg>"

    def told(self) -> str:
        """What somebody hears who cannot see it."""
        said = []
        for name, found in (("Training", self.trained), ("Validation", self.judged)):
            if found:
                said.append(f"{name} loss from {found[0][1]:.3g} to {found[-1][1]:.3g} nats.")
        return " ".join([*said, f"The checkpoint after update {self.best} was kept."])

    def x(self, step: float) -> float:
        return _LEFT + step / self.last * (self.width - _LEFT - _RIGHT)

    def y(self, loss: float) -> float:
        scale: Callable[[float], float] = math.log if self.far else float
        span = scale(self.high) - scale(self.low) or 1.0
        share = (scale(loss) - scale(self.low)) / span
        return self.height - _FOOT - share * (self.height - _FOOT - _TOP)

    def axes(self) -> Iterator[str]:
        floor = self.height - _FOOT
        for tick in self.ticks():
            yield line(_LEFT, self.y(tick), self.width - _RIGHT, self.y(tick), "fh-rule")
            yield text(_LEFT - 8, self.y(tick) + 4, f"{tick:.3g}", "fh-small", "end")
        yield line(_LEFT, floor, self.width - _RIGHT, floor, "fh-axis")
        for step in (0, self.last):
            yield text(self.x(step), floor + 18, f"{step:,}", "fh-small", "start" if step == 0 else "end")
        yield text((_LEFT + self.width - _RIGHT) / 2, floor + 18, "updates", "fh-small", "middle")

    def ticks(self) -> list[float]:
        if self.far:
            low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            return [10.0**power for power in range(low, high + 1) if self.low <= 10.0**power <= self.high]
        return [self.high * share for share in (0, 0.5, 1)]

    def lines(self) -> Iterator[str]:
        for found, kind in ((self.trained, "fh-trained"), (self.judged, "fh-judged")):
            where = " ".join(f"{place(self.x(step))},{place(self.y(loss))}" for step, loss in found)
            if where:
                yield f'<polyline class="{kind}" points="{where}"/>'
        for step, loss in self.judged:
            yield f'<circle class="fh-dot" cx="{place(self.x(step))}" cy="{place(self.y(loss))}" r="2.5"/>'

    def kept(self) -> Iterator[str]:
        """The checkpoint that was kept."""
        if 0 < self.best <= self.last:
            x, left = self.x(self.best), self.best > self.last / 2
            yield line(x, _TOP - 6, x, self.height - _FOOT, "fh-zero")
            yield text(x - 5 if left else x + 5, _TOP + 4, "kept", "fh-small", "end" if left else "start")

    def legend(self) -> Iterator[str]:
        y, x = self.height - 8, _LEFT
        for found, kind, name in ((self.trained, "fh-trained", "training"), (self.judged, "fh-judged", "validation")):
            if found:
                yield line(x, y - 4, x + 22, y - 4, kind)
                yield text(x + 28, y, name, "fh-small")
                x += 110


def _drawn(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss) and loss > 0
