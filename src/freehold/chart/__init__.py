"""Pictures of what was measured: records in, text out. `terminal` draws with characters, `svg` with lines, `curve`
how a tuning run went."""

from freehold.chart import curve, svg, terminal

__all__ = ["curve", "svg", "terminal"]
