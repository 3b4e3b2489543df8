"""The composition root: the only place that names concrete classes and joins them into a running server.

`opening` opens a home, `workshop` makes the engines, `views` is what /admin sees, `checks` and `sockets` come before
the first call, and `serve`, which `freehold up` alone imports, joins them.
"""

from freehold.app.opening import Host, Parts, TuneOutcome, parts

__all__ = ["Host", "Parts", "TuneOutcome", "parts"]
