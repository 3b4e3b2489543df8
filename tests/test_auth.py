"""Keys: shown once, kept as hashes, ended at the next request."""

import sqlite3

import pytest

from freehold.auth import KeyRing, hash_of
from freehold.errors import CannotDo, Unauthenticated
from freehold.ledger import Ledger
from freehold.store import Store
from freehold.types import Role


@pytest.fixture
def keys(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'x.db'}")
    ring = KeyRing(store, Ledger(store))
    yield ring
    ring.close()
    store.close()


def test_a_key_is_tied_to_its_caller(keys):
    """By its hash."""
    key, token = keys.create("bob", Role.MEMBER, actor="me")
    caller = keys.caller(token)
    assert (caller.id, caller.name, caller.role) == (key.id, "bob", Role.MEMBER)


def test_the_key_itself_is_kept_nowhere(keys, tmp_path):
    """Neither in the table nor in the audit chain."""
    _, token = keys.create("bob", Role.MEMBER, actor="me")
    with sqlite3.connect(tmp_path / "x.db") as connection:
        everything = "\n".join(connection.iterdump())
    connection.close()
    assert token not in everything and hash_of(token) in everything


@pytest.mark.parametrize("token", [None, "", "fh_wrong", "x" * 5000, "fh_\udcff"])
def test_no_key_and_a_wrong_one_are_refused(keys, token):
    """With what to do next."""
    with pytest.raises(Unauthenticated) as caught:
        keys.caller(token)
    assert "keys create" in caught.value.sentence()


def test_a_revoked_key_stops_at_once(keys):
    """Also for a ring that has just seen it live."""
    _, token = keys.create("bob", Role.MEMBER, actor="me")
    keys.caller(token)
    keys.revoke("bob", actor="me")
    with pytest.raises(Unauthenticated, match="was revoked"):
        keys.caller(token)


def test_names_are_unique_among_live_keys_and_printable(keys):
    """A revoked one's name is free again."""
    keys.create("bob", Role.MEMBER, actor="me")
    with pytest.raises(CannotDo, match="already a live key"):
        keys.create("bob", Role.ADMIN, actor="me")
    for name in ("", "  ", "a\nb", "x" * 101):
        with pytest.raises(CannotDo):
            keys.create(name, Role.MEMBER, actor="me")
    keys.revoke("bob", actor="me")
    keys.create("bob", Role.MEMBER, actor="me")
    with pytest.raises(CannotDo, match="no live key"):
        keys.revoke("nobody", actor="me")
