"""What an hour of the machine costs, and how money is written."""

from __future__ import annotations

from decimal import Decimal

from freehold.config import ASSUMED, CostSettings
from freehold.prices import charge as charge
from freehold.types import Basis, Figure, Rates

HOUR = 3600.0  # seconds
DAY = 24 * HOUR
JOULES_PER_KWH = 1000 * HOUR
_IN_DOLLARS = ("machine_per_hour", "energy_per_kwh")


def rates(settings: CostSettings) -> Rates:
    """What owning costs, by the settings; what is not set is assumed, and says so."""
    rate = settings.usd_rate or 1.0
    usd = Figure(rate, Basis.SET if settings.usd_rate else Basis.ASSUMED, "cost.usd_rate")
    if settings.currency == "USD":
        usd = Figure(1.0, Basis.SET, "money is shown in US dollars")
    return Rates(settings.currency, **{name: _rate(settings, name, rate) for name in ASSUMED}, usd_rate=usd)


def _rate(settings: CostSettings, name: str, rate: float) -> Figure:
    own = getattr(settings, name)
    if own is not None:
        return Figure(own, Basis.SET, f"cost.{name}")
    assumed = ASSUMED[name] * (rate if name in _IN_DOLLARS else 1.0)
    return Figure(assumed, Basis.ASSUMED, f"cost.{name} is not set")


def machine(rates: Rates, seconds: float) -> float:
    """What the machine costs for so long, without its energy."""
    return seconds / HOUR * rates.machine_per_hour.value


def kwh(watts: Figure, seconds: float) -> float:
    """Kilowatt-hours."""
    return watts.value * seconds / HOUR / 1000


def energy(rates: Rates, watts: Figure, seconds: float) -> float:
    """What the energy costs that is drawn so long at so many watts."""
    return kwh(watts, seconds) * rates.energy_per_kwh.value


def drawn(rates: Rates) -> str:
    """Where an estimate of energy is from."""
    watts = f"{rates.watts_busy.value:g} W while it answers ({rates.watts_busy.basis})"
    return f"{watts}, {rates.energy_per_kwh.value:g} {rates.currency} a kWh ({rates.energy_per_kwh.basis})"


def hourly(rates: Rates) -> str:
    """Where an estimate of the machine's cost is from."""
    per_hour = rates.machine_per_hour
    return f"{per_hour.value:g} {rates.currency} an hour ({per_hour.basis})"


def on_seconds(elapsed: float, hours_per_day: float) -> float:
    """How long a machine is on in a time of ``elapsed`` seconds that begins with a working day."""
    days, rest = divmod(max(elapsed, 0.0), DAY)
    return days * hours_per_day * HOUR + min(rest, hours_per_day * HOUR)


def money(value: float | None, currency: str = "") -> str:
    """An amount for people: to the cent, or four figures of what is less than one unit."""
    if value is None:
        return "unknown"
    text = f"{value:,.2f}" if abs(value) >= 1 or value == 0 else f"{Decimal(f'{value:.4g}'):f}"
    return f"{text} {currency}".rstrip()
