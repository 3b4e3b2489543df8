"""A folder as a whole: names that deceive, files that are missing, data that lies elsewhere; sound folders pass."""

# ruff: noqa: E501 - a folder stands on one line

import pytest

from freehold.scan import repository
from freehold.scan.repository import look, skeleton
from freehold.scan.walk import Entry
from freehold.types import Judged


def judged(path: str, kind: str = "safetensors", size: int = 100, **facts) -> Judged:
    return Judged(path, kind, size, "sha256:0", facts=facts)


def found(*files: Judged, entries: tuple[Entry, ...] = ()) -> set[tuple[str, str]]:
    met = {entry.path: entry for entry in entries}
    all_entries = [met.pop(file.file, Entry(file.file, "file", file.size)) for file in files] + list(met.values())
    return {(finding.rule, finding.severity.value) for finding in look(files, all_entries)}


INDEX = {"index": ["model-1.safetensors", "model-2.safetensors"]}
DATA = {"external": [{"location": "weights/model.data", "offset": 40, "length": 60}]}

SOUND = {
    "shards and their index": (judged("model-1.safetensors"), judged("model-2.safetensors"),
                               judged("model.safetensors.index.json", "json", **INDEX)),
    "in a folder of its own": (judged("a/model-1.safetensors"), judged("a/model-2.safetensors"),
                               judged("a/model.safetensors.index.json", "json", **INDEX)),
    "data beside its model": (judged("m.onnx", "onnx", **DATA), judged("weights/model.data", "opaque")),
    "data without a length": (judged("m.onnx", "onnx", external=[{"location": "d"}]), judged("d", "opaque")),
    "all parts of a split model": tuple(
        judged(f"m-0000{n + 1}-of-00002.gguf", "gguf", split=[n, 2]) for n in range(2)),
    "the same template twice": (judged("a.json", "json", templates={"default": "1"}, template_texts={"default": "x"}),
                                judged("b.gguf", "gguf", templates={"default": "1"}, template_texts={"default": "x"})),
    "a template but for its last line's end": (
        judged("a.json", "json", templates={"default": "1"}, template_texts={"default": "x"}),
        judged("b.jinja", "chat template", templates={"default": "2"}, template_texts={"default": "x\n"})),
    "templates of different names": (judged("a.json", "json", templates={"a": "1"}, template_texts={"a": "x"}),
                                     judged("b.json", "json", templates={"b": "2"}, template_texts={"b": "y"})),
    "a name in one alphabet": (judged("модель.safetensors"), judged("模型.safetensors"), judged("modèle.safetensors")),
    "names that are alike and not the same": (judged("model-1.safetensors"), judged("model-l1.safetensors")),
    "training state without weights": (judged("optimizer.pt", "pickle"),),
}  # fmt: skip


@pytest.mark.parametrize("how", SOUND)
def test_a_sound_folder_passes(how):
    """Nothing is found in it."""
    assert found(*SOUND[how]) == set()


OTHER = "repository."
ATTACKS = {
    "names by case": ((judged("Model.safetensors"), judged("model.safetensors")), "alike", "hold"),
    "names by normalisation": ((judged("mod\u00e8le.bin"), judged("mode\u0300le.bin")), "alike", "hold"),
    "names by letters": ((judged("config.json", "json"), judged("c\u043enfig.json", "json")), "alike", "hold"),
    "folders by letters": ((judged("a/x.json", "json"), judged("\u0430/x.json", "json")), "alike", "hold"),
    "a letter of another alphabet": ((judged("c\u043enfig.json", "json"),), "look-alike", "hold"),
    "a Greek letter": ((judged("m\u03bfdel.safetensors"),), "look-alike", "hold"),
    "a name turned around": ((judged("model\u202egnp.safetensors"),), "name", "hold"),
    "a name turned around, as the walk tells it": ((judged("model\\u202egnp.safetensors"),), "name", "hold"),
    "a name in broken UTF-8": ((judged("model\\xff.safetensors"),), "name", "hold"),
    "a name with a line's end": ((judged("model\n.safetensors"),), "name", "hold"),
    "a missing shard": ((judged("model-1.safetensors"), judged("m.index.json", "json", **INDEX)), "incomplete", "hold"),
    "a missing part": ((judged("m-00001-of-00002.gguf", "gguf", split=[0, 2]),), "incomplete", "hold"),
    "missing data": ((judged("m.onnx", "onnx", **DATA),), "external-data", "block"),
    "data outside": ((judged("m.onnx", "onnx", external=[{"location": "../d"}]),), "external-data", "block"),
    "data outside, later": ((judged("m.onnx", "onnx", external=[{"location": "a/../../d"}]),), "external-data", "block"),
    "data at the root": ((judged("m.onnx", "onnx", external=[{"location": "/etc/passwd"}]),), "external-data", "block"),
    "data past the end": ((judged("m.onnx", "onnx", **DATA), judged("weights/model.data", "opaque", 99)),
                          "external-data", "block"),
    "templates that differ": (
        (judged("a.json", "json", templates={"default": "1"}, template_texts={"default": "x"}),
         judged("b.gguf", "gguf", templates={"default": "2"}, template_texts={"default": "y"})), "templates-differ", "hold"),
    "templates that differ past what is kept": (
        (judged("a.json", "json", templates={"d": "1"}, template_texts={"d": "x" * 65_536}),
         judged("b.gguf", "gguf", templates={"d": "2"}, template_texts={"d": "x" * 65_536})), "templates-differ", "hold"),
    "a pickle renamed": ((judged("model.safetensors", "pickle"),), "disguised", "block"),
    "one format by the name of another": ((judged("model.safetensors", "gguf"),), "disguised", "block"),
    "training state beside weights": ((judged("model.safetensors"), judged("training_args.bin", "pickle")),
                                      "training-state", "note"),
    "code that is here": ((judged("config.json", "json", config={"auto_map": {"A": "own.Model"}}),
                           judged("own.py", "text")), "code", "note"),
    "code that is elsewhere": ((judged("config.json", "json", config={"auto_map": {"A": ["own.Model", None]}}),),
                               "code-missing", "hold"),
}  # fmt: skip


@pytest.mark.parametrize("how", ATTACKS)
def test_what_no_file_shows_by_itself_is_named(how):
    """By its rule and gravity."""
    files, rule, severity = ATTACKS[how]
    assert (OTHER + rule, severity) in found(*files)


def test_a_file_given_alone_is_held_for_the_neighbours_that_it_misses():
    """And blocked for what no neighbour could mend."""
    missing, outside = judged("m.onnx", "onnx", **DATA), judged("m.onnx", "onnx", external=[{"location": "../d"}])
    (held,), (blocked,) = look([missing], [], alone=True), look([outside], [], alone=True)
    assert (held.rule, held.severity.value) == ("repository.incomplete", "hold") and "not given" in held.meaning
    assert (blocked.rule, blocked.severity.value) == ("repository.external-data", "block")


def test_data_that_is_a_link_or_has_two_names_is_refused():
    """Unless all of the folder is links, as in a hub's cache."""
    files = judged("m.onnx", "onnx", **DATA), judged("weights/model.data", "opaque")
    for entry in (Entry("weights/model.data", "link", 100), Entry("weights/model.data", "file", 100, links=2)):
        assert found(*files, entries=(entry,)) == {("repository.external-data", "block")}
    both = Entry("weights/model.data", "link", 100), Entry("m.onnx", "link", 100)
    assert found(*files, entries=both) == set()


def test_a_difference_of_templates_is_shown():
    """The finding holds what one has and the other has not."""
    one = judged("a.json", "json", templates={"d": "1"}, template_texts={"d": "{% if a %}x{% endif %}"})
    two = judged("b.gguf", "gguf", templates={"d": "2"}, template_texts={"d": "{% if a %}evil{% endif %}"})
    (finding,) = look([one, two], [])
    assert finding.file == "b.gguf" and "+evil{% endif %}" in finding.meaning and "a.json" in finding.meaning


def test_a_report_is_bounded():
    """However many names are alike."""
    assert len(look([judged("A" * n + "a" * (300 - n)) for n in range(300)], [])) == repository.MAX_FINDINGS


def test_names_that_look_alike_have_one_skeleton():
    """And others have not."""
    assert skeleton("\u0421\u043enfig") == skeleton("CONFIG") != skeleton("config2")
