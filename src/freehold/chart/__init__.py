"""Pictures of what was measured: records in, text out. `terminal` draws with characters, `svg` with lines."""

from freehold.chart import svg, terminal

__all__ = ["svg", "terminal"]
