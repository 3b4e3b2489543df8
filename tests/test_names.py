"""Names: which may be a model's, and which are an adapter's and nothing else's."""

import pytest

from freehold import names
from freehold.errors import CannotDo


def test_an_adapter_is_called_after_its_base():
    """The parts of its name, and the name of its parts."""
    found = names.adapter_name("smollm2-135m-instruct+tickets@12")
    assert (found.base, found.adapter, found.version) == ("smollm2-135m-instruct", "tickets", 12)
    assert str(found) == "smollm2-135m-instruct+tickets@12"


@pytest.mark.parametrize(
    "name",
    ["a", "a+b", "a@1", "a+b@0", "a+b@01", "a+b@", "a+b@1.0", "a+B@1", "A+b@1", "a+.b@1", "a+-b@1", "a++b@1", "+b@1",
     "a+b@1@2", "a+b+c@1", "a+b@1 ", "a/b+c@1", "../a+b@1", "a+" + "b" * 65 + "@1", "a" * 101 + "+b@1", "a+b@1234567",
     "a+b@1\n"],
)  # fmt: skip
def test_what_is_no_adapters_name(name):
    """Whatever is missing, in another order, too long, or would lead anywhere else."""
    assert names.adapter_name(name) is None
    with pytest.raises(CannotDo, match="cannot be an adapter's name"):
        names.check_model_name(name, adapter=True)


def test_the_form_is_for_adapters_and_adapters_have_no_other():
    """Unless it is left open which of the two it is."""
    assert names.check_model_name("a+b@1", adapter=True) == names.check_model_name("a+b@1") == "a+b@1"
    assert names.check_model_name("a", adapter=False) == names.check_model_name("a") == "a"
    with pytest.raises(CannotDo, match="cannot be a model's name"):
        names.check_model_name("a+b@1", adapter=False)
    with pytest.raises(CannotDo) as caught:
        names.check_model_name("a", adapter=True)
    assert "BASE+ADAPTER@VERSION" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("x/Tickets-LoRA.gguf", "tickets-lora"),
        ("._x.gguf", "x"),
        ("ü", "model"),
        ("a" * 90, "a" * 64),
        ("__", "adapter"),
    ],
)
def test_an_adapter_without_a_name_is_called_like_its_file(source, stem):
    """In such letters and such a length that it can be."""
    assert names.adapter_stem(source) == stem
    assert names.adapter_name(f"base+{stem}@1")
