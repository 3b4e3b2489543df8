"""What the package offers, it has."""

import importlib
import pkgutil
import re
from pathlib import Path

import freehold

MODULES = [
    module.name
    for module in pkgutil.walk_packages(freehold.__path__, "freehold.")
    if "migrations" not in module.name and not module.name.endswith("__main__")
]


def test_every_exported_name_exists():
    """Each name in an ``__all__`` can be had."""
    for name in MODULES:
        module = importlib.import_module(name)
        for exported in getattr(module, "__all__", ()):
            assert hasattr(module, exported), f"{name}.{exported}"


def test_every_public_module_class_and_function_says_what_it_is():
    """A docstring on everything that others call."""
    bare = []
    for name in MODULES:
        module = importlib.import_module(name)
        bare += [] if module.__doc__ else [name]
        for attribute, thing in vars(module).items():
            if attribute.startswith("_") or getattr(thing, "__module__", None) != name:
                continue
            if callable(thing) and not isinstance(thing, type(Path | str)) and not thing.__doc__:
                bare.append(f"{name}.{attribute}")
    assert bare == []


def test_the_version_is_one():
    """The changelog's newest entry is this version."""
    newest = re.search(
        r"^## (\d+\.\d+\.\d+)", (Path(__file__).parent.parent / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert newest and newest[1] == freehold.__version__
