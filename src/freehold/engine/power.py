"""Energy by the machine's own counters, shared among the calls that hold a slot.

Counters:

- RAPL, by Linux's power capping framework: ``energy_uj`` of every package and of memory beside it, in microjoules,
  which begins again at ``max_energy_range_uj``. (Documentation/power/powercap/powercap.rst of the kernel.) Most kernels
  let root alone read it.
- NVML: ``nvmlDeviceGetTotalEnergyConsumption`` of every NVIDIA GPU since Volta, in millijoules.

They show what processors, memory and GPUs draw, and neither disks nor fans nor what the power supply loses.

What is drawn while several calls hold slots is shared equally, and what is drawn while none does is idle. So the parts
of all calls and the idle part add up to what the counters counted.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"
_OFTEN = 0.01  # seconds within which counters are not read again: reading takes tens of microseconds


class Counter(Protocol):
    """Counts joules up. ``name`` says of what."""

    name: str

    def drawn(self) -> float:
        """Joules since it was last asked. Raises OSError."""


class Meter:
    """Shares what the counters count among those who `enter` and `leave`. Without counters nobody knows, and each part
    is None; so it is from the moment on at which one of them cannot be read any more, for which ``why`` has the reason.
    """

    def __init__(self, counters: Sequence[Counter], why: str = "", clock: Callable[[], float] = time.monotonic):
        self._counters, self.why, self._clock = tuple(counters), why, clock
        self._hands = 0
        self._each = 0.0  # joules, of one who had been there from the start
        self._read_at = clock()
        self.idle = 0.0  # joules drawn while nobody was there
        self.settle()

    @property
    def names(self) -> tuple[str, ...]:
        """What is counted; empty where nothing is."""
        return tuple(counter.name for counter in self._counters)

    def enter(self) -> float:
        """Somebody comes. Returns what `leave` is to be given."""
        self.settle()
        self._hands += 1
        return self._each

    def leave(self, mark: float) -> float | None:
        """Who entered with that mark goes. Returns its joules, or None where nobody knows."""
        self.settle()
        self._hands -= 1
        return self._each - mark if self._counters else None

    def settle(self) -> None:
        """Share out what was drawn since the last time."""
        now = self._clock()
        if not self._counters or now - self._read_at < _OFTEN:
            return
        self._read_at = now
        try:
            drawn = sum(counter.drawn() for counter in self._counters)
        except OSError as error:
            self._counters, self.why = (), f"a counter cannot be read any more: {error}"
            return
        if self._hands:
            self._each += drawn / self._hands
        else:
            self.idle += drawn


def meter(wanted: bool = True, powercap: Path = POWERCAP, nvml: str = NVML) -> Meter:
    """A meter of every counter that there is; of none where one of them may not be read."""
    if not wanted:
        return Meter((), "cost.energy_counters is off")
    found: list[Counter] = []
    reasons = []
    for look in (lambda: _zones(powercap), lambda: _devices(nvml)):
        try:
            found += look()
        except OSError as error:
            reasons.append(str(error))
    if reasons:  # a part of what is drawn would pass for all of it
        return Meter((), "; ".join(reasons))
    return Meter(found, "" if found else "this machine shows no energy counters")


class Zone:
    """A zone of the power capping framework: a package, or memory."""

    def __init__(self, folder: Path):
        self.name = f"RAPL {(folder / 'name').read_text().strip()}"
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = self._now()

    def drawn(self) -> float:
        """See `Counter.drawn`."""
        before, self._last = self._last, self._now()
        return ((self._last - before) % (self._range + 1)) / 1e6

    def _now(self) -> int:
        try:
            return int(self._file.read_text())
        except ValueError as error:
            raise OSError(f"{self._file} holds no number: {error}") from None


def _zones(powercap: Path) -> list[Counter]:
    """Packages, and memory where it is counted beside them; cores and the like are within a package, and the whole
    platform (psys) is known by few machines. Raises OSError where they are there and cannot be read."""
    found: list[Counter] = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        kind = (folder / "name").read_text().strip()
        if kind.startswith(("package", "dram")):
            found.append(Zone(folder))
    return found


class Device:
    """A GPU, by NVML."""

    def __init__(self, library: ctypes.CDLL, number: int):
        self.name = f"GPU {number}"
        self._library, self._handle = library, ctypes.c_void_p()
        _call(library.nvmlDeviceGetHandleByIndex_v2, ctypes.c_uint(number), ctypes.byref(self._handle))
        self._last = self._now()

    def drawn(self) -> float:
        """See `Counter.drawn`."""
        before, self._last = self._last, self._now()
        return max(self._last - before, 0) / 1e3  # a driver that was loaded anew begins at 0

    def _now(self) -> int:
        millijoules = ctypes.c_ulonglong()
        _call(self._library.nvmlDeviceGetTotalEnergyConsumption, self._handle, ctypes.byref(millijoules))
        return millijoules.value


def _devices(name: str) -> list[Counter]:
    """Every GPU that NVML knows. Raises OSError where there are some and they cannot be asked."""
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return []  # no such GPUs here
    _call(library.nvmlInit_v2)
    count = ctypes.c_uint()
    _call(library.nvmlDeviceGetCount_v2, ctypes.byref(count))
    return [Device(library, number) for number in range(count.value)]


def _call(function: Callable[..., int], *given: object) -> None:
    """Raises OSError with NVML's own number."""
    if (code := function(*given)) != 0:
        raise OSError(f"NVML answers {code}")
