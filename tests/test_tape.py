"""The tape: what is parsed, what is hashed and what is counted are the same bytes, read once."""

import hashlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.scan.tape import BLOCK, PAGE, Changed, FileTape, MemoryTape, Oversized, Truncated, Window


@pytest.fixture
def tape(tmp_path):
    """Makes tapes of given bytes."""
    opened = []

    def make(content: bytes) -> FileTape:
        path = tmp_path / "file"
        path.write_bytes(content)
        descriptor = os.open(path, os.O_RDONLY)
        opened.append(descriptor)
        return FileTape(descriptor, len(content))

    yield make
    for descriptor in opened:
        os.close(descriptor)


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, PAGE, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
def test_the_digest_is_that_of_every_byte(tape, size):
    """However they were passed: parsed, as data, or skipped; with a thread of its own or without."""
    content = os.urandom(size)
    on = tape(content)
    third = size // 3
    assert on.read(third) == content[:third]
    on.data(third)
    on.skip(on.left, "left over")
    assert on.digest() == digest(content)
    assert (on.parsed, on.passed, sum(span.end - span.start for span in on.unjudged)) == (
        third,
        third,
        size - 2 * third,
    )


def test_reads_join_over_blocks_and_lines_end_at_their_newline(tape):
    """A line is at most as long as it may be."""
    content = b"x" * (BLOCK - 3) + b"ab\ncd\nno newline"
    on = tape(content)
    on.data(BLOCK - 4)
    assert on.line() == b"xab\n" and on.line() == b"cd\n"
    with pytest.raises(Truncated):
        on.line()
    long = tape(b"y" * 100 + b"\n")
    with pytest.raises(Truncated):
        long.line(50)


def test_nothing_is_read_past_the_end_or_by_a_length_that_cannot_be(tape):
    """Whatever a file claims."""
    on = tape(b"abc")
    for wrong in (4, 1 << 62, -1):
        with pytest.raises(Truncated):
            on.read(wrong)
        with pytest.raises(Truncated):
            on.data(wrong)
        with pytest.raises(Truncated):
            on.skip(wrong, "")
    with pytest.raises(Oversized):
        on.peek(0, 1 << 40)
    assert on.read(3) == b"abc"


def test_peeking_shows_what_lies_ahead_and_changes_nothing(tape):
    """Also past the end, where there is less."""
    content = os.urandom(3 * BLOCK)
    on = tape(content)
    assert on.peek(2 * BLOCK + 5, PAGE * 3) == content[2 * BLOCK + 5 :][: PAGE * 3]
    assert on.peek(len(content) - 4, 100) == content[-4:] and on.peek(len(content) + 9, 5) == b""
    on.data(on.left)
    assert on.digest() == digest(content)


def test_a_file_that_changes_between_peek_and_hash_is_noticed(tmp_path):
    """What a parser saw is what was hashed, or nothing is said of the file."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 3 * BLOCK)
    descriptor = os.open(path, os.O_RDONLY)
    on = FileTape(descriptor, 3 * BLOCK)
    assert on.peek(2 * BLOCK, 4) == b"aaaa"
    with path.open("r+b") as stream:
        stream.seek(2 * BLOCK + 1)
        stream.write(b"b")
    with pytest.raises(Changed):
        on.data(on.left)
    os.close(descriptor)


@pytest.mark.parametrize("size", [0, BLOCK, 3 * BLOCK + 1])
def test_a_file_that_shrinks_or_grows_is_noticed(tmp_path, size):
    """While it is read."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 3 * BLOCK)
    descriptor = os.open(path, os.O_RDONLY)
    on = FileTape(descriptor, 3 * BLOCK)
    os.truncate(path, size)
    with pytest.raises(Changed):
        on.data(on.left)
        on.digest()
    os.close(descriptor)


def test_a_window_is_a_tape_of_its_own_and_cannot_look_out(tape):
    """Nor can a window in a window."""
    on = tape(b"0123456789abcdef")
    on.read(4)
    outer = Window(on, 8)
    assert outer.peek(0, 100) == b"456789ab" and outer.read(2) == b"45"
    inner = Window(outer, 3)
    assert inner.peek(1, 10) == b"78"
    with pytest.raises(Truncated):
        inner.read(4)
    assert inner.read(3) == b"678" and inner.left == 0 and outer.at == 5
    with pytest.raises(Truncated):
        Window(outer, 4)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=3 * PAGE), st.lists(st.tuples(st.sampled_from("rdspl"), st.integers(-3, 2 * PAGE)), max_size=20)
)
def test_a_file_a_window_and_memory_behave_alike(tmp_path_factory, content, steps):
    """Step by step, in what they give and in what they refuse."""
    path = tmp_path_factory.mktemp("alike") / "file"
    path.write_bytes(b"head" + content + b"tail")
    descriptor = os.open(path, os.O_RDONLY)
    whole = FileTape(descriptor, len(content) + 8)
    whole.read(4)
    tapes = (Window(whole, len(content)), MemoryTape(content))
    for kind, number in steps:
        given_back = []
        for on in tapes:
            try:
                given_back.append(_step(on, kind, number))
            except (Truncated, Oversized) as refused:
                given_back.append(type(refused))
        assert given_back[0] == given_back[1]
        assert tapes[0].at == tapes[1].at
    os.close(descriptor)


def _step(on, kind, number):
    if kind == "r":
        return on.read(number)
    if kind == "l":
        return on.line(max(number, 1))
    if kind == "p":
        return on.peek(on.at, number)
    if kind == "d":
        seen = []
        on.data(number, lambda piece: seen.append(bytes(piece)))
        return b"".join(seen)
    return on.skip(number, "why")
