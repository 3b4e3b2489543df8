"""How open a model is, by what is here; what is only said to be elsewhere is told as said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.openness import PARTS, grade
from freehold.types import Judged, Licence, LicenceClass

APACHE = Licence("Apache-2.0", LicenceClass.OPEN)
LLAMA = Licence("llama3.1", LicenceClass.SOURCE_AVAILABLE)
WORDS = "This section says in some detail what it is that its heading promises to its reader. " * 5
CARD = f"# A model\n\n{WORDS}\n\n## Training data\n\n{WORDS}\n\n## Evaluation\n\n{WORDS}\n"
PAPER = "\nSee https://arxiv.org/abs/2403.13784 for more.\n"


def file(path: str, kind: str = "text", **facts) -> Judged:
    return Judged(path, kind, 1, "sha256:00", facts=facts)


def readme(text: str = CARD, **card) -> Judged:
    return file("README.md", text=text, card=card)


CONFIG = file("config.json", "json", config={"model_type": "llama"})
WEIGHTS = file("model.safetensors", "safetensors", tensors=3)
CLASS_III = [CONFIG, WEIGHTS, readme(), file("technical_report.pdf")]
CLASS_II = [*CLASS_III, file("train.py"), file("generate.py"), file("evaluate.py"), file("eval/questions.jsonl")]
CLASS_I = [
    *CLASS_II,
    file("paper.pdf"),
    file("data/part-0.parquet"),
    file("preprocess.py"),
    file("checkpoint-1000/model.safetensors", "safetensors", tensors=3),
]


def component(told, name):
    return next(component for component in told.components if component.name == name)


def test_the_framework_has_seventeen_components():
    """Each with its class; six, four and four of them are asked for."""
    assert len(PARTS) == 17
    assert [sum(part.needed_for == name and part.required for part in PARTS) for name in ("III", "II", "I")] == [
        6,
        4,
        4,
    ]


@pytest.mark.parametrize(("files", "reached"), [([], ""), (CLASS_III, "III"), (CLASS_II, "II"), (CLASS_I, "I")])
def test_each_class_needs_the_one_below(files, reached):
    """Six components make an open model; four more its tools; four more make it open science."""
    told = grade(files, APACHE)
    assert told.grade == reached, told.missing
    assert len(told.components) == 17


@pytest.mark.parametrize("lost", range(len(CLASS_III)))
def test_one_component_less_is_no_class(lost):
    """Without any one of its files, class III is not reached, and what is missing is named."""
    told = grade([*CLASS_III[:lost], *CLASS_III[lost + 1 :]], APACHE)
    assert told.grade == "" and told.missing


def test_tools_without_the_model_are_no_class():
    """Class II is not reached past a gap in class III."""
    told = grade([item for item in CLASS_II if item is not WEIGHTS], APACHE)
    assert told.grade == "" and told.missing == ("Model parameters (final): not here.",)


def test_a_component_counts_only_under_an_open_licence():
    """Everything is here, and nothing counts but the architecture, which a library has."""
    told = grade(CLASS_I, LLAMA)
    assert told.grade == "" and len(told.missing) == 5
    assert component(told, "Model parameters (final)").present is True
    assert "llama3.1 is not an open licence" in told.missing[0]


def test_a_disputed_licence_is_not_an_open_one():
    """Conflicts about the licence count against it."""
    disputed = Licence("Apache-2.0", LicenceClass.OPEN, conflicts=("README.md says one thing; LICENSE another.",))
    told = grade(CLASS_I, disputed)
    assert (told.grade, told.osaid) == ("", "unknown") and "disputed" in told.missing[0]


def test_a_link_is_stated_and_does_not_count():
    """A paper on arXiv and a data set on a hub: told with where that is said, and their licences unknown."""
    told = grade([CONFIG, WEIGHTS, readme(CARD + PAPER, datasets=["acme/data"])], APACHE)
    report, data = component(told, "Technical report"), component(told, "Datasets")
    assert (report.present, report.licence, report.evidence) == (True, "", "arXiv:2403.13784, stated in README.md")
    assert (data.present, data.evidence) == (True, "acme/data, stated in README.md")
    assert told.grade == "" and told.missing == (
        "Technical report: arXiv:2403.13784, stated in README.md; its licence cannot be read from here.",
    )


def test_a_paper_stands_in_for_the_report():
    """As the framework allows."""
    files = [item for item in CLASS_III if item.file != "technical_report.pdf"] + [file("paper.pdf")]
    assert grade(files, APACHE).grade == "III"


def test_a_heading_alone_is_no_evidence():
    """'Training data' with nothing below it is no data card, and a short README no model card."""
    told = grade([readme("# M\n\n## Training data\n\nSoon.\n\n## Evaluation\n\n")], APACHE)
    for name in ("Data card", "Evaluation results", "Model card"):
        assert component(told, name).present is False, name


def test_an_architecture_that_nobody_knows_cannot_be_told():
    """A config names it; its code is not here. Known ones are in a library under its own licence."""
    odd = grade([file("config.json", "json", config={"model_type": "secret"})], APACHE)
    assert component(odd, "Model architecture").present is None
    known = component(grade([file("m.gguf", "gguf", architecture="qwen3", tensors=1)], LLAMA), "Model architecture")
    assert (known.present, known.licence) == (True, "MIT") and "llama.cpp" in known.evidence


def test_closed_weights_are_not_open_source_ai():
    """No is said where it is certain, with the reason."""
    told = grade(CLASS_I, LLAMA)
    assert told.osaid == "no" and "llama3.1" in told.reasons[0]
    assert grade(CLASS_I, Licence("", LicenceClass.NON_COMMERCIAL)).osaid == "no"


def test_open_weights_alone_leave_it_unknown():
    """Code and data may be published elsewhere; each of them is named."""
    told = grade([CONFIG, WEIGHTS], APACHE)
    assert told.osaid == "unknown"
    assert sum("may be published elsewhere" in reason for reason in told.reasons) == 4


def test_open_source_ai_needs_its_data_to_be_told_in_full():
    """With the data here it is yes; with a section about them, that is for a person to judge."""
    assert (grade(CLASS_I, APACHE).osaid, grade(CLASS_I, APACHE).reasons) == ("yes", ())
    described = [item for item in CLASS_I if item.file != "data/part-0.parquet"]
    told = grade(described, APACHE)
    assert told.osaid == "unknown" and "for a person to judge" in told.reasons[0]


def test_nothing_known_is_unknown():
    """No file and no licence."""
    told = grade([], Licence("", LicenceClass.UNKNOWN))
    assert (told.grade, told.osaid) == ("", "unknown") and len(told.missing) == 6


ANY = st.none() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=9), max_size=3)
PATHS = st.sampled_from(["README.md", "config.json", "train.py", "data/x.parquet", "eval/", "", "..", "a" * 300])


@settings(max_examples=100, deadline=None)
@given(PATHS | st.text(max_size=30), ANY, ANY, ANY)
def test_any_facts_are_graded(path, text, card, config):
    """Values of any kind where others are expected raise nothing."""
    files = [file(path, text=text, card={"datasets": card}, config={"model_type": config}), readme("## x\n", a=card)]
    assert grade(files, APACHE).grade in ("", "III", "II", "I")
