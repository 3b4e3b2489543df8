"""Licences that say one thing in one place and another in the next; a person decides, with both in front of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from assets.gguf_files import ROW, gguf, tensor
from assets.pieces import CONFIG, MIT, WEIGHTS
from assets.shelf import Content, Draft, admit, family, hold


def card(**facts: object) -> str:
    rows = "".join(f"{key}: {json.dumps(fact)}\n" for key, fact in facts.items())
    return f"---\n{rows}---\n\n# A model\n"


def weights(licence: str | None = None, **more: object) -> dict[str, Content]:
    """A GGUF that names its licence, or plain weights."""
    if licence is None:
        return {"model.safetensors": WEIGHTS, "config.json": json.dumps(CONFIG)}
    return {"model.gguf": gguf({"general.license": licence, **more}, [tensor()], ROW)}


@family("licence")
def conflicts() -> Iterator[Draft]:
    """Two places that disagree."""
    bases = {
        "gemma": ("google/gemma-2-2b", "apache-2.0"),
        "llama": ("meta-llama/Llama-3.1-8B", "mit"),
        "openrail": (("bigscience/bloom-560m"), "apache-2.0"),
        "non-commercial": ("CohereForAI/c4ai-command-r-v01", "apache-2.0"),
    }
    for slug, (base, licence) in bases.items():
        yield hold(
            f"base-{slug}",
            "",
            {"README.md": card(license=licence, base_model=base), **weights()},
            f"The card says {licence}, and its base {base} comes under terms that flow down.",
        )
    chain = {
        "general.base_model.count": 1,
        "general.base_model.0.name": "Gemma",
        "general.base_model.0.repo_url": "https://huggingface.co/google/gemma-2-2b",
    }
    yield hold(
        "base-in-gguf",
        "",
        {"README.md": card(license="apache-2.0"), **weights("apache-2.0", **chain)},
        "The base stands in the GGUF alone.",
    )
    sold = MIT.replace(
        "subject to the following conditions:", "for non-commercial purposes only, subject to the following conditions:"
    )
    yield hold(
        "mit-style",
        "",
        {"README.md": card(license="mit"), "LICENSE": sold, **weights()},
        "A text that looks like MIT and forbids commercial use.",
    )
    behind = (
        MIT + "\nThe Software may not be used for commercial purposes without the written consent of the authors.\n"
    )
    yield hold(
        "mit-style-behind",
        "",
        {"README.md": card(license="mit"), "LICENSE": behind, **weights()},
        "The MIT text, with a sentence behind it that forbids commercial use.",
    )
    yield hold(
        "gguf-and-card",
        "",
        {"README.md": card(license="apache-2.0"), **weights("cc-by-nc-4.0")},
        "The card says apache-2.0, and the GGUF cc-by-nc-4.0.",
    )
    yield hold(
        "gguf-and-card-reversed",
        "",
        {"README.md": card(license="gemma"), **weights("mit")},
        "The card says gemma, and the GGUF mit.",
    )
    yield hold(
        "text-and-card",
        "",
        {
            "README.md": card(license="apache-2.0"),
            "LICENSE": MIT.replace("MIT License", "Creative Commons Attribution-NonCommercial 4.0 International"),
            **weights(),
        },
        "The card says apache-2.0, and the text's title is non-commercial.",
    )


@family("licence")
def agreements() -> Iterator[Draft]:
    """Places that agree."""
    yield admit(
        "mit", "", {"README.md": card(license="mit"), "LICENSE": MIT, **weights()}, "Card and text both say MIT."
    )
    yield admit(
        "mit-wrapped",
        "",
        {"README.md": card(license="mit"), "LICENSE.txt": " ".join(MIT.split()) + "\n", **weights()},
        "The same text in one line.",
    )
    yield admit(
        "mit-years",
        "",
        {
            "README.md": card(license="mit"),
            "LICENSE.md": MIT.replace("2026 The authors", "2019-2025 Acme GmbH"),
            **weights(),
        },
        "The same text with another holder.",
    )
    yield admit("gguf", "", {"README.md": card(license="apache-2.0"), **weights("apache-2.0")}, "Card and GGUF agree.")
    yield admit(
        "gguf-spelling",
        "",
        {"README.md": card(license="apache-2.0"), **weights("Apache-2.0")},
        "Card and GGUF agree but for a capital letter.",
    )
    yield admit(
        "open-base",
        "",
        {"README.md": card(license="apache-2.0", base_model="Qwen/Qwen3-0.6B"), **weights()},
        "An open base under the same licence.",
    )
