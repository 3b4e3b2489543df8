"""Secrets and personal data in texts: what is found, where it stands in a request, and how it is masked and put back.

Nothing here is imported when the gateway starts, and the libraries behind it only where a text has a number to check.
"""

from freehold.sensitive.find import find
from freehold.sensitive.hit import PERSONAL, SECRETS, Hit, Kind
from freehold.sensitive.mask import Names, Unmasker, mask, unmask
from freehold.sensitive.reading import Reading
from freehold.sensitive.request import Form, Place, path, places, put

__all__ = [
    "PERSONAL",
    "SECRETS",
    "Form",
    "Hit",
    "Kind",
    "Names",
    "Place",
    "Reading",
    "Unmasker",
    "find",
    "mask",
    "path",
    "places",
    "put",
    "unmask",
]
