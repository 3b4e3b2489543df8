"""An alias is pointed at a candidate, for all calls or for a share of them, and back.

`standing` says whether a candidate may take over, `promote` and `rollback` move the alias, `Watch` compares the two
sides of a canary while it runs and ends it where the candidate is shown worse, `facts` tells how it all stands, and
`told` what a move did.
"""

from freehold.promote.facts import facts
from freehold.promote.move import Desk, Moved, give_up, promote, rollback, told
from freehold.promote.standing import Standing, standing
from freehold.promote.watch import Watch

__all__ = ["Desk", "Moved", "Standing", "Watch", "facts", "give_up", "promote", "rollback", "standing", "told"]
