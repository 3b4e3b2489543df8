"""Tasks: what a file may say, what is said of one that is wrong, and how they are kept."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold import task
from freehold.errors import BadTask

PLAIN = """
name = "tickets"
about = "Read a support ticket into JSON"
alias = "gpt-x"
margin = 0.03
group = "metadata.user"
price = "vendor/model-x"
terms = "outputs may be used for evaluation"

[scorer]
kind = "json"
schema = "../shapes/ticket.json"

[capture]
on = true
callers = ["shop"]

[splits]
tuning = 0.5
validation = 0.2
"""


def written(folder, text=PLAIN, name="a.toml"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/ticket.json").write_text("{}")
    return written(tmp_path / "mine")


def test_a_task_is_what_its_file_says(plain):
    """Every setting arrives, those of the small tables too."""
    found = task.load(plain)
    assert (found.name, found.alias, found.margin, found.group) == ("tickets", "gpt-x", 0.03, "metadata.user")
    assert found.scorer == {"kind": "json", "schema": "../shapes/ticket.json"}
    assert (found.capture, found.callers, found.tuning, found.validation) == (True, ("shop",), 0.5, 0.2)


def test_what_a_task_leaves_out_has_a_default(tmp_path):
    """Name, margin and scorer are enough."""
    found = task.load(written(tmp_path, 'name = "a"\nmargin = 0.05\nscorer.kind = "exact"'))
    assert (found.capture, found.callers, found.tuning, found.validation) == (False, (), 0.6, 0.15)


@pytest.mark.parametrize("margin", ["0", "1", "0.0", "1.0", "-0.1", "nan", "inf", "7"])
def test_a_margin_of_nothing_or_everything_is_refused(tmp_path, margin):
    """Both ends, and whatever lies beyond them, with a sentence that says what a margin is."""
    path = written(tmp_path, PLAIN.replace("0.03", margin))
    with pytest.raises(BadTask, match="more than 0 and less than 1") as caught:
        task.load(path)
    assert "three points" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("alias", "alais", "Did you mean 'alias'"),
        ("callers", "caller", "Did you mean 'callers'"),
        ("[splits]", "[split]", "Did you mean 'splits'"),
        ('name = "tickets"', "", "there is no 'name'"),
        ('margin = 0.03', "", "there is no 'margin'"),
        ('margin = 0.03', 'margin = "0.03"', "expected `float`, got `str` - at `$.margin`".replace("`", "'")),
        ('kind = "json"', "", "[scorer] has no 'kind'"),
        ('name = "tickets"', 'name = "../x"', "cannot be a task's name"),
        ('name = "tickets"', 'name = ".x"', "cannot be a task's name"),
        ('name = "tickets"', 'name = "Tickets"', "cannot be a task's name"),
        ('name = "tickets"', f'name = "{"a" * 65}"', "cannot be a task's name"),
        ("validation = 0.2", "validation = 0.5", "leave something to certify"),
        ("tuning = 0.5", "tuning = nan", "leave something to certify"),
        ("tuning = 0.5", "tuning = -1", "leave something to certify"),
        ('"metadata.user"', '"metadata..user"', "is no dotted path"),
        ('"gpt-x"', '"' + "x" * 2001 + '"', "more than 2000 characters"),
        ("[capture]", "[capture", "is not TOML"),
        ("0.03", "9" * 5000, "is not TOML"),
        ("0.03", "[" * 5000, "is not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path, old, new, said):
    """What is wrong is named, and so is what to do."""
    assert old in PLAIN
    with pytest.raises(BadTask) as caught:
        task.load(written(tmp_path, PLAIN.replace(old, new)))
    assert said in caught.value.sentence()


def test_a_file_that_is_none_is_refused(tmp_path):
    """Missing, a folder, a pipe that nobody writes to, or far too long."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b"#" * (task.MAX_TASK + 1))
    for name in ("missing", "", "pipe", "long", "nul\0"):
        with pytest.raises(BadTask):
            task.load(tmp_path / name)


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: PLAIN.encode() + text.encode("utf-8", "replace"))
)
def test_no_bytes_are_too_much_for_the_reader(content):
    """A task, or a sentence that says why not."""
    try:
        assert task.parse(content, "x").name
    except BadTask as error:
        assert error.message.endswith(".")


def test_a_task_is_kept_with_the_files_that_it_names(tmp_path, plain):
    """What happens to the originals afterwards does not matter."""
    tasks = task.Tasks(tmp_path / "home/tasks")
    assert tasks.names() == ()
    added = tasks.add(plain)
    plain.unlink()
    (tmp_path / "shapes/ticket.json").unlink()
    found = tasks.get("tickets")
    assert found == added and tasks.names() == ("tickets",)
    assert (tasks.folder("tickets") / found.scorer["schema"]).read_text() == "{}"
    assert tasks.folder("tickets") / found.scorer["schema"] == tasks.folder("tickets") / "schema.json"


def test_a_task_is_not_replaced_unawares(tmp_path, plain):
    """The same one may be added again; another of its name only where that is meant."""
    tasks = task.Tasks(tmp_path / "tasks")
    assert tasks.add(plain) == tasks.add(plain)
    (tmp_path / "shapes/ticket.json").write_text('{"type": "object"}')
    with pytest.raises(BadTask, match="already"):
        tasks.add(plain)
    tasks.add(plain, replace=True)
    assert (tasks.folder("tickets") / "schema.json").read_text() == '{"type": "object"}'
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["tickets"]


def test_a_task_whose_file_is_missing_is_not_kept(tmp_path, plain):
    """Nothing is left behind of it."""
    (tmp_path / "shapes/ticket.json").unlink()
    tasks = task.Tasks(tmp_path / "tasks")
    with pytest.raises(BadTask, match=r"ticket\.json cannot be read"):
        tasks.add(plain)
    assert tasks.names() == ()


def test_a_task_can_be_removed(tmp_path, plain):
    """Afterwards there is none, and the sentence names one that is near."""
    tasks = task.Tasks(tmp_path / "tasks")
    tasks.add(plain)
    with pytest.raises(BadTask) as caught:
        tasks.remove("ticket")
    assert "Did you mean 'tickets'" in caught.value.hint
    tasks.remove("tickets")
    with pytest.raises(BadTask, match="no task tickets"):
        tasks.get("tickets")
    assert list((tmp_path / "tasks").iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", "", "A", "a" * 65, "a\0", "ä"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    """Whatever is asked for, it is refused before a path is made of it."""
    tasks = task.Tasks(tmp_path)
    for act in (tasks.get, tasks.remove, tasks.folder):
        with pytest.raises(BadTask, match="cannot be a task's name"):
            act(name)
