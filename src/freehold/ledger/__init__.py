"""The ledger: the only writer of calls and of audit events; and the chain in which both stand, walked, signed and
handed out.

`ledger` writes, `settled` says what a call's event holds, `chain` links, `house` binds a home to its chain, `verify`
walks, `checkpoint` signs heads, `audit` joins these for the server and the commands, `export` hands out, and
`verify_audit` is what others check an export with: it knows nothing of Freehold.
"""

from freehold.ledger.audit import Audit
from freehold.ledger.chain import GENESIS, digest
from freehold.ledger.checkpoint import Checkpoint
from freehold.ledger.ledger import WINDOW, Entry, Ledger, new_id
from freehold.ledger.verify import Verification

__all__ = ["GENESIS", "WINDOW", "Audit", "Checkpoint", "Entry", "Ledger", "Verification", "digest", "new_id"]
