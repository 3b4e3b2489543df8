"""A checkpoint of plain tensors becomes safetensors, byte for byte, without being loaded; any other is refused."""

import json
import os
import struct
import tempfile
import time
import zipfile

import pytest
from harness import cli
from pickling import Call, Name, Pid, call, pickled

from freehold.scan import convert
from freehold.scan.child import _teller
from freehold.scan.sandbox import Sandbox


def checkpoint(path, content, storages: dict[str, bytes], method=zipfile.ZIP_STORED):
    """A file as torch.save writes it."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("m/data.pkl", pickled(content))
        archive.writestr("m/byteorder", "little")
        for key, raw in storages.items():
            archive.writestr(f"m/data/{key}", raw)
        archive.writestr("m/version", "3\n")


def tensor(key: str, count: int, shape: tuple, *, stride: tuple = (), offset: int = 0) -> Call:
    """A tensor of 32-bit numbers over a storage of ``count``; by default its rows follow each other."""
    steps, due = [], 1
    for length in reversed(shape):
        steps.insert(0, due)
        due *= length
    pid = Pid(("storage", Name("torch", "FloatStorage"), key, "cpu", count))
    hooks = Call(Name("collections", "OrderedDict"))
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, pid, offset, shape, stride or tuple(steps), False, hooks)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def converted(tmp_path, name="plain") -> tuple[dict, bytes, dict]:
    """The header, the data and the record of what was kept."""
    home = tmp_path / "home"
    done = cli("models", "add", f"file:{tmp_path / name}.pt", "--convert", "--json", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(done.stdout)
    (file,) = [file for file in record["files"] if file["kind"] == "weights"]
    whole = (home / "vault" / "blobs" / "sha256" / file["digest"].removeprefix("sha256:")).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :], record


def values(header: dict, data: bytes, name: str) -> tuple[float, ...]:
    begin, end = header[name]["data_offsets"]
    return struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])


def test_tensors_keep_their_bytes_types_and_shapes(tmp_path):
    """Whole, a part of a storage, and a view whose rows stand the other way round."""
    content = {
        "whole": tensor("0", 6, (2, 3)),
        "part": tensor("0", 6, (2,), offset=3),
        "turned": tensor("0", 6, (3, 2), stride=(1, 3)),
        "scalar": tensor("1", 1, ()),
    }
    checkpoint(tmp_path / "plain.pt", content, {"0": floats(0, 1, 2, 3, 4, 5), "1": floats(7)})
    header, data, record = converted(tmp_path)
    assert header["whole"]["dtype"] == "F32" and header["turned"]["shape"] == [3, 2]
    assert values(header, data, "whole") == (0, 1, 2, 3, 4, 5)
    assert values(header, data, "part") == (3, 4)
    assert values(header, data, "turned") == (0, 3, 1, 4, 2, 5)
    assert values(header, data, "scalar") == (7,)
    assert record["format"] == "safetensors" and "plain.pt sha256:" in record["converted"]["plain.safetensors"]


def test_what_is_no_tensor_is_left_behind_and_named(tmp_path):
    """And the one dict that holds the tensors gives its name away."""
    content = {"state_dict": {"a": {"b": tensor("0", 1, (1,))}}, "epoch": 3}
    checkpoint(tmp_path / "plain.pt", content, {"0": floats(1)})
    header, _, record = converted(tmp_path)
    assert set(header) == {"__metadata__", "b"}
    assert "epoch" in record["converted"]["plain.safetensors"]


@pytest.mark.parametrize(
    ("content", "storages", "said"),
    [
        ({"w": tensor("0", 1, (1,)), "x": call("os.system", "echo freehold")}, {"0": floats(1)}, "more than plain"),
        ({"w": tensor("0", 1, (1,)), "x": call("somewhere.Thing")}, {"0": floats(1)}, "more than plain"),
        ({"epoch": 3}, {}, "no tensors|holds no"),
        ({"w": tensor("0", 4, (4,))}, {"0": floats(1)}, "more than plain"),
        ({"w": tensor("0", 1, (1,))}, {}, "more than plain"),
        ({"a.b": tensor("0", 1, (1,)), "a": {"b": tensor("0", 1, (1,))}}, {"0": floats(1)}, "two tensors"),
    ],
)
def test_anything_else_is_refused_and_nothing_kept(tmp_path, content, storages, said):
    """With the reason."""
    import re

    checkpoint(tmp_path / "plain.pt", content, storages)
    home = tmp_path / "home"
    done = cli("models", "add", f"file:{tmp_path / 'plain.pt'}", "--convert", home=home)
    assert done.returncode == 2 and re.search(said, done.stderr), done.stderr
    assert list((home / "quarantine").iterdir()) == [] and not (home / "vault").exists()


def test_a_folder_without_a_checkpoint_is_told_so(tmp_path):
    """Rather than admitted as if it had been converted."""
    (tmp_path / "notes.txt").write_text("hello\n")
    done = cli("models", "add", f"file:{tmp_path / 'notes.txt'}", "--convert", home=tmp_path / "home")
    assert done.returncode == 2 and "no PyTorch checkpoint" in done.stderr


def written(path, tell=lambda done: None) -> bytes:
    """What a checkpoint becomes, in this process and unjudged."""
    with path.open("rb") as source, tempfile.TemporaryFile() as out:
        convert.convert(source.fileno(), path.stat().st_size, out.fileno(), tell)
        out.seek(0)
        return out.read()


MANY = 1 << 18  # numbers in a storage of one MiB


@pytest.mark.parametrize(
    "content",
    [
        {str(number): tensor("0", MANY, (MANY,)) for number in range(70)},
        {"w": tensor("0", MANY, (1 << 40, MANY), stride=(0, 1))},
        {"w": tensor("0", MANY, (1 << 31,), stride=(0,))},
    ],
)
def test_a_small_file_does_not_become_a_large_one(tmp_path, content):
    """Views that share a storage are written out each, up to twice the file and 64 MiB."""
    checkpoint(tmp_path / "plain.pt", content, {"0": bytes(4 * MANY)})
    with pytest.raises(convert.Cannot, match="would fill more than 66 MiB"):
        written(tmp_path / "plain.pt")


def test_views_that_share_a_storage_within_reason_are_written_out(tmp_path):
    """Tied weights are common, and a row that is one number many times is a row."""
    content = {"a": tensor("0", 3, (3,)), "b": tensor("0", 3, (3,)), "c": tensor("0", 3, (2, 3), stride=(1, 0))}
    checkpoint(tmp_path / "plain.pt", content, {"0": floats(1, 2, 3)})
    assert written(tmp_path / "plain.pt").endswith(floats(1, 2, 3, 1, 2, 3, 1, 1, 1, 2, 2, 2))


def test_rows_are_gathered_into_blocks_and_told_of(tmp_path, monkeypatch):
    """Two hundred thousand rows of one number each are few writes, and whoever waits hears of every one."""
    numbers = struct.pack(f"<{MANY}f", *range(MANY))
    content = {"w": tensor("0", MANY, (MANY // 4, 2, 2), stride=(4, 1, 2))}
    checkpoint(tmp_path / "plain.pt", content, {"0": numbers})
    heard, write, lengths = [], os.write, []
    monkeypatch.setattr(os, "write", lambda out, some: lengths.append(len(some)) or write(out, some))
    whole = written(tmp_path / "plain.pt", heard.append)
    assert whole[-16:] == floats(MANY - 4, MANY - 2, MANY - 3, MANY - 1)
    assert len(lengths) < 5 and heard[-1] == len(whole)


def test_the_scanners_process_says_how_far_the_conversion_is(tmp_path):
    """Or it would be ended after half a minute, however much there is to write."""
    checkpoint(tmp_path / "plain.pt", {"w": tensor("0", 40 * MANY, (40 * MANY,))}, {"0": bytes(160 * MANY)})
    heard = []
    with (tmp_path / "plain.pt").open("rb") as source, tempfile.TemporaryFile() as out, Sandbox("best") as box:
        assert box.convert(source.fileno(), out.fileno(), "plain.pt", heard.append).tensors == 1
    assert heard and heard[-1] > 32 << 20


def test_little_is_said_at_once_and_something_after_a_while(capfd, monkeypatch):
    """A word for every 32 MiB or two seconds, and not for every block."""
    tell, now = _teller(), time.monotonic()
    tell(1 << 20)
    assert capfd.readouterr().out == ""
    monkeypatch.setattr(time, "monotonic", lambda: now + 5)
    tell(2 << 20)
    assert json.loads(capfd.readouterr().out)["done"] == 2 << 20


@pytest.mark.parametrize("little", [True, False])
def test_a_legacy_checkpoint_is_converted_unless_it_is_big_endian(tmp_path, little):
    """Its third pickle says which: bytes that stand the other way round would be other numbers."""
    pid = Pid(("storage", Name("torch", "FloatStorage"), "0", "cpu", 2, None))
    rebuilt = Call(Name("torch._utils", "_rebuild_tensor_v2"), pid, 0, (2,), (1,), False, None)
    parts = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little}, {"w": rebuilt}, ["0"])
    stream = b"".join(map(pickled, parts)) + struct.pack("<q", 2) + floats(1, 2)
    (tmp_path / "plain.pt").write_bytes(stream)
    if little:
        assert written(tmp_path / "plain.pt").endswith(floats(1, 2))
    else:
        with pytest.raises(convert.Cannot, match="big-endian"):
            written(tmp_path / "plain.pt")
