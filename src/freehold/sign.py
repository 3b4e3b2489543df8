"""Signatures of our own: a home's Ed25519 key, and envelopes that carry signed content.

Formats: Ed25519 (RFC 8032), the private key as PKCS #8 in PEM, the public key as its 32 raw bytes in base64.
Envelopes: DSSE 1.0 (Dead Simple Signing Envelope, secure-systems-lab/dsse), which signs the payload together with
its type, so that nothing signed as one kind of thing can be shown as another. DSSE lets readers be lenient and lets
an envelope carry many signatures; ours has exactly one, standard base64 alone, and no field that the format lacks.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from freehold.errors import CannotDo

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_ENVELOPE = 64 << 20  # bytes


class SigningKey:
    """A private key that signs. ``public`` is its public half in base64, ``fingerprint`` that half's digest."""

    def __init__(self, key: Ed25519PrivateKey):
        self._key = key
        self.public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
        self.fingerprint = fingerprint(self.public)

    @classmethod
    def load(cls, path: Path, *, create: bool = True) -> SigningKey:
        """The key in a file; with ``create``, a new one where there is none, readable by its owner alone.

        Raises:
            CannotDo: there is no key, or what is there cannot be read or is no Ed25519 key.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if not create:
                raise CannotDo(f"There is no signing key {path}.", hint="Put it back from a copy.") from None
            content = _create(path)
        except OSError as error:
            raise CannotDo(f"The signing key {path} cannot be read: {error.strerror}.") from None
        return cls(_parse(content, path))

    def sign(self, content: bytes) -> bytes:
        """The signature over ``content``, 64 bytes."""
        return self._key.sign(content)


class Envelope(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A DSSE envelope as it is written: ``payload`` in base64, what it is, and who signed it."""

    payload: str
    payload_type: str
    signatures: list[Sig]


class Sig(Struct, frozen=True, forbid_unknown_fields=True):
    """One signature of an envelope, in base64. ``keyid`` names the key by its fingerprint, and proves nothing."""

    sig: str
    keyid: str | None = None


class Opened(Struct, frozen=True):
    """What was in an envelope whose signature is good, and the public key that signed it."""

    payload: bytes
    key: str


def fingerprint(public_key: str) -> str:
    """``sha256:`` and the digest of a public key's raw bytes. Raises ValueError where it is no Ed25519 key."""
    return "sha256:" + hashlib.sha256(_raw(public_key)).hexdigest()


def verify(public_key: str, signature: bytes, content: bytes) -> bool:
    """Whether that key made that signature over ``content``. Raises ValueError where the key is none."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(_raw(public_key)).verify(signature, content)
    except InvalidSignature:
        return False
    return True


def pae(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature is made over (its Pre-Authentication Encoding): type and payload, each with its length."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """An envelope around ``payload``, signed with ``key``, as JSON."""
    signature = base64.b64encode(key.sign(pae(payload_type, payload))).decode()
    sealed = Envelope(base64.b64encode(payload).decode(), payload_type, [Sig(signature, key.fingerprint)])
    return msgspec.json.encode(sealed)


def unseal(envelope: bytes, payload_type: str, keys: Iterable[str]) -> Opened:
    """The payload of an envelope that one of ``keys`` (public, in base64) signed as a ``payload_type``.

    Raises:
        CannotDo: it is no envelope, holds another type of thing, was signed by a key that is not among ``keys``,
            or was changed after it was signed.
        ValueError: one of ``keys`` is no key.
    """
    payload, found, sig = read(envelope, payload_type)
    known = {fingerprint(key): key for key in keys}
    if found not in known:
        raise CannotDo(
            f"The envelope is signed by unknown: it names the key {found!r:.100}, which is not one that you trust.",
            hint="Ask whoever made it for the fingerprint of their key, by another way, and compare.",
        )
    if not verify(known[found], sig, pae(payload_type, payload)):
        raise CannotDo(
            f"The signature of {found} does not fit: the envelope was changed after it was signed, or forged.",
            hint="Fetch it again from whoever made it.",
        )
    return Opened(payload, known[found])


def read(envelope: bytes, payload_type: str) -> tuple[bytes, str, bytes]:
    """The payload, the fingerprint that the envelope names, and the signature: nothing of it checked yet.

    Raises:
        CannotDo: it is no envelope with one signature, or holds another type of thing.
    """
    if len(envelope) > MAX_ENVELOPE:
        raise CannotDo(f"The envelope has {len(envelope)} bytes; the most that is read is {MAX_ENVELOPE}.")
    try:
        parsed = msgspec.json.decode(envelope, type=Envelope)
        if len(parsed.signatures) != 1:
            raise ValueError(f"it has {len(parsed.signatures)} signatures, and must have one")
        if parsed.payload_type != payload_type:
            raise ValueError(f"it holds {parsed.payload_type[:100]!r}, and must hold {payload_type!r}")
        only = parsed.signatures[0]
        return decode(parsed.payload), only.keyid or "", decode(only.sig)
    except (ValueError, RecursionError) as error:
        raise CannotDo(f"This is no signed envelope that can be read: {error}.") from None


def decode(text: str) -> bytes:
    """Standard base64, padded, in the one spelling that its bytes have. Raises ValueError for any other."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise ValueError("the base64 is not spelt as it should be")
    return content


def _raw(public_key: str) -> bytes:
    raw = base64.b64decode(public_key, validate=True)
    if len(raw) != 32:
        raise ValueError(f"an Ed25519 public key has 32 bytes, and this has {len(raw)}")
    return raw


def _parse(content: bytes, path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise CannotDo(f"The signing key {path} cannot be read: {error}.", hint="Put it back from a copy.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CannotDo(f"The signing key {path} is no Ed25519 key.", hint="Put it back from a copy.")
    return key


def _create(path: Path) -> bytes:
    """Write a new key and return what the file then holds: whole or not there, and never in place of another."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, path)
    except FileExistsError:
        return path.read_bytes()  # another process was a moment faster
    except OSError as error:
        raise CannotDo(f"The signing key {path} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)
    return content
