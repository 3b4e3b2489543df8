"""Freehold: open models on your own machines, behind the APIs your applications already call."""

__all__ = ["__version__"]

__version__ = "0.6.0"
