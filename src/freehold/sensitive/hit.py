"""What can be found, and where: a hit says what kind of thing stands where in a text, and never holds the text."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Kind(StrEnum):
    """The kinds of secrets and personal data, the most certain first: of two hits of one length, the earlier counts."""

    PRIVATE_KEY = "private_key"
    JWT = "jwt"
    API_KEY = "api_key"  # of an issuer that is known by its form
    CARD = "card"
    IBAN = "iban"
    NATIONAL_ID = "national_id"
    EMAIL = "email"
    PASSWORD = "password"
    SECRET = "secret"  # anything random beside a word that calls it one
    PHONE = "phone"
    IP_ADDRESS = "ip_address"


SECRETS = frozenset({Kind.PRIVATE_KEY, Kind.JWT, Kind.API_KEY, Kind.PASSWORD, Kind.SECRET})
PERSONAL = frozenset(Kind) - SECRETS
RANK = {kind: rank for rank, kind in enumerate(Kind)}


class Hit(Struct, frozen=True):
    """Characters ``start`` to ``end`` of a text are of this kind; ``what`` names the detector ("Visa card number")."""

    kind: Kind
    start: int
    end: int
    what: str
