"""Signatures that publishers put on models: OpenSSF model-signing bundles, checked against your settings alone.

Format: OpenSSF Model Signing 1.0 as the library `model-signing` 0.2 to 1.1 writes it (sigstore/model-transparency):
a Sigstore bundle 0.3 (JSON) with a DSSE 1.0 envelope around an in-toto statement 1, which lists every file of the
model with its digest. The signer is known by a public key (ECDSA on P-256, P-384 or P-521, as the library has it) or
by a certificate under a CA. No file of the model is read here: the digests are those that the scan made.

Stricter than the library: exactly one signature in the envelope; certificates must be valid now, not when the
signing certificate began (nothing in a bundle proves its time); a certificate that says what else it is for must name
code signing; a name listed twice, or one that leaves the model's folder, is refused; paths are only left out where
the signed statement says so.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from freehold import sign
from freehold.errors import BadConfig
from freehold.types import Signature

KIND = "openssf-model-signing"
MAX_BUNDLE = 16 << 20  # bytes; a bundle has some 200 for each file
MAX_CHAIN = 8
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PREDICATE_TYPE_0_2 = "https://model_signing/Digests/v0.1"
GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")  # left out where a statement has no list of its own

_HASHES = {"secp256r1": hashes.SHA256, "secp384r1": hashes.SHA384, "secp521r1": hashes.SHA512}
_BAD_X509 = (
    ValueError, UnsupportedAlgorithm, CryptographyDeprecationWarning, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip
_CODE_SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


class Unproven(Exception):
    """The signature shows nothing; the message says why, as a sentence, and ``key`` which key it names."""

    def __init__(self, detail: str, key: str = ""):
        super().__init__(detail)
        self.detail, self.key = detail, key


def verify(
    bundle: bytes,
    digests: Mapping[str, str],
    trusted: Mapping[str, bytes],
    *,
    file: str = "model.sig",
    at: float | None = None,
) -> Signature:
    """Whether somebody in ``trusted`` signed exactly these files.

    ``digests`` has the SHA-256 of every file of the model by its path; ``file`` is the bundle's own path among them.
    ``trusted`` has PEM by the name of whom it stands for: a public key, or CA certificates. ``at`` is the time at
    which certificates must be valid, now by default. ``key`` in the result is the SHA-256 of the public key's PEM,
    which is how bundles name keys (for an OpenSSL-made file, ``sha256sum key.pub``).

    The result is good only where the signer is known, the signature fits, and every file is accounted for. Whatever
    is wrong with the bundle is its ``detail``, not an error.

    Raises:
        BadConfig: something in ``trusted`` is no key or CA certificate that a model signature can be checked with.
    """
    trust = _trust(trusted)
    try:
        sealed = _read(bundle)
        signer, how, key = _authenticate(sealed, trust, datetime.fromtimestamp(time.time() if at is None else at, UTC))
    except Unproven as fault:
        return Signature(KIND, fault.key, "", False, fault.detail)
    try:
        said = _compare(_statement(sign.decode(sealed.dsse_envelope.payload)), digests, file)
    except Unproven as fault:
        return Signature(KIND, key, signer, False, f"Signed by {signer!r}, but {fault.detail}")
    return Signature(KIND, key, signer, True, f"Signed by {signer!r} with {how}: {said}")


# The bundle


class RawBytes(Struct, frozen=True, rename="camel"):
    """A certificate, as DER in base64."""

    raw_bytes: str


class Chain(Struct, frozen=True):
    """Certificates, the signer's first."""

    certificates: list[RawBytes]


class KeyHint(Struct, frozen=True, rename="camel"):
    """Which public key: by the SHA-256 of its PEM or, up to 0.3, by the PEM itself in base64."""

    hint: str | None = None
    raw_bytes: str | None = None


class Material(Struct, frozen=True, rename="camel"):
    """How the signer is known. ``certificate`` and transparency log entries belong to keyless signatures."""

    public_key: KeyHint | None = None
    x509_certificate_chain: Chain | None = None
    certificate: RawBytes | None = None
    tlog_entries: list[msgspec.Raw] | None = None


class Bundle(Struct, frozen=True, rename="camel"):
    """A Sigstore bundle with an envelope in it."""

    media_type: str
    verification_material: Material
    dsse_envelope: sign.Envelope


def _read(bundle: bytes) -> Bundle:
    if len(bundle) > MAX_BUNDLE:
        raise Unproven(f"The bundle has {len(bundle)} bytes; the most that is read is {MAX_BUNDLE}.")
    sealed = _decode(bundle, Bundle, "The bundle")
    if sealed.media_type != BUNDLE_TYPE:
        raise Unproven(f"The bundle is a {sealed.media_type!r:.100}; only {BUNDLE_TYPE!r} can be read.")
    envelope = sealed.dsse_envelope
    if len(envelope.signatures) != 1:
        raise Unproven(f"The envelope has {len(envelope.signatures)} signatures, and must have exactly one.")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Unproven(f"The envelope holds {envelope.payload_type!r:.100}, not an in-toto statement.")
    return sealed


def _decode(content: bytes | msgspec.Raw, kind: type, what: str):
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise Unproven(f"{what} cannot be read: {error}.") from None


def _base64(text: str, what: str) -> bytes:
    try:
        return sign.decode(text)
    except ValueError as error:
        raise Unproven(f"{what} is no base64: {error}.") from None


# Who signed


class Trust(Struct, frozen=True):
    """The settings, read: public keys by fingerprint with their owners' names, and CA certificates by name."""

    keys: dict[str, tuple[str, ec.EllipticCurvePublicKey]]
    authorities: dict[str, list[x509.Certificate]]


def _trust(trusted: Mapping[str, bytes]) -> Trust:
    trust = Trust({}, {})
    for name, pem in trusted.items():
        try:
            if b"PRIVATE KEY" in pem:
                raise ValueError("it is a private key, which belongs to its owner alone; the public one is needed")
            if b"BEGIN CERTIFICATE" in pem:
                trust.authorities[name] = [_authority(known) for known in x509.load_pem_x509_certificates(pem)]
            else:
                key = _supported(load_pem_public_key(pem))
                trust.keys.setdefault(_fingerprint(key), (name, key))
        except _BAD_X509 as error:
            raise BadConfig(
                f"What is given for the signer {name!r} cannot be used: {error}.",
                hint="Give an ECDSA public key (P-256, P-384 or P-521) or a CA certificate, in PEM.",
            ) from None
    return trust


def _authority(certificate: x509.Certificate) -> x509.Certificate:
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise ValueError(f"the certificate of {certificate.subject.rfc4514_string()!r} is not a CA's")
    return certificate


def _supported(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise ValueError("it is no ECDSA key on P-256, P-384 or P-521, and models are signed with no other")
    return key


def _fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(pem).hexdigest()


def _authenticate(sealed: Bundle, trust: Trust, at: datetime) -> tuple[str, str, str]:
    """The signer's name, how they are known, and their key's fingerprint; the payload is then theirs."""
    material = sealed.verification_material
    ways = (material.public_key, material.x509_certificate_chain, material.certificate)
    if sum(way is not None for way in ways) != 1:
        raise Unproven("The bundle must say in exactly one way who signed it: by a key or by a certificate.")
    if material.certificate or material.tlog_entries:
        raise Unproven(
            "The signature is keyless (Sigstore): it cannot be checked offline against your settings, because that "
            "takes the public certificate authority and transparency log. Ask the publisher to sign with a key."
        )
    if material.public_key:
        return _by_key(sealed, material.public_key, trust)
    return _by_certificate(sealed, material.x509_certificate_chain, trust, at)


def _by_key(sealed: Bundle, hint: KeyHint, trust: Trust) -> tuple[str, str, str]:
    if hint.hint is None and hint.raw_bytes is None:  # 0.2 names no key: try all
        fitting = (found for found, (_, key) in trust.keys.items() if _fits(key, sealed))
        if found := next(fitting, ""):
            return trust.keys[found][0], f"the key {found}", found
        raise Unproven("Signed by unknown, or changed: none of the keys in your settings made this signature.")
    named = hint.hint or hashlib.sha256(_base64(hint.raw_bytes or "", "The public key")).hexdigest()
    found = f"sha256:{named:.64}"
    if found not in trust.keys:
        raise Unproven(f"Signed by unknown: the key {found!r} is not in your settings, so nothing was checked.", found)
    name, key = trust.keys[found]
    if not _fits(key, sealed):
        raise Unproven(f"The signature does not fit the key of {name!r} that it names: changed or forged.", found)
    return name, f"the key {found}", found


def _by_certificate(sealed: Bundle, chain: Chain, trust: Trust, at: datetime) -> tuple[str, str, str]:
    if not 1 <= len(chain.certificates) <= MAX_CHAIN:
        raise Unproven(f"The chain has {len(chain.certificates)} certificates, and must have 1 to {MAX_CHAIN}.")
    try:
        ders = [_base64(raw.raw_bytes, "A certificate") for raw in chain.certificates]
        with warnings.catch_warnings():  # what cryptography only warns of breaks a rule of RFC 5280
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            leaf, *between = [x509.load_der_x509_certificate(der) for der in ders]
        key = _supported(leaf.public_key())
        subject = leaf.subject.rfc4514_string()[:200]
        usable = _may_sign(leaf)
    except _BAD_X509 as error:
        raise Unproven(f"A certificate in the bundle cannot be read: {error}.") from None
    found = _fingerprint(key)
    if not _fits(key, sealed):
        raise Unproven("The signature does not fit the certificate that it came with: changed or forged.", found)
    name = next((name for name, roots in trust.authorities.items() if _vouches(roots, leaf, between, at)), None)
    if name is None:
        raise Unproven(_nobody(leaf, between, subject, at), found)
    if not usable:
        raise Unproven(f"The certificate of {subject!r}, under {name!r}, is not for signing.", found)
    return name, f"the certificate of {subject!r}", found


def _fits(key: ec.EllipticCurvePublicKey, sealed: Bundle) -> bool:
    signature = _base64(sealed.dsse_envelope.signatures[0].sig, "The signature")
    payload = _base64(sealed.dsse_envelope.payload, "The payload")
    fitting = _HASHES[key.curve.name]()
    if _made(key, signature, sign.pae(PAYLOAD_TYPE, payload), fitting):
        return True
    # 0.2 signed Python's spelling of the bytes, under a prefix of its own, and certificates' always with SHA-256.
    spelt = f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()
    return _made(key, signature, spelt, fitting) or _made(key, signature, spelt, hashes.SHA256())


def _made(key: ec.EllipticCurvePublicKey, signature: bytes, content: bytes, hasher: hashes.HashAlgorithm) -> bool:
    try:
        key.verify(signature, content, ec.ECDSA(hasher))
    except InvalidSignature:
        return False
    return True


def _may_sign(leaf: x509.Certificate) -> bool:
    """RFC 5280: a usage that is not stated is not restricted; here one of the two must be stated."""
    stated = {type(extension.value): extension.value for extension in leaf.extensions}
    usage, extended = stated.get(x509.KeyUsage), stated.get(x509.ExtendedKeyUsage)
    if extended is not None and not any(oid in _CODE_SIGNING for oid in extended):
        return False
    return usage.digital_signature if usage is not None else extended is not None


def _vouches(
    roots: list[x509.Certificate], leaf: x509.Certificate, between: list[x509.Certificate], at: datetime
) -> bool:
    """Whether a chain of CA certificates, all valid at that time, leads from the leaf to one of the roots."""
    policy = verification.PolicyBuilder().store(verification.Store(roots)).time(at).max_chain_depth(MAX_CHAIN)
    policy = policy.extension_policies(ca_policy=_ca_policy(), ee_policy=verification.ExtensionPolicy.permit_all())
    try:
        policy.build_client_verifier().verify(leaf, between)
    except (verification.VerificationError, *_BAD_X509):
        return False
    return True


def _ca_policy() -> verification.ExtensionPolicy:
    """What a CA's certificate must say; other extensions that it calls critical are refused."""
    agnostic, critical = verification.Criticality.AGNOSTIC, verification.Criticality.CRITICAL
    policy = verification.ExtensionPolicy.webpki_defaults_ca()
    policy = policy.require_present(x509.BasicConstraints, critical, _is_ca)
    policy = policy.may_be_present(x509.KeyUsage, agnostic, _signs_certificates)
    policy = policy.may_be_present(x509.ExtendedKeyUsage, agnostic, _for_code)
    policy = policy.may_be_present(x509.SubjectKeyIdentifier, agnostic, None)
    return policy.may_be_present(x509.AuthorityKeyIdentifier, agnostic, None)


def _is_ca(_: verification.Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("not a CA")


def _signs_certificates(_: verification.Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("not for signing certificates")


def _for_code(_: verification.Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and not any(oid in _CODE_SIGNING for oid in usage):
        raise ValueError("not for code signing")


def _nobody(leaf: x509.Certificate, between: list[x509.Certificate], subject: str, at: datetime) -> str:
    for certificate in (leaf, *between):
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            span = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
            return (
                f"A certificate of the bundle is valid from {span} alone, and nothing proves that the signature was "
                "made then. Ask the publisher to sign anew, or for their public key."
            )
    return (
        f"Signed by unknown: no CA in your settings that is valid now vouches for the certificate, which calls "
        f"itself {subject!r}, as anybody's could."
    )


# What was signed


class Subject(Struct, frozen=True):
    """What a statement is about. In 0.2 the files themselves, with their digests by algorithm."""

    name: str
    digest: dict[str, str]
    annotations: dict[str, str] = {}


class Statement(Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """An in-toto statement."""

    type: str
    subject: list[Subject]
    predicate_type: str
    predicate: msgspec.Raw = msgspec.Raw()


class Serialization(Struct, frozen=True):
    """How the model was cut into resources and hashed."""

    method: str
    hash_type: str
    ignore_paths: list[str] | None = None


class Resource(Struct, frozen=True):
    """One file of the model and its digest, in hexadecimal."""

    name: str
    algorithm: str
    digest: str


class Predicate(Struct, frozen=True):
    """What version 1.0 says. Other fields are to be ignored, by its specification."""

    serialization: Serialization
    resources: list[Resource]


class Covered(Struct, frozen=True):
    """The files that were signed, with their SHA-256, and the paths that were left out."""

    files: dict[str, str]
    ignored: frozenset[str]


def _statement(payload: bytes) -> Covered:
    statement = _decode(payload, Statement, "the statement")
    if statement.type != STATEMENT_TYPE:
        raise Unproven(f"it signed a {statement.type!r:.100}, not an in-toto statement that can be read.")
    if statement.predicate_type == PREDICATE_TYPE:
        return _version_1(statement)
    if statement.predicate_type == PREDICATE_TYPE_0_2:
        return _version_0_2(statement)
    raise Unproven(f"it signed a {statement.predicate_type!r:.100}, not the files of a model.")


def _version_1(statement: Statement) -> Covered:
    predicate = _decode(statement.predicate, Predicate, "the predicate")
    how = predicate.serialization
    if how.method != "files":
        raise Unproven(f"not checkable: it signed {how.method!r:.100}, and only whole files have digests here.")
    other = {how.hash_type, *(resource.algorithm for resource in predicate.resources)} - {"sha256"}
    if other:
        raise Unproven(f"not checkable: it signed {min(other)!r:.100} digests, and only SHA-256 ones are made here.")
    files = _unique((resource.name, resource.digest) for resource in predicate.resources)
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in files.values())).hexdigest()
    if len(statement.subject) != 1 or statement.subject[0].digest != {"sha256": root}:
        raise Unproven("the statement contradicts itself: its subject is not the digest of its files.")
    ignored = GIT_PATHS if how.ignore_paths is None else how.ignore_paths
    return Covered(files, frozenset(ignored))


def _version_0_2(statement: Statement) -> Covered:
    for subject in statement.subject:
        if subject.annotations.get("actual_hash_algorithm", "file-sha256") != "file-sha256":
            raise Unproven("not checkable: it signed other digests than SHA-256 ones of whole files.")
    files = _unique((subject.name, subject.digest.get("sha256", "")) for subject in statement.subject)
    return Covered(files, frozenset(GIT_PATHS))


def _unique(listed: Iterable[tuple[str, str]]) -> dict[str, str]:
    files: dict[str, str] = {}
    for name, digest in listed:
        if name in files:
            raise Unproven(f"it lists {name!r:.100} twice.")
        if name != "." and not all(part not in ("", ".", "..") for part in name.split("/")):
            raise Unproven(f"it lists {name!r:.100}, which is no path inside a model.")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise Unproven(f"it has no SHA-256 digest for {name!r:.100}.")
        files[name] = digest
    if not files:
        raise Unproven("it lists no file.")
    return files


def _compare(signed: Covered, digests: Mapping[str, str], file: str) -> str:
    """A sentence on how the files are as they were signed; Unproven where they are not."""
    present = {path: digest.removeprefix("sha256:") for path, digest in digests.items() if path != file}
    files = signed.files
    if list(files) == ["."] and len(present) == 1:  # the model is one file, and was signed as that
        files = dict(zip(present, files.values(), strict=True))
    if "." in signed.ignored:
        raise Unproven("it leaves the whole folder out, so that it says nothing of other files than it lists.")
    loose = present.keys() - files.keys()
    left_out = {path for path in loose if _under(path, signed.ignored)}
    faults = (
        ("changed since", [path for path in files if path in present and present[path] != files[path]]),
        ("signed but missing", files.keys() - present.keys()),
        ("present but not signed", loose - left_out),
    )
    wrong = [f"{said}: {_names(paths)}" for said, paths in faults if paths]
    if wrong:
        raise Unproven("; ".join(wrong) + ".")
    count = "its one file is" if len(files) == 1 else f"all {len(files)} files are"
    rest = f" Left out, as its signer chose: {_names(left_out)}." if left_out else ""
    return f"{count} as signed.{rest}"


def _under(path: str, ignored: frozenset[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:end]) in ignored for end in range(1, len(parts) + 1))


def _names(paths: Iterable[str]) -> str:
    """The first few, spelt so that no character of a name acts on a terminal."""
    ordered = sorted(paths)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(f"{path!r:.100}" for path in ordered[:3]) + more
