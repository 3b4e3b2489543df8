"""A dossier as a file: rendered in one form, with the signature in it; and the check of such a file, offline.

The file ends with a place for the signature. What is signed is the document and the SHA-256 of the whole file with
nothing in that place (`types.dossier.Statement`), in an envelope (`sign`). So any byte that is changed is found without
rendering anything, by any version; the document is rendered anew only to name what was changed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from freehold import sign
from freehold.dossier import chapters, compare, html, markdown
from freehold.dossier.lines import Line
from freehold.errors import CannotDo
from freehold.sign import SigningKey
from freehold.types.dossier import Change, Dossier, Statement

FORMS = ("html", "md", "json")
TYPE = "application/vnd.freehold.dossier.v1+json"
MOST = 64 << 20  # bytes of a file that is checked
_COMMENT = (b"<!-- freehold dossier envelope: ", b" -->\n")
_MEMBER = (b',"envelope":"', b'"}\n')
_PLACES = {"html": _COMMENT, "md": _COMMENT, "json": _MEMBER}
_AGAIN = "Give a file that 'freehold report' wrote."


class Checked(Struct, frozen=True):
    """What a check found. ``good``: whole, unchanged, and signed by a key that is trusted. ``signer`` is the
    fingerprint that the file names, ``known`` whether that key is trusted; ``wrong`` says what is not as it should be,
    ``changed`` what differs from what was signed, as far as it can be named. ``dossier`` is None where it cannot be
    read."""

    good: bool
    known: bool
    signer: str
    form: str = ""
    dossier: Dossier | None = None
    wrong: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()


def render(dossier: Dossier, form: str) -> list[Line]:
    """The lines of a page or text."""
    return list({"html": html.render, "md": markdown.render}[form](dossier))


def body(dossier: Dossier, form: str) -> bytes:
    """All of a file that comes before the place of the signature."""
    if form == "json":
        return b'{"dossier":' + msgspec.json.encode(dossier, order="deterministic")
    return "".join(f"{line.text}\n" for line in render(dossier, form)).encode()


def write(dossier: Dossier, form: str, key: SigningKey) -> bytes:
    """The whole file, signed. ``form`` is html, md or json. Raises ValueError where ``key`` is not the document's."""
    if dossier.key != key.public:
        raise ValueError("the dossier names another key than the one that signs it")
    content, (opens, closes) = body(dossier, form), _PLACES[form]
    statement = Statement(dossier, form, _digest(content + opens + closes))
    envelope = sign.seal(msgspec.json.encode(statement, order="deterministic"), TYPE, key)
    return content + opens + base64.b64encode(envelope) + closes


class _Found(Struct, frozen=True):
    """A file taken apart: all of it but the signature (``blank``), what stands before that, and the envelope."""

    blank: bytes
    before: bytes
    envelope: bytes


def check(content: bytes, keys: Sequence[str]) -> Checked:
    """Is this file as it was signed, and by one of ``keys``? A key is given in base64, or by its fingerprint.

    Raises:
        CannotDo: it is no dossier, or carries no signature.
        ValueError: one of ``keys`` is no key.
    """
    found = _take_apart(content)
    try:
        payload, signer, signature = sign.read(found.envelope, TYPE)
        statement = msgspec.json.decode(payload, type=Statement)
    except CannotDo as error:
        return Checked(False, False, "", wrong=(f"its signature cannot be read: {error.message}",))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Checked(False, False, signer, wrong=(f"what was signed is no dossier that this version reads: {error}",))
    dossier = statement.dossier
    fits, known = _signed(dossier, payload, signer, signature, keys)
    wrong = [] if fits else ["the signature does not fit: it was changed, or made with another key than it names"]
    if fits and not known:
        wrong.append(f"it is signed by an unknown key, {signer}")
    changed: list[Change] = []
    if _digest(found.blank) != statement.page:
        wrong.append("the file was changed after it was signed")
        if fits:
            changed = _changes(statement, found)
            wrong += [] if changed else [_unnamed(statement)]
    return Checked(not wrong, fits and known, signer, statement.form, dossier, tuple(wrong), tuple(changed))


def _take_apart(content: bytes) -> _Found:
    """The signature, and what stands before it. Raises CannotDo."""
    if len(content) > MOST:
        raise CannotDo(f"The file has {len(content)} bytes; the most that is read is {MOST}.", hint=_AGAIN)
    for opens, closes in (_COMMENT, _MEMBER):
        at = content.rfind(opens)
        end = content.find(closes, at + len(opens)) if at >= 0 else -1
        if end >= 0:
            return _Found(
                content[: at + len(opens)] + content[end:], content[:at], _decoded(content[at + len(opens) : end])
            )
    raise CannotDo("This is no dossier: it carries no signature.", hint=_AGAIN)


def _decoded(text: bytes) -> bytes:
    """The envelope; what cannot be one gives bytes that are none."""
    try:
        envelope = sign.decode(text.decode("ascii"))
        spelt = msgspec.json.encode(msgspec.json.decode(envelope, type=sign.Envelope))
    except (ValueError, RecursionError):
        return b""
    return envelope if spelt == envelope else b""  # in the one spelling that it has


def _signed(dossier: Dossier, payload: bytes, signer: str, signature: bytes, keys: Sequence[str]) -> tuple[bool, bool]:
    """Does the signature fit the key that the document names, and is that one of ``keys``?"""
    trusted = {key if key.startswith("sha256:") else sign.fingerprint(key) for key in keys}
    try:
        named = sign.fingerprint(dossier.key)
        fits = sign.verify(dossier.key, signature, sign.pae(TYPE, payload))
    except ValueError:
        return False, False
    fits = fits and named == signer == dossier.signer
    return fits, named in trusted


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _changes(statement: Statement, found: _Found) -> list[Change]:
    """What was changed, as far as this version can tell: of a page only where it renders the document as it was
    rendered."""
    dossier, form = statement.dossier, statement.form
    try:
        if form == "json":
            return compare.documents(dossier, msgspec.json.decode(found.before + b"}")["dossier"])
        if _digest(body(dossier, form) + b"".join(_PLACES[form])) != statement.page:
            return []
        text = found.before.decode("utf-8", "replace").removesuffix("\n")
        return compare.pages(render(dossier, form), text, dossier)
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _unnamed(statement: Statement) -> str:
    """Why nothing is named that was changed."""
    if statement.form == "json" or statement.dossier.layout == chapters.LAYOUT:
        return "none of its figures differs: what was changed stands between or behind them"
    return f"which figure cannot be named: {statement.dossier.made_by} lays the page out otherwise than this version"
