"""Findings decide: a quarantined file is admitted to the vault, or refused with reasons."""

from __future__ import annotations

from freehold.errors import BadModel
from freehold.ledger import Ledger
from freehold.scan import gguf
from freehold.types import Acquired, Manifest
from freehold.vault import Vault


def admit(acquired: Acquired, vault: Vault, ledger: Ledger, *, actor: str, licence: str = "") -> Manifest:
    """Judge the file and take it into the vault.

    Raises:
        BadModel: it was refused; the message holds every reason. The vault is as it was.
    """
    header, findings = gguf.scan(acquired.file)
    if findings or header is None:
        reasons = " ".join(f"{found.meaning} [{found.rule}, {found.where}]" for found in findings)
        raise BadModel(
            f"{acquired.source} was refused: {reasons}",
            hint=" ".join(dict.fromkeys(found.remedy for found in findings)) + " Nothing was kept.",
        )
    manifest = Manifest(
        name=acquired.name,
        digest=acquired.digest,
        size=acquired.size,
        format="gguf",
        source=acquired.source,
        pinned=acquired.pinned,
        architecture=header.architecture,
        context=header.context,
        licence=licence or header.licence,
    )
    manifest = vault.put(acquired.file, manifest)
    detail = {"digest": manifest.digest, "source": manifest.source, "pinned": manifest.pinned}
    ledger.record("model.admitted", manifest.name, actor=actor, detail=detail)
    return manifest
