"""The dossier of one switch: evidence in, a document out (`compose`); the document as a page, as Markdown or as JSON,
signed (`write`); and the check of such a file, offline (`check`). Pure: nothing here reads a home."""

from freehold.dossier.chapters import compose
from freehold.dossier.compare import figures as differences
from freehold.dossier.say import brief
from freehold.dossier.signed import FORMS, TYPE, Checked, check, write

__all__ = ["FORMS", "TYPE", "Checked", "brief", "check", "compose", "differences", "write"]
