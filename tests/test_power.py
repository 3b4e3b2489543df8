"""Energy by the machine's own counters: what each call drew, what was drawn by nobody, and where nothing counts."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.engine import power
from freehold.engine.seat import Seat, Ticket
from freehold.types import Caller, Kind, Manifest, Role


class Tap:
    """A counter that a test turns on."""

    name = "tap"

    def __init__(self):
        self.joules = 0.0
        self.broken = False

    def drawn(self) -> float:
        if self.broken:
            raise OSError("gone")
        drawn, self.joules = self.joules, 0.0
        return drawn


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def metered() -> tuple[power.Meter, Tap, Clock]:
    tap, clock = Tap(), Clock()
    return power.Meter([tap], clock=clock), tap, clock


def run(tap: Tap, clock: Clock, joules: float, seconds: float = 1.0) -> None:
    """So much is drawn in so long."""
    clock.now += seconds
    tap.joules += joules


def test_what_two_draw_together_is_shared():
    """Alone a call has all of it, with another one half, and what is drawn by nobody is idle."""
    meter, tap, clock = metered()
    run(tap, clock, 3.0)
    first = meter.enter()
    run(tap, clock, 10.0)
    second = meter.enter()
    run(tap, clock, 8.0)
    assert meter.leave(first) == pytest.approx(14.0)
    run(tap, clock, 5.0)
    assert meter.leave(second) == pytest.approx(9.0)
    run(tap, clock, 2.0)
    meter.settle()
    assert meter.idle == pytest.approx(5.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100), st.floats(0.02, 9)), max_size=60), st.randoms())
def test_the_parts_add_up_to_what_was_counted(steps, chance: random.Random):
    """Whoever comes and goes: the parts of all, with the idle one, are what the counter counted."""
    meter, tap, clock = metered()
    inside, parts, total = [], [], 0.0
    for come, joules, seconds in steps:
        run(tap, clock, joules, seconds)
        total += joules
        inside += [meter.enter() for _ in range(come)]
        chance.shuffle(inside)
        parts += [meter.leave(inside.pop()) for _ in range(len(inside) // 2)]
    run(tap, clock, 7.0)
    parts += [meter.leave(mark) for mark in inside]
    meter.settle()
    assert sum(parts) + meter.idle == pytest.approx(total + 7.0)


def test_a_counter_that_fails_makes_nothing_up():
    """From then on nobody knows, and the reason is there to be read."""
    meter, tap, clock = metered()
    mark = meter.enter()
    tap.broken = True
    run(tap, clock, 5.0)
    assert meter.leave(mark) is None and "gone" in meter.why and meter.names == ()


def test_a_call_has_what_was_drawn_while_it_held_its_slot():
    """Not while it waited in line, and whoever is served by an upstream has none of it."""
    meter, tap, clock = metered()
    model = Manifest("m", "sha256:" + "0" * 64, 1, "gguf", "file", False, "llama", 512)
    seat, remote = Seat(model, vectors=False, meter=meter), Seat(model, vectors=False)
    caller = Caller("k", "ann", Role.MEMBER)
    here, there = (Ticket("c", caller, Kind.CHAT, 1, one, model) for one in (seat, remote))
    run(tap, clock, 4.0)
    seat.give(here)
    remote.give(there)
    run(tap, clock, 6.0)
    here.release()
    there.release()
    here.release()
    assert here.joules == pytest.approx(6.0) and there.joules is None and meter.idle == pytest.approx(4.0)


def zone(folder: Path, name: str, joules: float, most: float = 100.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (folder / "max_energy_range_uj").write_text(f"{int(most * 1e6)}\n")
    return folder / "energy_uj"


def test_rapl_is_read_where_it_is(tmp_path):
    """Packages and memory count, cores are within a package, and a counter that begins again has not gone back."""
    package = zone(tmp_path / "intel-rapl:0", "package-0", 90.0)
    memory = zone(tmp_path / "intel-rapl:0:0", "dram", 5.0)
    zone(tmp_path / "intel-rapl:0:1", "core", 50.0)
    zone(tmp_path / "intel-rapl-mmio:0", "package-0", 1.0)
    found = power._zones(tmp_path)
    assert [one.name for one in found] == ["RAPL package-0", "RAPL dram"]
    package.write_text("2000000")
    memory.write_text("6500000")
    assert [one.drawn() for one in found] == [pytest.approx(12.0), pytest.approx(1.5)]
    assert [one.drawn() for one in found] == [0, 0]


def test_a_counter_that_may_not_be_read_says_so(tmp_path):
    """No counter, no figure, and the reason."""
    zone(tmp_path / "intel-rapl:0", "package-0", 90.0).write_text("nonsense")
    meter = power.meter(powercap=tmp_path, nvml="libnosuch.so")
    assert meter.names == () and "holds no number" in meter.why and meter.leave(meter.enter()) is None
    assert "shows no energy counters" in power.meter(powercap=tmp_path / "none", nvml="libnosuch.so").why
    assert "is off" in power.meter(False).why


NVML = """
static unsigned long long drawn = 1000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) { *handle = (void *)(8UL + index); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy) {
    if (REFUSES) return 3;
    drawn += 500 * (unsigned long)handle;
    *energy = drawn;
    return 0;
}
"""


def library(folder: Path, refuses: int) -> str:
    """A library that answers as NVML does."""
    (folder / "nvml.c").write_text(NVML)
    made = folder / f"nvml{refuses}.so"
    command = ["gcc", "-shared", "-fPIC", f"-DREFUSES={refuses}", "-o", str(made), str(folder / "nvml.c")]
    subprocess.run(command, check=True)
    return str(made)


def test_nvml_is_asked_where_it_is(tmp_path):
    """Every GPU, in joules; one that does not count energy leaves the machine without a figure."""
    devices = power._devices(library(tmp_path, 0))
    assert [device.name for device in devices] == ["GPU 0", "GPU 1"]
    assert all(device.drawn() > 0 for device in devices)
    assert "NVML answers 3" in power.meter(powercap=tmp_path / "none", nvml=library(tmp_path, 1)).why


def test_a_part_of_what_is_drawn_does_not_pass_for_all_of_it(tmp_path):
    """Where one counter may not be read, nothing is measured, whatever the others say."""
    good = library(tmp_path, 0)
    assert power.meter(powercap=tmp_path / "none", nvml=good).names == ("GPU 0", "GPU 1")
    zone(tmp_path / "intel-rapl:0", "package-0", 90.0).write_text("nonsense")
    meter = power.meter(powercap=tmp_path, nvml=good)
    assert meter.names == () and "holds no number" in meter.why
