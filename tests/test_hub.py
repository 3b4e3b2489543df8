"""A model on a hub arrives whole and as it was listed, or with one clear sentence and nothing half-kept."""

import errno
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from harness import until
from hub import PIECE, File, Misbehaviour, hub

from freehold import acquire
from freehold.acquire import hub as module
from freehold.acquire import partial
from freehold.errors import AcquireFailed

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra freehold[hub] is not installed")

BIG = bytes(range(256)) * 4096 * 3  # 3 MiB
SHARD = hashlib.sha256(b"shard").digest() * 1000
FILES = {
    "config.json": b'{"model_type": "toy"}',
    "model.safetensors": BIG,
    "LICENSE": b"MIT License\n",
    "a/b.txt": b"x",
}


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A hub with one model, which everything here is pointed at."""
    monkeypatch.setattr(module, "_WAITS", (0.0, 0.0, 0.0, 0.0))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
    with hub() as running:
        running.repository("org/toy", FILES, card={"license": "mit", "base_model": ["org/base"]})
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def ignore(_what, _done, _total):
    """No progress bar."""


def add(home, source="hf:org/toy", *, progress=ignore, **options):
    """What ``models add`` does up to the gate: the record, and what lay in its folder."""
    with acquire.quarantine(home) as folder:
        got = acquire.fetch(acquire.parse(source), folder, progress, downloads=home / "downloads", **options)
        return got, contents(got.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(home, match, source="hf:org/toy", **options):
    """The sentence of a refusal, after which nothing is left but, where it says so, what had arrived."""
    with pytest.raises(AcquireFailed, match=match) as caught:
        add(home, source, **options)
    assert "Traceback" not in caught.value.sentence() and list((home / "quarantine").iterdir()) == []
    return caught.value


def left(home) -> int:
    """Bytes that wait for the next try."""
    return sum(path.stat().st_size for path in (home / "downloads").rglob("*") if path.is_file())


def test_a_repository_arrives_whole_by_its_commit(site, home):
    """With its promised digests, its licence and its base model, and a progress in bytes."""
    seen = []
    got, found = add(home, progress=lambda *step: seen.append(step))
    commit = site.repositories["org/toy"].refs["main"]
    assert found == FILES and got.source == f"hf:org/toy@{commit}" and got.name == "toy"
    assert got.digests == {"model.safetensors": "sha256:" + hashlib.sha256(BIG).hexdigest()}
    assert (got.licence, got.base_models, got.pinned) == ("mit", ("org/base",), False)
    total = sum(map(len, FILES.values()))
    assert seen[-1] == ("fetching", total, total)
    assert left(home) == 0 and list((home / "downloads").iterdir()) == []


def test_everything_is_asked_for_by_the_commit_and_at_the_endpoint_alone(site, home):
    """One listing by the name, then files by the hash; no telemetry, and no other request."""
    add(home)
    commit = site.repositories["org/toy"].refs["main"]
    paths = [one.path for one in site.seen]
    assert paths[0] == "/api/models/org/toy/revision/main?blobs=true"
    assert all(path.startswith((f"/org/toy/resolve/{commit}/", "/network/")) for path in paths[1:])
    assert all(
        "freehold" in one.headers["user-agent"] and "; agent" not in one.headers["user-agent"] for one in site.seen
    )
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY


def test_the_stand_in_speaks_as_the_library_expects(site, tmp_path):
    """The control: the library's own download of the same repository gives the same files."""
    program = "import sys, huggingface_hub as h; print(h.snapshot_download('org/toy', cache_dir=sys.argv[1]))"
    done = run_library(program, tmp_path / "cache", site)
    assert contents(Path(done.stdout.strip())) == FILES


def run_library(program: str, cache: Path, site) -> subprocess.CompletedProcess:
    env = os.environ | {"HF_ENDPOINT": site.url, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return subprocess.run(
        [sys.executable, "-c", program, str(cache)], env=env, capture_output=True, text=True, check=True
    )


def test_relative_redirects_are_followed(site, home):
    """As the hub redirects a renamed repository."""
    site.relative = True
    assert add(home)[1] == FILES


def test_a_revision_may_be_a_branch_a_tag_a_commit_or_a_pull_request(site, home):
    """Each is looked up once, and the source names the commit."""
    repository = site.repositories["org/toy"]
    first = repository.refs["main"]
    other = repository.commit({"config.json": b"{}"}, ref="refs/pr/7")
    for revision, commit in ((first, first), ("refs/pr/7", other), (other, other)):
        assert add(home, f"hf:org/toy@{revision}")[0].source == f"hf:org/toy@{commit}"


def test_one_file_may_be_asked_for(site, home):
    """The licence comes along, whatever is chosen; the model is named after the file."""
    got, found = add(home, "hf:org/toy@main/model.safetensors")
    assert set(found) == {"model.safetensors", "LICENSE"} and got.name == "model"
    assert got.source.endswith("/model.safetensors")


def test_globs_choose_and_leave_out(site, home):
    """``*`` matches ``/`` too, and leaving out wins."""
    assert set(add(home, include=["*.json", "a*"])[1]) == {"config.json", "a/b.txt", "LICENSE"}
    assert set(add(home, exclude=["*.safetensors", "LICENSE"])[1]) == {"config.json", "a/b.txt"}
    assert "LICENSE" in refused(home, "does not hold a file that was asked for", include=["*.onnx"]).hint
    assert "model.safetensors" in refused(home, "does not hold none.bin", "hf:org/toy/none.bin").hint


def test_several_ggufs_ask_for_a_choice(site, home):
    """The error lists them with their sizes and shows the command; the parts of one model are one."""
    parts = {f"big-0000{number}-of-00002.gguf": SHARD for number in (1, 2)}
    site.repository("org/ggufs", {"q4.gguf": SHARD, "README.md": b"# x", **parts})
    error = refused(home, "holds 2 GGUF models", "hf:org/ggufs")
    assert "64 kB  big-00001-of-00002.gguf" in error.message and "32 kB  q4.gguf" in error.message
    assert "freehold models add hf:org/ggufs@main/big-00001-of-00002.gguf" in error.hint
    got, found = add(home, "hf:org/ggufs/big-00001-of-00002.gguf")
    assert set(found) == {*parts, "README.md"} and got.name == "big"
    assert len(add(home, "hf:org/ggufs", include=["*"])[1]) == 4
    assert add(home, "hf:org/ggufs", exclude=["big*"])[0].name == "q4"


def test_two_names_of_one_content_are_fetched_once(site, home):
    """And both are there."""
    site.repository("org/twins", {"a.bin": BIG, "b.bin": BIG})
    assert add(home, "hf:org/twins")[1] == {"a.bin": BIG, "b.bin": BIG} and site.gone_out() == len(BIG)


def test_an_empty_file_needs_no_bytes(site, home):
    """``.gitkeep`` and its like."""
    site.repository("org/empty", {"model.bin": SHARD, ".gitkeep": b""})
    assert add(home, "hf:org/empty")[1][".gitkeep"] == b""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Misbehaviour(swap=BIG[:-1] + b"!"), "is not the file that the hub listed: its digest differs"),
        (Misbehaviour(swap=BIG + b"!"), "is not the file that the hub listed: it is longer"),
        (Misbehaviour(headers={"X-Repo-Commit": "0" * 40}, status=200), "another commit"),
    ],
)
def test_what_differs_from_the_listing_is_refused_and_nothing_kept(site, home, wrong, said):
    """Swapped, longer, or of another commit."""
    site.wrong = replace(wrong, on="model.safetensors" if wrong.status else "/network/")
    refused(home, said)
    assert left(home) == 0


def test_a_changed_small_file_is_refused_too(site, home):
    """By the SHA-1 of its git blob."""
    site.wrong = Misbehaviour(swap=b'{"model_type": "Toy"}', on="config.json")
    refused(home, "config.json is not the file")


def test_a_listing_with_another_digest_is_refused(site, home):
    """The promise is held against what arrives, whoever is wrong."""
    said = {"lfs": {"sha256": "0" * 64, "size": len(BIG), "pointerSize": 134}}
    site.repository("org/liar", {"model.safetensors": File(BIG, lfs=True, says=said)})
    refused(home, "its digest differs", "hf:org/liar")
    assert left(home) == 0


def test_a_truncated_file_is_asked_for_again_and_then_given_up(site, home):
    """What arrived is kept, and the next try needs only the rest."""
    site.wrong = Misbehaviour(truncate_to=2 << 20, on="/network/", no_ranges=True)
    error = refused(home, "broke off after 2097152 of 3145728 bytes")
    assert "goes on from there" in error.hint and left(home) >= 2 << 20
    site.wrong, site.seen = Misbehaviour(times=0), []
    assert add(home)[1] == FILES
    assert [one.range for one in site.seen if one.path.startswith("/network/")] == ["bytes=2097152-3145727"]
    assert left(home) == 0


def test_a_connection_cut_in_mid_file_goes_on_by_itself(site, home):
    """From where it broke off."""
    site.wrong = Misbehaviour(cut_after=20 * PIECE, on="/network/", times=2)
    assert add(home)[1] == FILES and site.gone_out() == sum(map(len, FILES.values()))


def test_a_server_without_ranges_starts_again(site, home):
    """And what had arrived before is not counted twice."""
    site.wrong = Misbehaviour(cut_after=20 * PIECE, on="/network/", times=1)
    before = site.amiss
    site.amiss = lambda path: before(path) or (Misbehaviour(no_ranges=True) if "/network/" in path else None)
    assert add(home)[1] == FILES


def test_another_range_than_the_one_asked_for_is_not_taken(site, home):
    """Its bytes would land in the wrong place."""
    before = site.amiss
    site.wrong = Misbehaviour(cut_after=20 * PIECE, on="/network/", times=1)
    site.amiss = lambda path: before(path) or (Misbehaviour(shift=7) if "/network/" in path else None)
    refused(home, "it sends another range than the one asked for")


def test_main_moving_in_mid_download_changes_nothing(site, home):
    """Everything is of the commit that was looked up first."""
    repository = site.repositories["org/toy"]
    first = repository.refs["main"]
    moved = lambda: repository.commit({"model.safetensors": b"other", "config.json": b"other"})  # noqa: E731
    site.wrong = Misbehaviour(then=moved, on="config.json")
    got, found = add(home)
    assert found == FILES and got.source.endswith(first) and repository.refs["main"] != first


def test_a_commit_that_the_hub_answers_with_another_is_refused(site, home):
    """The pin is a pin."""
    repository = site.repositories["org/toy"]
    repository.refs["0" * 40] = repository.refs["main"]
    refused(home, "with the commit", f"hf:org/toy@{'0' * 40}")


@pytest.mark.parametrize(("status", "times"), [(500, 2), (503, 4), (429, 3)])
def test_a_hub_that_stumbles_is_asked_again(site, home, status, times):
    """Some failures pass by themselves."""
    site.wrong = Misbehaviour(status=status, headers={"Retry-After": "0"}, times=times)
    assert add(home)[1] == FILES


@pytest.mark.parametrize(
    ("wrong", "said", "hint"),
    [
        (Misbehaviour(status=500), "could not be fetched from .*: it answers 500", "try again later"),
        (Misbehaviour(status=429, headers={"Retry-After": "99999999"}), "it answers 429", "try again later"),
        (Misbehaviour(status=403, code="GatedRepo"), "agreed to its terms", "HF_TOKEN"),
        (Misbehaviour(status=401, code="RepoNotFound"), "no model org/toy on http", "HF_TOKEN"),
        (Misbehaviour(status=401), "asks for a token", "HF_TOKEN"),
        (Misbehaviour(status=404, code="RevisionNotFound"), "has no revision main", "a commit"),
        (Misbehaviour(status=404), "answers 404", "HF_ENDPOINT"),
        (Misbehaviour(html=True), "does not answer as a hub does: it sent text/html", "proxy"),
        (Misbehaviour(html=True, on="/network/"), "A web page came in the place of model.safetensors", "proxy"),
        (Misbehaviour(status=404, code="EntryNotFound", on="/resolve/"), "lists a file that the hub does not have", ""),
        (Misbehaviour(cut_after=0), "could not be fetched", "network"),
    ],
)
def test_a_hub_that_says_no_is_one_sentence(site, home, wrong, said, hint):
    """What, why, and what to do."""
    site.wrong = wrong
    assert hint in refused(home, said).hint


def test_a_hub_that_is_not_there_is_one_sentence(site, home, monkeypatch):
    """Nobody listens."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(home, "could not be fetched from http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    refused(home, "no web address")


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(site, home, monkeypatch):
    """The content network is another origin."""
    site.token = "hf_secret"
    refused(home, "no model org/toy")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    site.seen.clear()
    assert add(home)[1] == FILES
    with_token = {one.path.startswith("/network/") for one in site.seen if "authorization" in one.headers}
    assert with_token == {False} and any(one.path.startswith("/network/") for one in site.seen)
    monkeypatch.setenv("HF_TOKEN", "hf_ä")
    refused(home, "HF_TOKEN holds letters")


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "a/../../evil",
        "a//b",
        "./a",
        "C:evil",
        "a\\..\\evil",
        "nul\0",
        "a\nb",
        "x" * 300,
        "a/" * 20 + "b",
    ],
)
def test_an_unsafe_name_in_the_listing_is_refused(site, home, tmp_path, name):
    """Before anything is fetched, and nothing is written anywhere."""
    site.repository("org/evil", {"config.json": b"{}", name: b"evil"})
    refused(home, "is refused: it", "hf:org/evil")
    assert site.gone_out() == 0 and left(home) == 0 and not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("Model.bin", "model.bin"), "differ in nothing but the case"),
        (("A/x", "a/y"), "differ in nothing but the case"),
        (("caf\u00e9", "cafe\u0301"), "differ in nothing but the case"),
        (("a", "a/b"), "there twice"),
    ],
)
def test_names_that_meet_on_some_disk_are_refused(site, home, names, said):
    """By case, by the form of their letters, or as a file and a folder."""
    site.repository("org/evil", dict.fromkeys(names, b"evil"))
    refused(home, said, "hf:org/evil")


@pytest.mark.parametrize(
    "says",
    [
        {"size": -1}, {"size": None}, {"blobId": None}, {"blobId": "../../x"}, {"size": 1 << 62},
        {"lfs": {"sha256": "../evil", "size": 1}},
    ],
)  # fmt: skip
def test_a_listing_that_promises_nothing_sound_is_refused(site, home, says):
    """Without a size and a digest nothing can be held against it."""
    site.repository("org/vague", {"config.json": File(b"{}", lfs=False, says=says)})
    refused(home, "lacks a sound size or digest", "hf:org/vague")


@pytest.mark.parametrize("says", [{"size": "7"}, {"lfs": 7}, {"rfilename": 7}])
def test_a_listing_of_another_form_is_refused(site, home, says):
    """Wrong types are no listing."""
    site.repository("org/vague", {"config.json": File(b"{}", lfs=False, says=says)})
    refused(home, "no listing of org/vague", "hf:org/vague")


def test_too_many_files_and_too_long_a_listing_are_refused(site, home, monkeypatch):
    """Both are bounded."""
    site.repository("org/many", {f"f{number}": b"" for number in range(50)})
    monkeypatch.setattr(module, "MAX_FILES", 49)
    refused(home, "more than 49 files", "hf:org/many")
    monkeypatch.setattr(module, "_LISTING", 1000)
    refused(home, "The listing of org/many is over", "hf:org/many")


@pytest.mark.parametrize("card", ["text", {"license": 7, "base_model": {"a": 1}}, {"license": ["mit", 7]}, [1], None])
def test_a_card_of_any_form_is_taken(site, home, card):
    """What is no text is left out."""
    site.repository("org/odd", {"config.json": b"{}"}, card=card)
    got, _ = add(home, "hf:org/odd")
    assert got.licence in ("", "mit") and got.base_models == ()


def test_no_space_is_said_before_anything_is_fetched(site, home):
    """By the listing's sizes."""
    said = {"lfs": {"sha256": "0" * 64, "size": 1 << 55, "pointerSize": 134}}
    site.repository("org/huge", {"model.safetensors": File(BIG, lfs=True, says=said)})
    assert "--home" in refused(home, "MiB free", "hf:org/huge").hint
    assert site.gone_out() == 0


PROGRAM = """
import sys
from pathlib import Path
from freehold import acquire
home = Path(sys.argv[1])
with acquire.quarantine(home) as folder:
    got = acquire.fetch(acquire.parse("hf:org/toy"), folder, lambda *step: None, downloads=home / "downloads")
    print(sum(path.stat().st_size for path in got.folder.rglob("*") if path.is_file()))
"""


def test_a_download_that_was_killed_goes_on_where_it_stopped(site, home):
    """kill -9 in mid-file; the hub's log shows that only the rest was asked for."""
    site.wrong = Misbehaviour(seconds=0.05, on="/network/")
    first = subprocess.Popen([sys.executable, "-c", PROGRAM, str(home)])
    until(lambda: left(home) > len(BIG) // 3)
    second = subprocess.run([sys.executable, "-c", PROGRAM, str(home)], capture_output=True, text=True)
    assert "Another process is fetching" in second.stderr
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    time.sleep(0.2)
    arrived = next((home / "downloads").rglob(hashlib.sha256(BIG).hexdigest())).stat().st_size
    assert len(BIG) // 3 <= arrived < len(BIG)
    site.wrong, site.seen = Misbehaviour(times=0), []
    assert add(home)[1] == FILES
    asked = [one for one in site.seen if one.path.startswith("/network/")]
    assert [(one.range, one.sent) for one in asked] == [(f"bytes={arrived}-{len(BIG) - 1}", len(BIG) - arrived)]
    again = [one.path for one in site.seen if "/resolve/" in one.path]
    assert [path.rpartition("/")[2] for path in again] == ["model.safetensors"]  # the others had arrived whole


def test_what_a_crash_hurt_is_fetched_anew(site, home):
    """A partial file with wrong bytes in it is found out at the end, and forgotten."""
    site.wrong = Misbehaviour(truncate_to=2 << 20, no_ranges=True, on="/network/")
    refused(home, "broke off")
    partial = next((home / "downloads").rglob(hashlib.sha256(BIG).hexdigest()))
    with partial.open("r+b") as stream:
        stream.write(b"hurt")
    site.wrong = Misbehaviour(times=0)
    assert add(home)[1] == FILES


def test_files_of_another_commit_do_not_stay_behind(site, home):
    """What the new commit does not hold is removed before the rest is fetched."""
    site.wrong = Misbehaviour(truncate_to=1 << 20, no_ranges=True, on="/network/")
    refused(home, "broke off")
    site.repositories["org/toy"].commit({"model.safetensors": SHARD})
    site.wrong = Misbehaviour(times=0)
    assert add(home)[1] == {"model.safetensors": SHARD} and left(home) == 0


def test_offline_nothing_is_asked_and_the_sentence_says_so(site, home, tmp_path, monkeypatch):
    """Not one request."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    assert "file:PATH" in refused(home, "HF_HUB_OFFLINE is set, and the cache .* does not hold all of").hint
    assert site.seen == []


def test_offline_the_local_cache_serves_if_it_is_complete(site, home, tmp_path, monkeypatch):
    """With the digests that the names of its blobs promise; one missing file and it is not complete."""
    cache = tmp_path / "cache"
    run_library("import sys, huggingface_hub as h; h.snapshot_download('org/toy', cache_dir=sys.argv[1])", cache, site)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    site.seen.clear()
    got, found = add(home)
    assert found == FILES and got.source == "hf:org/toy@" + site.repositories["org/toy"].refs["main"]
    assert got.digests == {"model.safetensors": "sha256:" + hashlib.sha256(BIG).hexdigest()} and site.seen == []
    assert set(add(home, "hf:org/toy/config.json")[1]) == {"config.json", "LICENSE"}
    next(cache.rglob("config.json")).unlink()
    refused(home, "does not hold all of")


def test_offline_a_cache_without_a_listing_serves_single_files_alone(site, home, tmp_path, monkeypatch):
    """As nobody can tell whether the rest is there."""
    program = "import sys, huggingface_hub as h; h.hf_hub_download('org/toy', 'config.json', cache_dir=sys.argv[1])"
    run_library(program, tmp_path / "cache", site)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    refused(home, "does not hold all of")
    assert set(add(home, "hf:org/toy/config.json")[1]) == {"config.json"}


def test_a_hub_that_stops_sending_is_given_up(site, home, monkeypatch):
    """Within the library's own time limit; what had arrived is kept."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    site.wrong = Misbehaviour(seconds=0.7, on="/network/")
    assert "try again later" in refused(home, "could not be fetched from .*: (timed out|The read)").hint


def test_a_disk_that_fills_up_on_the_way_keeps_nothing(site, home, monkeypatch):
    """The partial file is what filled it."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(partial, "write", full)
    assert "Free some space" in refused(home, "No space left").hint
    assert left(home) == 0


def test_a_packed_listing_is_bounded_by_what_it_unpacks_to(site, home, monkeypatch):
    """A few kilobytes of gzip that would be gigabytes."""
    monkeypatch.setattr(module, "_LISTING", 1 << 20)
    site.wrong = Misbehaviour(body=gzip.compress(b" " * (64 << 20)), headers={"Content-Encoding": "gzip"})
    tracemalloc.start()
    refused(home, "The listing of org/toy is over")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
