"""The vault: a content-addressed store of admitted models, an OCI image layout on disk.

Formats: OCI image layout 1.0.0 (``oci-layout``, ``index.json``, ``blobs/sha256/``) with the media types of
the CNCF ModelPack specification, so that any tool that reads ``oci:`` folders can read the vault.
"""

from freehold.disk import hash_file
from freehold.vault.layout import RECORD_TYPE
from freehold.vault.vault import SERVED, Vault

__all__ = ["RECORD_TYPE", "SERVED", "Vault", "hash_file"]
