"""The mathematics of a verdict: pure functions from columns of numbers to records. docs/concepts/verdict.md says why.

`compare` judges a margin on paired scores, `rectified` on a judge's scores that people checked in part, `outlook` names
the outcome; `holm` says at which level each of several candidates is judged; `needed` and `certifiable` plan.
"""

from freehold.stats.paired import compare, outlook
from freehold.stats.plan import certifiable, design_effect, needed, needed_groups
from freehold.stats.rectify import rectified
from freehold.stats.several import holm

__all__ = ["certifiable", "compare", "design_effect", "holm", "needed", "needed_groups", "outlook", "rectified"]
