"""What a pickle may be blocked or held for; the names that it may import are `globals.py`'s."""

from __future__ import annotations

from freehold.scan.base import ASK, BLOCK, FETCH_AGAIN, HOLD, Rule

MALFORMED = Rule(
    "pickle.malformed", BLOCK, "The pickle breaks a rule of its format.", FETCH_AGAIN, "Python, Lib/pickletools.py"
)
FRAME = Rule(
    "pickle.frame", BLOCK, "A frame does not begin and end where instructions do, so readers disagree on the program.",
    "Do not load it. " + ASK, "PEP 3154; cpython issue 154848",
)  # fmt: skip
HIDDEN = Rule(
    "pickle.hidden", BLOCK, "What it imports is named by something that is not plain text, which hides the name.",
    "Do not load it. " + ASK, "Python, Lib/pickletools.py: STACK_GLOBAL",
)  # fmt: skip
CALL = Rule(
    "pickle.call", BLOCK, "A name of the list is used as no sound file uses it.", "Do not load it. " + ASK,
    "Freehold: what a pickle may call is an allow-list, with its arguments",
)  # fmt: skip
EXTENSION = Rule(
    "pickle.extension", BLOCK, "It imports by a number that only the loading program can resolve.",
    "Do not load it. " + ASK, "Python, Lib/copyreg.py: extension registry",
)  # fmt: skip
PERSISTENT = Rule(
    "pickle.persistent", HOLD, "It refers to something outside of itself in a form that is not PyTorch's.", ASK,
    "Python's manual, pickle: persistence of external objects",
)  # fmt: skip
BUFFER = Rule(
    "pickle.buffer", HOLD, "It refers to buffers that travel apart from it.", ASK, "PEP 574",
)  # fmt: skip
PICKLE_BOMB = Rule(
    "pickle.bomb", BLOCK, "It makes far more of itself than it is.", "Do not load it. Ask the publisher.",
    "CWE-409; CWE-674",
)  # fmt: skip
LARGE = Rule(
    "pickle.large", HOLD, "It is too large to be followed to its end.", ASK, "Freehold: memory is bounded"
)  # fmt: skip
