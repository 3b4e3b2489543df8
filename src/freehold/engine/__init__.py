"""Engines: what answers. The protocol is in `base`; each sibling is one engine or one part of running it."""
