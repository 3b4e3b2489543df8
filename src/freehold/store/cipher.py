"""The key under which recorded calls lie on the disk, and what is done with it.

Each text is sealed by itself with AES-256-GCM (NIST SP 800-38D), under a random nonce of 96 bits, with the place that
it belongs to (table, column, the row's own name) as associated data, so that no text can be put in another's place.
What has to be found again by its content is found by a digest with a key of its own (HMAC-SHA256). Both keys, and the
name by which a row says which key it is sealed with, are derived from the one that is given (HKDF-SHA256, RFC 5869).

Under one key at most 2**32 texts may be sealed (SP 800-38D, 8.3): a new key by then.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from freehold.errors import BadConfig, WrongKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE = "FREEHOLD_TRAFFIC_KEY"
SIZE = 32  # bytes of a key
_NONCE = 12
_LONGEST = 4096  # bytes of a key's file
_HOW = "A key is 32 random bytes, as they are, in hexadecimal or in Base64: 'openssl rand -hex 32' makes one."


class Sealer(Protocol):
    """How texts are kept. ``id`` names the key, '' where there is none; ``place`` says where a text belongs."""

    @property
    def id(self) -> str: ...

    def seal(self, content: bytes, *place: str) -> bytes: ...

    def open(self, sealed: bytes, *place: str) -> bytes: ...

    def digest(self, content: bytes) -> str: ...


class Plain:
    """Texts as they are."""

    id = ""

    def seal(self, content: bytes, *place: str) -> bytes:
        """The same bytes."""
        return content

    def open(self, sealed: bytes, *place: str) -> bytes:
        """The same bytes."""
        return sealed

    def digest(self, content: bytes) -> str:
        """SHA-256."""
        return "sha256:" + hashlib.sha256(content).hexdigest()


class Cipher:
    """Texts under a key of `SIZE` bytes. Its ``repr`` shows the key's name alone."""

    def __init__(self, key: bytes):
        if len(key) != SIZE:
            raise ValueError(f"a key has {SIZE} bytes, and not {len(key)}")
        self.id = _derived(key, b"name").hex()[:16]
        self._digests = _derived(key, b"digests")
        self._key = _derived(key, b"texts")

    def __repr__(self) -> str:
        return f"<Cipher {self.id}>"

    def seal(self, content: bytes, *place: str) -> bytes:
        """Nonce and ciphertext with its tag."""
        nonce = os.urandom(_NONCE)
        return nonce + self._texts.encrypt(nonce, content, _at(place))

    def open(self, sealed: bytes, *place: str) -> bytes:
        """What was sealed for this place. Raises WrongKey where it was changed, or belongs to another one."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._texts.decrypt(sealed[:_NONCE], sealed[_NONCE:], _at(place))
        except (InvalidTag, ValueError):
            raise WrongKey(
                f"What is kept of {' '.join(place[2:])!a} was changed since it was encrypted, or is another row's.",
                hint="Put the database back from a copy, or erase the call.",
            ) from None

    def digest(self, content: bytes) -> str:
        """HMAC-SHA256, which nobody can guess a text by who has not the key."""
        return "hmac-sha256:" + hmac.digest(self._digests, content, "sha256").hex()

    @cached_property
    def _texts(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # a tenth of a second of imports

        return AESGCM(self._key)


PLAIN = Plain()


class Ring:
    """The key that writes, and those that can be read besides: what an earlier key sealed, and what is plain."""

    def __init__(self, writes: Sealer = PLAIN, older: Sequence[Sealer] = ()):
        self.writes = writes
        self._known = {one.id: one for one in (PLAIN, *older, writes)}

    def of(self, key: str) -> Sealer:
        """What opens a row that says so. Raises WrongKey."""
        if (found := self._known.get(key)) is None:
            raise wrong(key, self.writes.id)
        return found

    def digests(self, content: bytes) -> list[str]:
        """The digests under which a content may have been kept."""
        return [one.digest(content) for one in self._known.values()]


def wrong(needed: str, given: str) -> WrongKey:
    """The error where recorded calls need one key and there is another, or none."""
    has = f"the key that is given is {given}" if given else "no key is given"
    want = f"are encrypted with the key {needed}" if needed else "are not encrypted"
    return WrongKey(f"The recorded calls of this home {want}, and {has}. Nothing was changed.")


def load(file: str, environ: Mapping[str, str] = os.environ) -> Sealer:
    """The key that is given: by `VARIABLE`, or else by a file; `PLAIN` where there is neither.

    Raises:
        BadConfig: the file cannot be read, or what is given is no key.
    """
    if text := environ.get(VARIABLE, "").strip():
        return Cipher(_key(text.encode(), VARIABLE))
    if not file:
        return PLAIN
    path = Path(file).expanduser()
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST)
    except OSError as error:
        raise BadConfig(
            f"The key of recorded calls, {path}, cannot be read: {error.strerror}.",
            hint="Put it back from a copy: without it what it encrypted cannot be read.",
        ) from None
    return Cipher(_key(content, str(path)))


def _key(content: bytes, where: str) -> bytes:
    if len(content) == SIZE:
        return content
    text = content.strip()
    try:
        if re.fullmatch(rb"[0-9a-fA-F]{64}", text):
            return bytes.fromhex(text.decode())
        found = base64.b64decode(text.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != SIZE:
        raise BadConfig(f"{where} holds no key.", hint=_HOW)
    return found


def _derived(key: bytes, use: bytes) -> bytes:
    """HKDF-SHA256 without salt, one block: RFC 5869, sections 2.2 and 2.3."""
    extracted = hmac.digest(b"\0" * 32, key, "sha256")
    return hmac.digest(extracted, b"freehold traffic v1: " + use + b"\x01", "sha256")


def _at(place: Sequence[str]) -> bytes:
    return msgspec.json.encode(place)
