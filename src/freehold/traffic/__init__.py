"""Recorded calls: brought in from files of several formats, looked at, and written out."""

from freehold.traffic.bring import Report, Wish, bring_in
from freehold.traffic.export import write
from freehold.traffic.portrait import Portrait, portray

__all__ = ["Portrait", "Report", "Wish", "bring_in", "portray", "write"]
