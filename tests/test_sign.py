"""The home's signing key and the envelopes that it signs."""

import base64
import json
import os
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from freehold import sign
from freehold.errors import CannotDo
from freehold.sign import SigningKey

TYPE = "application/vnd.test+json"


@pytest.fixture
def key(tmp_path) -> SigningKey:
    return SigningKey.load(tmp_path / "key.pem")


def changed(envelope: bytes, **fields) -> bytes:
    return json.dumps(json.loads(envelope) | fields).encode()


def test_a_key_is_made_once_for_its_owner_alone_and_read_again(tmp_path):
    """Mode 0600, the same key at every load, and no draft left beside it."""
    first, again = SigningKey.load(tmp_path / "key.pem"), SigningKey.load(tmp_path / "key.pem", create=False)
    assert first.public == again.public and first.fingerprint == again.fingerprint
    assert oct(os.stat(tmp_path / "key.pem").st_mode)[-3:] == "600"
    assert os.listdir(tmp_path) == ["key.pem"]


def test_many_who_make_the_key_at_once_get_one_key(tmp_path):
    """Whoever comes second reads what the first wrote."""
    found = []
    makers = [
        threading.Thread(target=lambda: found.append(SigningKey.load(tmp_path / "key.pem").public)) for _ in range(8)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_no_key_and_a_bad_key_are_said_as_such(tmp_path):
    """A missing file, one that is no PEM, another kind of key, a folder, a folder that is not there."""
    with pytest.raises(CannotDo, match="There is no signing key"):
        SigningKey.load(tmp_path / "none.pem", create=False)
    (tmp_path / "bad.pem").write_bytes(b"no key")
    with pytest.raises(CannotDo, match="cannot be read"):
        SigningKey.load(tmp_path / "bad.pem")
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.pem").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(CannotDo, match="no Ed25519 key"):
        SigningKey.load(tmp_path / "ec.pem")
    with pytest.raises(CannotDo, match="cannot be read: Is a directory"):
        SigningKey.load(tmp_path)
    with pytest.raises(CannotDo, match="cannot be written"):
        SigningKey.load(tmp_path / "none" / "key.pem")


def test_a_signature_fits_its_key_and_content_alone(tmp_path, key):
    """Another content, another key, a shorter signature: no."""
    other = SigningKey.load(tmp_path / "other.pem")
    signature = key.sign(b"content")
    assert sign.verify(key.public, signature, b"content")
    assert not sign.verify(key.public, signature, b"contenu")
    assert not sign.verify(other.public, signature, b"content")
    assert not sign.verify(key.public, signature[:-1], b"content")
    with pytest.raises(ValueError, match="32 bytes"):
        sign.verify("AAAA", signature, b"content")


def test_the_encoding_that_is_signed_is_dsse_s():
    """The example in the DSSE 1.0 protocol."""
    assert sign.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_what_was_sealed_comes_out_with_its_signer(tmp_path, key):
    """Also where several keys are trusted, and for bytes that are no text."""
    other = SigningKey.load(tmp_path / "other.pem")
    opened = sign.unseal(sign.seal(b"\x00\xff", TYPE, key), TYPE, [other.public, key.public])
    assert (opened.payload, opened.key) == (b"\x00\xff", key.public)


def test_an_envelope_by_somebody_else_is_signed_by_unknown(tmp_path, key):
    """It names the fingerprint, to compare; a name that is not the key's own gains nothing."""
    other = SigningKey.load(tmp_path / "other.pem")
    envelope = sign.seal(b"content", TYPE, other)
    with pytest.raises(CannotDo, match=f"signed by unknown.*{other.fingerprint}"):
        sign.unseal(envelope, TYPE, [key.public])
    signature = json.loads(envelope)["signatures"][0]
    lying = changed(envelope, signatures=[signature | {"keyid": key.fingerprint}])
    with pytest.raises(CannotDo, match="does not fit"):
        sign.unseal(lying, TYPE, [key.public])
    with pytest.raises(CannotDo, match="signed by unknown"):
        sign.unseal(changed(envelope, signatures=[{"sig": signature["sig"]}]), TYPE, [other.public])


def test_a_changed_envelope_is_refused(key):
    """Its payload, its type, its number of signatures, a field too many, another spelling of its base64."""
    envelope = sign.seal(b"contents", TYPE, key)
    signature = json.loads(envelope)["signatures"][0]
    attacks = {
        "does not fit": changed(envelope, payload=base64.b64encode(b"content!").decode()),
        "and must hold": changed(envelope, payloadType="application/vnd.other+json"),
        "2 signatures": changed(envelope, signatures=[signature, signature]),
        "0 signatures": changed(envelope, signatures=[]),
        "unknown field": changed(envelope, extra=1),
        "not spelt": changed(envelope, payload="Y29udGVudHN="),
        "base64|Incorrect padding|Only": changed(envelope, payload="Y29u dGVudHM="),
        "no signed envelope": envelope[:-1],
    }
    for said, attack in attacks.items():
        with pytest.raises(CannotDo, match=said):
            sign.unseal(attack, TYPE, [key.public])


def test_one_type_cannot_be_shown_as_another(key):
    """The type is signed with the payload: to change it on both sides does not help."""
    envelope = changed(sign.seal(b"content", TYPE, key), payloadType="application/vnd.other+json")
    with pytest.raises(CannotDo, match="does not fit"):
        sign.unseal(envelope, "application/vnd.other+json", [key.public])


def test_endless_nesting_is_an_error_like_any_other(key):
    """A hundred thousand brackets are no envelope."""
    for attack in (b"[" * 100_000, b'{"payload":' + b"[" * 100_000, b'{"signatures":' + b"[" * 100_000):
        with pytest.raises(CannotDo, match="no signed envelope"):
            sign.unseal(attack, TYPE, [key.public])
