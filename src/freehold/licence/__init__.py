"""Under which licence is a model? Every place that says something is read, compared and told apart."""

from freehold.licence.identify import Identified, identify
from freehold.licence.judge import judge
from freehold.licence.known import KNOWN, Known

__all__ = ["KNOWN", "Identified", "Known", "identify", "judge"]
