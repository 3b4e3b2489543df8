"""Make model_signing.json anew: small models signed by the real OpenSSF library.

The library and what it needs are large, so the suite keeps what it made:

    python -m venv throw-away
    throw-away/bin/pip install model-signing==1.1.1 pyOpenSSL
    throw-away/bin/python tests/assets/sign_models.py

The private keys are forgotten. Certificates are valid for a hundred years.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FILES = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "empty": "",
    "sub/folder/more.txt": "more",
    "README.md": "read me",
    ".gitattributes": "* text",
    ".git/HEAD": "head",
}
CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}


def main() -> None:
    """Sign one model in every way and write what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder))
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(made, indent=1) + "\n")


def make(work: Path) -> dict:
    """The signed models: for each case the bundle, the PEM to trust, and the files by their text."""
    from model_signing import hashing

    cases = {}
    for name, curve in CURVES.items():
        cases[f"key-{name}"] = _by_key(work / name, curve, hashing.Config(), FILES)
    ignoring = hashing.Config().set_ignored_paths(paths=["README.md", "sub"])
    cases["ignoring"] = _by_key(work / "ignoring", CURVES["p256"], ignoring, FILES)
    everything = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    cases["with-git"] = _by_key(work / "with-git", CURVES["p256"], everything, FILES)
    for algorithm in ("blake2", "blake3"):
        config = hashing.Config().use_file_serialization(hashing_algorithm=algorithm)
        cases[algorithm] = _by_key(work / algorithm, CURVES["p256"], config, FILES)
    shards = hashing.Config().use_shard_serialization(shard_size=4)
    cases["shards"] = _by_key(work / "shards", CURVES["p256"], shards, FILES)
    cases["one-file"] = _one_file(work / "one")
    cases["certificate"] = _by_certificate(work / "certificate")
    return {"made_at": int(time.time()), "cases": cases}


def _by_key(folder: Path, curve: ec.EllipticCurve, config: object, files: dict[str, str]) -> dict:
    from model_signing import signing

    model, key = _model(folder, files), ec.generate_private_key(curve)
    signer = signing.Config().set_hashing_config(config)
    signer = signer.use_elliptic_key_signer(private_key=_write(folder / "key.pem", _private(key)))
    signer.sign(model, model / "model.sig")
    return _case(model / "model.sig", _public(key), files)


def _one_file(folder: Path) -> dict:
    from model_signing import signing

    key = ec.generate_private_key(CURVES["p256"])
    model = _model(folder, {"model.gguf": "one file"}) / "model.gguf"
    signer = signing.Config().use_elliptic_key_signer(private_key=_write(folder / "key.pem", _private(key)))
    signer.sign(model, folder / "model.sig")
    return _case(folder / "model.sig", _public(key), {"model.gguf": "one file"})


def _by_certificate(folder: Path) -> dict:
    from model_signing import signing

    root_key, between_key, key = (ec.generate_private_key(CURVES["p384"]) for _ in range(3))
    root = certificate("Test root", root_key, None, root_key, ca=True)
    between = certificate("Test intermediate", between_key, root, root_key, ca=True)
    leaf = certificate("Test publisher", key, between, between_key, ca=False)
    model = _model(folder, FILES)
    signer = signing.Config().use_certificate_signer(
        private_key=_write(folder / "key.pem", _private(key)),
        signing_certificate=_write(folder / "leaf.pem", leaf.public_bytes(Encoding.PEM)),
        certificate_chain=[_write(folder / "between.pem", between.public_bytes(Encoding.PEM))],
    )
    signer.sign(model, model / "model.sig")
    return _case(model / "model.sig", root.public_bytes(Encoding.PEM), FILES)


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, signer: ec.EllipticCurvePrivateKey,
    *, ca: bool, signs: bool = True, purposes: tuple = (ExtendedKeyUsageOID.CODE_SIGNING,), days: int = 36_500,
    extra: tuple = (),
) -> x509.Certificate:  # fmt: skip
    """A certificate for ``key``: a CA's, or a publisher's; ``signs`` is its right to sign what it is for."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) - timedelta(days=10)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
         "decipher_only"), False,
    )  # fmt: skip
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer.subject if issuer else subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    usage |= {"key_cert_sign": ca and signs, "digital_signature": not ca and signs}
    if not signs and not ca:
        usage["key_agreement"] = True
    builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    if purposes and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    for extension in extra:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(signer, hashes.SHA384())


def _case(bundle: Path, trusted: bytes, files: dict[str, str]) -> dict:
    return {"bundle": bundle.read_text(), "trusted": trusted.decode(), "files": files}


def _model(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        _write(folder / "model" / name, text.encode())
    return folder / "model"


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).parent.resolve()))  # this file has the library's name
    main()
