"""The kernel seal: what a sealed process can no longer do, whoever wrote the code that runs in it.

`put_on` seals the calling process for good, as the setting says; `read` asks the kernel what any process wears;
`trial` holds the attempts to get out that ``freehold prove privacy`` makes.
"""

from freehold.seal.kernel import read
from freehold.seal.plan import Plan, apply, engine_plan, gateway_plan, missing, put_on, relay_plan, scanner_plan

__all__ = ["Plan", "apply", "engine_plan", "gateway_plan", "missing", "put_on", "read", "relay_plan", "scanner_plan"]
