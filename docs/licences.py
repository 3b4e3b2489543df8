"""Make src/freehold/licence/licences.json anew from a folder of licence texts: ``python docs/licences.py FOLDER``.

Each text is a file ``ID.txt``, or ``ID@anything.txt`` where one licence is going about in several wordings; ID is one
of `freehold.licence.KNOWN`. In a text, ``<<optional>>`` and ``<<required>>`` begin what a copy may leave out and what
it may not, and ``<<gap 12>>`` is a blank that a copy fills with up to 12 words of its own. Only hashes of sentences go
into the table, never the texts. A licence that the folder lacks keeps the row that it has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from freehold.licence import KNOWN, words

TABLE = Path(__file__).parent.parent / "src/freehold/licence/licences.json"


def main(folder: Path) -> None:
    """Read the folder and write the table, one wording a line."""
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for path in sorted(folder.glob("*.txt")):
        if path.stem.partition("@")[0] not in KNOWN:
            sys.exit(f"{path.name}: there is no licence of this name in freehold.licence.KNOWN.")
        rows[path.stem] = words.pack(words.pieces(path.read_text(encoding="utf-8")))
    lines = [f"{json.dumps(name)}: {json.dumps(rows[name])}" for name in sorted(rows)]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(rows)} wordings of {len({name.partition('@')[0] for name in rows})} licences.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
