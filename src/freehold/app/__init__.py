"""The composition root: the only place that names concrete classes and joins them into a running server.

`opening` opens a home, `workshop` makes the engines, `views` is what /admin sees, `checks` and `sockets` come before
the first call, and `serve` joins them.
"""

from freehold.app.opening import Host, Parts, TuneOutcome, parts
from freehold.app.serve import serve
from freehold.app.workshop import ENGINES

__all__ = ["ENGINES", "Host", "Parts", "TuneOutcome", "parts", "serve"]
