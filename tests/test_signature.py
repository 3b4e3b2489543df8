"""OpenSSF model-signing bundles: what the real library signed is good, and every attack on it is not.

The models in assets/model_signing.json were signed by the library itself; the attacks that no library would make are
signed here.
"""

import base64
import hashlib
import importlib.util
import json
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from freehold import sign, signature
from freehold.errors import BadConfig
from freehold.types import Signature

ASSETS = Path(__file__).parent / "assets"
MADE = json.loads((ASSETS / "model_signing.json").read_text())
_spec = importlib.util.spec_from_file_location("make_model_signing", ASSETS / "sign_models.py")
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)

P256 = ec.SECP256R1()
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "sub/more.txt": b"more"}


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digests(files: dict[str, bytes]) -> dict[str, str]:
    return {path: sha256(content) for path, content in files.items()} | {"model.sig": sha256(b"")}


def case(name: str, **changes: str | None) -> Signature:
    """One of the library's models, verified with some files changed, added or (None) removed."""
    made = MADE["cases"][name]
    files = {path: text.encode() for path, text in (made["files"] | changes).items() if text is not None}
    trusted = {"Publisher": made["trusted"].encode()}
    return signature.verify(made["bundle"].encode(), digests(files), trusted, at=MADE["made_at"])


def public(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def statement(files: dict[str, bytes] = FILES, **predicate) -> dict:
    resources = [
        {"name": name, "algorithm": "sha256", "digest": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    predicate = {
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [".git"]},
        "resources": resources,
    } | predicate
    root = hashlib.sha256(b"".join(bytes.fromhex(known["digest"]) for known in predicate["resources"])).hexdigest()
    return {
        "_type": signature.STATEMENT_TYPE,
        "subject": [{"name": "model", "digest": {"sha256": root}}],
        "predicateType": signature.PREDICATE_TYPE,
        "predicate": predicate,
    }


def bundle(said: dict | bytes, key, material: dict | None = None, *, signed_as=signature.PAYLOAD_TYPE) -> dict:
    """A bundle around a statement, signed with ``key``, and as the library would write it unless told otherwise."""
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    made = key.sign(sign.pae(signed_as, payload), ec.ECDSA(hashes.SHA256()))
    return {
        "mediaType": signature.BUNDLE_TYPE,
        "verificationMaterial": material or {"publicKey": {"hint": hashlib.sha256(public(key)).hexdigest()}},
        "dsseEnvelope": {
            "payload": text(payload),
            "payloadType": signature.PAYLOAD_TYPE,
            "signatures": [{"sig": text(made), "keyid": ""}],
        },
    }


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(P256)


def check(made: dict | bytes, trusted: dict[str, bytes], files: dict[str, bytes] = FILES, **options) -> Signature:
    content = made if isinstance(made, bytes) else json.dumps(made).encode()
    return signature.verify(content, digests(files), trusted, **options)


def refused(result: Signature, said: str) -> None:
    assert not result.good and said in result.detail, result


@pytest.mark.parametrize(
    "name", ["key-p256", "key-p384", "key-p521", "certificate", "ignoring", "with-git", "one-file"]
)
def test_what_the_library_signed_is_good(name):
    """By key on each curve, by certificate, with paths left out, with git's files, and as a single file."""
    result = case(name)
    assert result.good, result
    assert (result.kind, result.signer) == (signature.KIND, "Publisher")


def test_the_key_is_named_as_bundles_name_it():
    """By the SHA-256 of its PEM file."""
    assert case("key-p256").key == sha256(MADE["cases"]["key-p256"]["trusted"].encode())


@pytest.mark.parametrize("name", ["blake2", "blake3", "shards"])
def test_digests_that_the_scan_does_not_make_are_not_checkable(name):
    """Known signer or not, nothing is claimed of them."""
    refused(case(name), "not checkable")


@pytest.mark.parametrize("name", ["key-p256", "certificate"])
def test_any_change_to_the_files_is_named(name):
    """A changed, a removed, an added and a renamed file, by name."""
    refused(case(name, **{"config.json": "{ }"}), "changed since: 'config.json'")
    refused(case(name, empty=None), "signed but missing: 'empty'")
    refused(case(name, **{"evil.pkl": "x"}), "present but not signed: 'evil.pkl'")
    renamed = case(name, **{"sub/folder/more.txt": None, "sub/folder/less.txt": "more"})
    refused(renamed, "signed but missing: 'sub/folder/more.txt'")
    refused(renamed, "present but not signed: 'sub/folder/less.txt'")


def test_what_the_signer_left_out_is_said_and_what_they_listed_is_held_to():
    """Ignored paths reach down, no further, and the report names what is there without a signature."""
    result = case("ignoring", **{"sub/other.txt": "anything"})
    assert result.good and "Left out, as its signer chose: '.git/HEAD', '.gitattributes', 'README.md'" in result.detail
    refused(case("ignoring", **{"submarine.txt": "x"}), "present but not signed: 'submarine.txt'")
    refused(case("ignoring", **{"other/README.md": "x"}), "present but not signed: 'other/README.md'")
    refused(case("with-git", **{".git/HEAD": "other"}), "changed since: '.git/HEAD'")
    assert case("key-p256", **{".git/HEAD": "other"}).good


def test_a_single_file_must_be_the_only_one():
    """Under whatever name; beside another it is not what was signed."""
    assert case("one-file", **{"model.gguf": None, "other.gguf": "one file"}).good
    refused(case("one-file", **{"other.gguf": "x"}), "present but not signed")
    refused(case("one-file", **{"model.gguf": "two files"}), "changed since")


@pytest.mark.parametrize("name", ["key-p256", "certificate"])
def test_one_flipped_bit_anywhere_in_payload_or_signature_is_found(name):
    """Each of a hundred places."""
    made = json.loads(MADE["cases"][name]["bundle"])
    envelope = made["dsseEnvelope"]
    files = {path: content.encode() for path, content in MADE["cases"][name]["files"].items()}
    trusted = {"Publisher": MADE["cases"][name]["trusted"].encode()}
    for holder, field in ((envelope, "payload"), (envelope["signatures"][0], "sig")):
        whole = base64.b64decode(holder[field])
        for place in range(0, len(whole), max(1, len(whole) // 50)):
            holder[field] = text(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert not check(made, trusted, files, at=MADE["made_at"]).good
        holder[field] = text(whole)
    assert check(made, trusted, files, at=MADE["made_at"]).good


def test_the_signature_of_another_model_does_not_fit(key):
    """Both signed by the same key: neither the signature nor the whole bundle can be swapped."""
    ours, theirs = bundle(statement(), key), bundle(statement({"other": b"x"}), key)
    trusted = {"Publisher": public(key)}
    assert check(ours, trusted).good
    refused(check(theirs, trusted), "signed but missing: 'other'")
    theirs["dsseEnvelope"]["payload"] = ours["dsseEnvelope"]["payload"]
    refused(check(theirs, trusted), "does not fit")


def test_signed_by_unknown_is_said_as_such(key):
    """A key that is not in the settings, whatever else it signed, and a bundle that lies about its key."""
    other = ec.generate_private_key(P256)
    result = check(bundle(statement(), other), {"Publisher": public(key)})
    refused(result, "Signed by unknown")
    assert (result.signer, result.key) == ("", sha256(public(other)))
    refused(check(bundle(statement(), other), {}), "Signed by unknown")
    lying = bundle(statement(), other, {"publicKey": {"hint": hashlib.sha256(public(key)).hexdigest()}})
    result = check(lying, {"Publisher": public(key)})
    refused(result, "does not fit the key of 'Publisher'")
    assert result.signer == ""


def test_older_bundles_name_their_key_otherwise_or_not_at_all(key):
    """Up to 0.3 the PEM itself; 0.2 nothing, so that every known key is tried."""
    trusted = {"Other": public(ec.generate_private_key(P256)), "Publisher": public(key)}
    for material in ({"publicKey": {"rawBytes": text(public(key)), "keyDetails": "x"}}, {"publicKey": {}}):
        assert check(bundle(statement(), key, material), trusted).signer == "Publisher"
        refused(check(bundle(statement(), ec.generate_private_key(P256), material), trusted), "")


def test_a_statement_of_version_0_2_lists_its_files_as_subjects(key):
    """Signed over Python's spelling of the bytes, as that version did; other digests in it are not checkable."""
    subjects = [{"name": name, "digest": {"sha256": sha256(content)[7:]}} for name, content in FILES.items()]
    old = {
        "_type": signature.STATEMENT_TYPE, "subject": subjects, "predicateType": signature.PREDICATE_TYPE_0_2,
        "predicate": {"unused": ""},
    }  # fmt: skip
    payload = json.dumps(old).encode()
    made = bundle(old, key, {"publicKey": {}})
    spelt = f"DSSEV1 {len(signature.PAYLOAD_TYPE)} {signature.PAYLOAD_TYPE} {len(payload)} {payload}".encode()
    made["dsseEnvelope"]["signatures"] = [{"sig": text(key.sign(spelt, ec.ECDSA(hashes.SHA256()))), "keyid": None}]
    trusted = {"Publisher": public(key)}
    assert check(made, trusted).good
    refused(check(made, trusted, FILES | {"new": b""}), "present but not signed: 'new'")
    subjects[0]["annotations"] = {"actual_hash_algorithm": "file-sha256-sharded"}
    refused(check(bundle(old, key), trusted), "not checkable")


def test_nothing_signed_as_another_type_counts(key):
    """The payload's type is part of what is signed, and only an in-toto statement about a model's files will do."""
    trusted = {"Publisher": public(key)}
    refused(check(bundle(statement(), key, signed_as="application/json"), trusted), "does not fit")
    other = bundle(statement(), key)
    other["dsseEnvelope"]["payloadType"] = "application/json"
    refused(check(other, trusted), "not an in-toto statement")
    refused(check(bundle(statement() | {"_type": "https://in-toto.io/Statement/v0.1"}, key), trusted), "in-toto")
    refused(check(bundle(statement() | {"predicateType": "https://slsa.dev/provenance/v1"}, key), trusted), "not the")
    refused(
        check(other | {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1"}, trusted), "can be read"
    )


def test_an_envelope_has_exactly_one_signature(key):
    """A second, good or bad, or none at all is refused: readers would differ on which one counts."""
    made = bundle(statement(), key)
    one = made["dsseEnvelope"]["signatures"][0]
    for signatures in ([one, one], [one, {"sig": "AAAA"}], []):
        made["dsseEnvelope"]["signatures"] = signatures
        refused(check(made, {"Publisher": public(key)}), "exactly one")


def test_a_statement_that_contradicts_itself_is_refused(key):
    """A name twice, a root that is not its files', two subjects, no files, digests of another length or algorithm."""
    trusted = {"Publisher": public(key)}
    good = statement()["predicate"]["resources"]
    twice = statement(resources=[*good, good[0]])
    refused(check(bundle(twice, key), trusted), "twice")
    hidden = statement(resources=[*good, good[0] | {"digest": "0" * 64}])
    refused(check(bundle(hidden, key), trusted), "twice")
    refused(check(bundle(statement() | {"subject": twice["subject"]}, key), trusted), "contradicts itself")
    refused(check(bundle(statement() | {"subject": statement()["subject"] * 2}, key), trusted), "contradicts itself")
    refused(check(bundle(statement(resources=[]), key), trusted, {}), "lists no file")
    short = statement(resources=[good[0] | {"digest": good[0]["digest"][:-2]}])
    refused(check(bundle(short, key), trusted), "no SHA-256 digest")
    mixed = statement(resources=[good[0] | {"algorithm": "md5"}])
    refused(check(bundle(mixed, key), trusted), "not checkable")


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "sub//more.txt", "./config.json", "", "sub/.."])
def test_a_name_that_leaves_the_model_is_refused(key, name):
    """Only plain paths inside it have a digest here."""
    refused(check(bundle(statement(FILES | {name: b""}), key), {"Publisher": public(key)}), "no path inside a model")


def test_a_signer_who_leaves_everything_out_has_signed_nothing_else(key):
    """To ignore the folder itself would let any file in."""
    serialization = {"method": "files", "hash_type": "sha256", "ignore_paths": ["."]}
    made = bundle(statement(serialization=serialization), key)
    refused(check(made, {"Publisher": public(key)}, FILES | {"evil.pkl": b""}), "whole folder")


# Certificates


class Authority:
    """A CA with an intermediate, and publishers under it."""

    def __init__(self, **between):
        self.root_key, self.between_key, self.key = (ec.generate_private_key(P256) for _ in range(3))
        self.root = maker.certificate("Root", self.root_key, None, self.root_key, ca=True)
        options = {"ca": True} | between
        self.between = maker.certificate("Between", self.between_key, self.root, self.root_key, **options)
        self.trusted = {"Our CA": self.root.public_bytes(Encoding.PEM)}

    def check(self, *, said: dict | None = None, chain: list | None = None, at: float | None = None, **leaf):
        """What comes of a model signed with a certificate made as ``leaf`` says."""
        signer = maker.certificate("Publisher", self.key, self.between, self.between_key, **({"ca": False} | leaf))
        known = [signer, self.between] if chain is None else [signer, *chain]
        certificates = [{"rawBytes": text(one.public_bytes(Encoding.DER))} for one in known]
        material = {"x509CertificateChain": {"certificates": certificates}}
        return check(bundle(said or statement(), self.key, material), self.trusted, at=at)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_a_certificate_under_a_trusted_ca_is_good(authority):
    """The CA's name in the settings is the signer; the certificate's own name is said beside it."""
    result = authority.check()
    assert result.good and result.signer == "Our CA" and "'CN=Publisher'" in result.detail
    assert authority.check(chain=[authority.between, authority.root]).good


def test_a_certificate_is_known_through_its_chain_alone(authority):
    """Without the intermediate, or under another CA of the same name, it is signed by unknown."""
    refused(authority.check(chain=[]), "Signed by unknown")
    other = Authority()
    refused(authority.check(chain=[other.between]), "Signed by unknown")
    refused(authority.check(chain=[authority.between] * 8), "must have 1 to 8")


def test_an_expired_certificate_is_refused(authority):
    """Nothing in a bundle proves when it was signed; the same holds before it begins, and for those above it."""
    refused(authority.check(days=1), "nothing proves that the signature was made then")
    assert authority.check(days=1, at=time.time() - 9.5 * 86_400).good
    refused(authority.check(at=time.time() - 11 * 86_400), "nothing proves")
    refused(Authority(days=1).check(), "nothing proves")
    refused(authority.check(days=90_000, at=time.time() + 40_000 * 86_400), "")


def test_an_expired_root_vouches_for_nobody():
    """Its place in the settings does not make it valid."""
    authority = Authority()
    authority.root = maker.certificate("Root", authority.root_key, None, authority.root_key, ca=True, days=1)
    authority.trusted = {"Our CA": authority.root.public_bytes(Encoding.PEM)}
    refused(authority.check(), "no CA in your settings that is valid now")


def test_only_a_ca_can_vouch():
    """An intermediate that is no CA, that may not sign certificates, or that is for web servers."""
    refused(Authority(ca=False).check(), "Signed by unknown")
    refused(Authority(signs=False).check(), "Signed by unknown")
    web = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    refused(Authority(extra=(web,)).check(), "Signed by unknown")


def test_a_certificate_that_is_not_for_signing_is_refused(authority):
    """Without digitalSignature, for web servers alone, or with a critical extension that nobody knows."""
    refused(authority.check(signs=False), "is not for signing")
    refused(authority.check(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), "is not for signing")
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    refused(authority.check(extra=(odd,)), "no CA in your settings")
    assert authority.check(purposes=()).good


def test_a_certificate_signs_with_its_own_key_alone(authority):
    """A publisher's certificate, taken from their bundle, is of no use to anybody else."""
    thief = ec.generate_private_key(P256)
    signer = maker.certificate("Publisher", authority.key, authority.between, authority.between_key, ca=False)
    certificates = [{"rawBytes": text(one.public_bytes(Encoding.DER))} for one in (signer, authority.between)]
    made = bundle(statement(), thief, {"x509CertificateChain": {"certificates": certificates}})
    refused(check(made, authority.trusted), "does not fit the certificate")


def test_a_certificate_that_breaks_the_rules_is_refused_and_not_warned_of(authority):
    """A serial number of zero, which cryptography still reads: an answer, and no warning on the way."""
    signer = maker.certificate("Publisher", authority.key, authority.between, authority.between_key, ca=False)
    der = signer.public_bytes(Encoding.DER)
    serial = signer.serial_number.to_bytes((signer.serial_number.bit_length() + 7) // 8, "big")
    zero = der.replace(serial, bytes(len(serial)))
    assert zero != der
    material = {"x509CertificateChain": {"certificates": [{"rawBytes": text(zero)}]}}
    refused(check(bundle(statement(), authority.key, material), authority.trusted), "cannot be read")


def test_a_keyless_signature_cannot_be_checked_offline(authority, key):
    """Even where its certificate stands under a CA in the settings."""
    signer = maker.certificate("Publisher", authority.key, authority.between, authority.between_key, ca=False)
    raw = {"rawBytes": text(signer.public_bytes(Encoding.DER))}
    keyless = bundle(statement(), authority.key, {"certificate": raw, "tlogEntries": [{"logIndex": "1"}]})
    refused(check(keyless, authority.trusted), "cannot be checked offline against your settings")
    both = bundle(statement(), key, {"certificate": raw, "publicKey": {"hint": "0" * 64}})
    refused(check(both, authority.trusted), "exactly one way")


# The settings, and hostile bytes


def test_settings_that_nothing_can_be_checked_with_are_named(authority, key):
    """A private key, a key of another kind or curve, a certificate that is no CA's, and no PEM at all."""
    leaf = maker.certificate("Publisher", authority.key, authority.between, authority.between_key, ca=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    bad = {
        "private key": private,
        "no ECDSA key": public(ed25519.Ed25519PrivateKey.generate()),
        "P-256, P-384": public(ec.generate_private_key(ec.SECP256K1())),
        "not a CA's": leaf.public_bytes(Encoding.PEM),
        "cannot be used": b"no PEM",
        "signer 'empty'": b"",
    }
    for said, pem in bad.items():
        with pytest.raises(BadConfig, match=said) as caught:
            check(bundle(statement(), key), {"empty": pem})
        assert private.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "attack",
    [
        b"", b"{}", b"null", b"\xff\xfe", b"[" * 1_000_000, b'{"a":' * 100_000, b'{"mediaType":1}',
        b'{"mediaType":"' + b"x" * 1_000_000, b"{" + b'"x":"y",' * 100_000 + b'"z":1}', b" " * (16 << 20) + b"{}",
    ],
    ids=range(10),
)  # fmt: skip
def test_hostile_bytes_are_a_refusal_like_any_other(attack):
    """No bundle, endless nesting, a megabyte of name, more than is read: an answer, and a short one."""
    result = check(attack, {})
    assert not result.good and len(result.detail) < 400


def test_hostile_fields_are_a_refusal_like_any_other(key, authority):
    """A payload that is no JSON, deep inside or not; certificates and signatures that are none."""
    trusted = {"Publisher": public(key)} | authority.trusted
    for payload in (b"", b"[]", b"[" * 1_000_000, b'{"predicate":' * 100_000, b"\xff", json.dumps(["x"] * 9).encode()):
        refused(check(bundle(payload, key), trusted), "cannot be read")
    for raw in ("", "AAAA", "!", text(b"\x30\x82" + b"\xff" * 1_000)):
        material = {"x509CertificateChain": {"certificates": [{"rawBytes": raw}]}}
        refused(check(bundle(statement(), key, material), trusted), "A certificate")
    made = bundle(statement(), key)
    for sig in ("", "AAAA", "!", "A" * 1_000_000):
        made["dsseEnvelope"]["signatures"] = [{"sig": sig}]
        assert not check(made, trusted).good
    for hint in ("", "x" * 1_000_000, "\x1b[31m"):
        result = check(bundle(statement(), key, {"publicKey": {"hint": hint}}), trusted)
        refused(result, "Signed by unknown")
        assert len(result.detail) < 400 and "\x1b" not in result.detail


def test_names_cannot_write_on_a_terminal(key):
    """Control characters in a path are spelt out in the report, and long lists are cut."""
    files = FILES | {f"\x1b[2J{number}" + "x" * 1_000: b"" for number in range(1_000)}
    result = check(bundle(statement(), key), {"Publisher": public(key)}, files)
    assert "\x1b" not in result.detail and "and 997 more" in result.detail and len(result.detail) < 600


def test_a_model_of_twenty_thousand_files_is_checked_in_a_moment(key):
    """Also where ten thousand paths are left out: time grows with the number of files alone."""
    files = {f"a/b/c/{number}": b"" for number in range(20_000)}
    serialization = {"method": "files", "hash_type": "sha256", "ignore_paths": [f"i{n}" for n in range(10_000)]}
    made = json.dumps(bundle(statement(files, serialization=serialization), key)).encode()
    many = digests(files | {f"i{number}/x": b"" for number in range(10_000)})
    started = time.process_time()
    assert signature.verify(made, many, {"Publisher": public(key)}).good
    assert time.process_time() - started < 3


def test_what_the_library_makes_today_is_good_too(tmp_path):
    """The same models, signed anew by the library itself."""
    made = maker.make(tmp_path)
    for name, known in made["cases"].items():
        files = {path: content.encode() for path, content in known["files"].items()}
        result = signature.verify(known["bundle"].encode(), digests(files), {"It": known["trusted"].encode()})
        assert result.good != (name in ("blake2", "blake3", "shards")), (name, result)
