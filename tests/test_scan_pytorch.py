"""PyTorch's own files: the legacy stream and tar members to their last byte, and what members make of an archive."""

import io
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickling import Name, Pid, call, judge, pickled, rules, tensor

from freehold.scan import pytorch
from freehold.scan.base import Report

SYSTEM = call("os.system", "echo attack")
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
SYS_INFO = pickled({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}})
STATE = {"weight": tensor("94", view=(None,)), "bias": tensor("95", (4,), 4, (None,), "Half")}


def storage(count: int, width: int) -> bytes:
    return struct.pack("<q", count) + b"\1" * (count * width)


STORAGES = storage(6, 4) + storage(4, 2)


def legacy(value=STATE, keys=("94", "95"), storages=STORAGES, version: int = 1001) -> bytes:
    """A file as torch.save wrote it before 1.6."""
    return MAGIC + pickled(version) + SYS_INFO + pickled(value) + pickled(list(keys)) + storages


def test_a_legacy_state_dict_passes():
    """All five pickles and each storage; the storages are data."""
    found = judge(legacy(), "model.pth")
    assert (found.format, found.findings, found.data) == ("pytorch", (), 32)
    assert found.facts["storages"] == {"94": 24, "95": 8} and found.facts["parameters"] == 10


def test_a_legacy_file_by_protocol_0_passes():
    """The magic number in digits."""
    assert judge(b"L119547037146038801333356L\n." + legacy()[len(MAGIC) :], "x").findings == ()


def test_a_view_of_a_storage_passes():
    """The legacy format names the whole storage and the part."""
    assert rules(legacy({"a": tensor("94", view=(("9", 0, 3),))}, ("94",), storage(6, 4))) == set()


BROKEN = {
    "too few bytes": (legacy(storages=storage(6, 4) + storage(4, 2)[:-1]), "scan.truncated"),
    "another count": (legacy(storages=storage(6, 4) + storage(3, 2)), "pytorch.storage"),
    "a count of 2**62": (legacy(storages=struct.pack("<q", 1 << 62)), "pytorch.storage"),
    "a negative count": (legacy(storages=struct.pack("<q", -1) + b"\0" * 24), "pytorch.storage"),
    "bytes behind the storages": (legacy() + b"PK\3\4", "pickle.behind"),
    "a storage without data": (legacy(keys=("94",)), "pytorch.storage"),
    "a storage of nothing": (legacy(keys=("94", "95", "96")), "pytorch.storage"),
    "a storage twice": (legacy(keys=("94", "95", "94")), "pytorch.storage"),
    "keys that are no list": (legacy(keys=(1,)), "pytorch.legacy"),
    "version 1002": (legacy(version=1002), "pytorch.legacy"),
    "code in the object": (legacy({"a": SYSTEM}, (), b""), "pickle.code"),
    "code in the machine's description": (legacy().replace(SYS_INFO, pickled(SYSTEM)), "pickle.code"),
    "code in the list of storages": (legacy().replace(pickled(["94", "95"]), pickled(SYSTEM)), "pickle.code"),
    "code before a broken tail": (legacy({"a": SYSTEM})[:-60] + b"\xff", "pickle.code"),
    "a model's own source": (
        legacy({"a": Pid(("module", Name("app", "Net"), "app.py", "class Net: pass"))}, (), b""), "pickle.persistent",
    ),
    "a view past its storage": (legacy({"a": tensor("94", (3, 3), view=(None,))}, ("94",), STORAGES), "pickle.call"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_legacy_format_is_named(name):
    """Lengths, keys and what the pickles do."""
    content, rule = BROKEN[name]
    assert rule in rules(content, "model.pth"), name


def tar_storages(kind: str = "Float", count: int = 6, views=()) -> bytes:
    return pickled(1) + pickled((5, "cpu", Name("torch", f"{kind}Storage"))) + storage(count, 4) + pickled(list(views))


def tar_tensors(dimensions: int = 2) -> bytes:
    shape = struct.pack("<i4x", dimensions) + struct.pack(f"<{2 * dimensions}q", *range(2 * dimensions))
    return pickled(1) + pickled((7, 5, Name("torch", "FloatTensor"))) + shape + struct.pack("<q", 0)


def test_the_members_of_a_tar_checkpoint_are_accounted_for():
    """Pickles, numbers and storages in turn, to the last byte."""
    assert judge(tar_storages(), "storages").findings == () and judge(tar_storages(), "storages").data == 24
    assert judge(tar_tensors(), "tensors").findings == ()
    assert judge(pickled({"a": Pid(7)}), "pickle").findings == ()
    assert judge(SYS_INFO, "sys_info").findings == ()


def test_what_breaks_a_tar_checkpoint_is_named():
    """Code in any of its members, and lengths that do not fit."""
    evil = pickled(1) + pickled(SYSTEM)
    assert "pickle.code" in rules(evil, "storages") and "pickle.code" in rules(evil, "tensors")
    assert "pickle.code" in rules(pickled({"a": Pid(7), "b": SYSTEM}), "pickle")
    assert "scan.truncated" in rules(tar_storages()[:-20], "storages")
    assert "pytorch.legacy" in rules(pickled(1 << 40), "storages")
    assert "pytorch.legacy" in rules(tar_storages().replace(b"FloatStorage", b"device"), "storages")
    assert "pytorch.legacy" in rules(pickled(1) + pickled((7, 5, None)) + struct.pack("<i4x", 1 << 30), "tensors")
    assert "pickle.persistent" in rules(pickled({"a": Pid(7)}), "data.pkl")


def test_the_small_members_that_torch_writes_pass():
    """And nothing else of their name."""
    marks = {"version": b"3\n", "byteorder": b"little", ".format_version": b"1", ".storage_alignment": b"64",
             "serialization_id": b"1526353412340958"}  # fmt: skip
    for name, content in marks.items():
        assert (judge(content, name).format, judge(content, name).findings) == ("pytorch", ())
        assert judge(b"cos\nsystem\n(S'x'\ntR.", name).format == "pickle"
        assert judge(content + b"\0", name).format != "pytorch"


NAMES = ["m/" + name for name in (
    "data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id", "data/0",
    "data/12",
)]  # fmt: skip


def looked(names, *more) -> dict[str, str]:
    """The rules that the members break, with where."""
    report = Report("m.pt", lambda tape, report: None, size=1)
    pytorch.look(names, report, *more)
    return {finding.rule: finding.where for finding in report.findings}


def test_the_members_of_an_archive_say_what_it_is():
    """Programs hold it; a state dict alone does not."""
    assert looked(NAMES) == {}
    assert looked([*NAMES, "m/code/__torch__.py"]) == {"pytorch.script": "m/code/__torch__.py"}
    assert looked([*NAMES, "m/constants.pkl"]) == {"pytorch.script": "m/constants.pkl"}
    assert looked(["p/.data/extern_modules", "p/app.py"]) == {"pytorch.package": "p/.data/extern_modules"}
    assert looked(["MAR-INF/MANIFEST.json", "m.pt"]) == {"pytorch.served": "MAR-INF/MANIFEST.json"}
    assert list(looked(["sys_info", "pickle", "storages", "tensors"])) == ["pytorch.tar"]
    assert looked(["code/app.py.txt", "a/b.npy", "pickle"]) == {}


def test_tensors_and_storages_must_match():
    """Missing, of another length, and belonging to nothing."""
    facts = {"m/data.pkl": {"storages": {"0": 24, "12": 8}}}
    sizes = dict.fromkeys(NAMES, 1) | {"m/data/0": 24, "m/data/12": 8}
    assert looked(NAMES, sizes, facts) == {}
    assert looked(NAMES, sizes | {"m/data/0": 23}, facts) == {"pytorch.storage": "m/data/0"}
    assert looked(NAMES, {name: size for name, size in sizes.items() if name != "m/data/0"}, facts) == {
        "pytorch.storage": "m/data/0"
    }
    assert looked(NAMES, sizes | {"m/data/99": 5}, facts) == {"pytorch.loose": "m/data/99"}


def test_storages_are_told_by_their_place():
    """A number in data/ beside data.pkl, with or without a folder around; nothing else."""
    assert pytorch.is_storage("m/data/0", NAMES) and pytorch.is_storage("data/3", ["data.pkl", "data/3"])
    for name in ("m/data/x", "m/data/0/1", "n/data/0", "m/data.pkl", "data/0", "m/data/0.pkl"):
        assert not pytorch.is_storage(name, NAMES), name
    assert pytorch.is_storage("m/constants/0", ["m/constants.pkl"])
    assert not pytorch.is_storage("m/.data/1.storage", NAMES)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([(legacy(), "x.pt"), (tar_storages(), "storages"), (tar_tensors(), "tensors")]),
    st.integers(0, 700), st.binary(max_size=3), st.booleans(),
)  # fmt: skip
def test_nothing_makes_the_scanner_fall(sound, at, change, cut):
    """Any change of a sound file, and any cut."""
    content, name = sound
    judge(content[:at] + change + (b"" if cut else content[at + len(change) :]), name)


def test_a_tensor_counts_once():
    """However often its storage is named."""
    found = judge(pickled({"a": tensor("0"), "b": tensor("0")})).facts
    assert (found["tensors"], found["parameters"]) == (2, 6)


OBJECTS = b"\x93NUMPY\x01\0v\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".ljust(117) + b"\n"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_storage_that_numpy_would_unpickle_is_judged(method):
    """The archive is torch's and numpy's at once; ordinary bytes of a tensor pass."""
    for content, found in ((OBJECTS + pickled(SYSTEM), True), (pickled(SYSTEM), True), (b"\x93NUMB" * 40, False)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as there:
            there.writestr("a/data.pkl", pickled(tensor("0", (len(content),), len(content), kind="Byte")))
            there.writestr("a/data/0", content)
        assert ("pickle.code" in rules(out.getvalue(), "x.pt")) is found
