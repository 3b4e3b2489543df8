"""Scanners: each reads one file format without trusting a byte of it, and says what it found."""
