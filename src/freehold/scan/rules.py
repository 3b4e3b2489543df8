"""Every rule that there is, for the page of rules and for SARIF."""

from __future__ import annotations

import importlib
import pkgutil

import freehold.scan
from freehold.scan.base import Rule


def every() -> list[Rule]:
    """All rules, by id: the constants of type `Rule` in the modules of this folder."""
    names = [module.name for module in pkgutil.iter_modules(freehold.scan.__path__) if module.name != "child"]
    modules = [importlib.import_module(f"freehold.scan.{name}") for name in names if name != "rules"]
    found = {value.id: value for module in modules for value in vars(module).values() if isinstance(value, Rule)}
    return [found[name] for name in sorted(found)]
