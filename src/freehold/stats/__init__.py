"""The mathematics of a verdict: pure functions from columns of numbers to records. docs/concepts/verdict.md says why.

`compare` judges a margin on paired scores, `rectified` on a judge's scores that people checked in part, `outlook` names
the outcome; `holm` says at which level each of several candidates is judged; `needed` and `certifiable` plan.
`sequential` watches a canary while it runs; docs/concepts/canary.md says why.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "certifiable": "plan", "compare": "paired", "design_effect": "plan", "holm": "several", "needed": "plan",
    "needed_groups": "plan", "outlook": "paired", "rectified": "rectify",
}  # fmt: skip

__all__ = ["certifiable", "compare", "design_effect", "holm", "needed", "needed_groups", "outlook", "rectified"]


def __getattr__(name: str) -> Any:
    """Each function out of its module when it is first asked for: most need numpy, which the gateway, for the sake of
    `sequential` alone, shall not load."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
