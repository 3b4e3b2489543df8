"""The guard: what of secrets and personal data may reach an engine, an upstream or the disk, and in which form.

`rules` says what is done with each kind, for each caller and place; `gate` does it to a request; `restore` puts what
was masked back into the answer, whichever endpoint's it is; `reply` does so while the answer passes.
"""

from freehold.guard.gate import Guard, Guarded, Trial
from freehold.guard.rules import Destination

__all__ = ["Destination", "Guard", "Guarded", "Trial"]
