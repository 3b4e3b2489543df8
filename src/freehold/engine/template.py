"""Chat templates: what a model's own can do, and tools for a ChatML template that has no place for them."""

from __future__ import annotations

from importlib.resources import files

from msgspec import Struct

HERMES_CALL = "<tool_call>\n"


class Template(Struct, frozen=True):
    """How a model's conversations are written.

    ``text`` is empty where the engine is to use the model's own. ``call_prefix`` is how a tool call begins,
    where that is known.
    """

    text: str
    tools: bool
    says: str  # for status
    call_prefix: str = ""


def for_model(own: str) -> Template:
    """The template to use for a model whose file carries ``own``."""
    if not own:
        return Template("", False, "none in the file: the engine's default, without tools")
    if "tools" in own:
        return Template("", True, "the model's own", HERMES_CALL if HERMES_CALL in own.replace("\\n", "\n") else "")
    if "<|im_start|>" not in own:
        return Template("", False, "the model's own, which has no place for tools")
    return Template(with_tools(own), True, "the model's own; with tools, Freehold's for ChatML", HERMES_CALL)


def with_tools(own: str) -> str:
    """A ChatML template with tools, which renders exactly as ``own`` does where there are none.

    Jinja drops one newline at the very end of a template; inside another it would stay, so it is taken off.
    """
    ours = files("freehold.engine").joinpath("chatml_tools.jinja").read_text(encoding="utf-8").rstrip("\n")
    guard = "{{ '' }}" if own[:1].isspace() else ""  # or the newline after our tag would be eaten
    before, _, after = ours.rpartition("ORIGINAL")  # the last: the comment at the top names it too
    return before + guard + own.removesuffix("\n") + after
