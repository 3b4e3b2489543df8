"""Well-known families of models and the licence that each is under, by the model's name.

A card may keep silent about what a model was made from; its name often does not. Each row is a pattern for a name in
lower case, and the licence that the family is known to be under; ``source`` is the publisher's page, where that can be
looked up. A row only ever makes the gate ask: a card that says otherwise is a conflict, for a person to settle. The
first row that matches wins, so exceptions stand before their family.
"""

from __future__ import annotations

import re

from msgspec import Struct

_HUB = "https://huggingface.co/"
_EDGE = r"(?:^|[-/.])"  # where a family's name may begin


class Family(Struct, frozen=True):
    """A family of models, the licence of its weights, and who says so."""

    pattern: re.Pattern
    licence: str
    source: str


def _rows(publisher: str, *rows: tuple[str, str]) -> list[Family]:
    return [Family(re.compile(_EDGE + pattern), licence, _HUB + publisher) for pattern, licence in rows]


FAMILIES: list[Family] = [
    *_rows(
        "meta-llama",
        (r"(?:llama|meta-llama)-guard-4", "llama4"),
        (r"(?:llama|meta-llama)-guard-3-(?:1b|11b)", "llama3.2"),
        (r"(?:llama|meta-llama)-guard-3", "llama3.1"),
        (r"deepseek-r1-distill-llama-70b", "llama3.3"),
        (r"deepseek-r1-distill-llama", "llama3.1"),
        (r"(?:meta-)?llama-?4(?![.\db])", "llama4"),
        (r"(?:meta-)?llama-?3[.-]3(?![.\db])", "llama3.3"),
        (r"(?:meta-)?llama-?3[.-]2(?![.\db])", "llama3.2"),
        (r"(?:meta-)?llama-?3[.-]1(?![.\db])", "llama3.1"),
        (r"(?:meta-)?llama-?3(?!\d|b|\.\d)", "llama3"),
        (r"(?:meta-)?llama-?2(?!\d|b|\.\d)", "llama2"),
        (r"codellama", "llama2"),
        (r"llama-(?:7|13|30|65)b", "llama1"),
    ),
    *_rows(
        "google",
        (r"med(?:gemma|siglip)", "health-ai-developer-foundations"),
        (r"gemma-?4(?!\d|b)", "Apache-2.0"),
        (r"(?:code|data|embedding|function|pali|recurrent|shield|t5|translate|vault)?-?gemma", "gemma"),
        (r"(?:flan-)?(?:t5|mt5)-", "Apache-2.0"),
        (r"bert-(?:base|large)", "Apache-2.0"),
    ),
    *_rows(
        "Qwen",
        (r"qwen-?image-?2\.1", "qwen-research"),
        (r"qwen-?[3-9](?!\d*b)", "Apache-2.0"),
        (r"qwen-?image", "Apache-2.0"),
        (r"qwq-32b", "Apache-2.0"),
        (r"qvq-72b", "qwen"),
        (r"qwen-?2\.5(?:-[a-z]+)*-3b", "qwen-research"),
        (r"qwen-?2\.5(?:-[a-z]+)*-72b", "qwen"),
        (r"qwen-?2(?:-[a-z]+)*-72b", "tongyi-qianwen"),
        (r"qwen-?2(?!\d)", "Apache-2.0"),
        (r"qwen-?1\.5-(?:0\.5|1\.8|4)b", "tongyi-qianwen-research"),
        (r"qwen-?1\.5", "tongyi-qianwen"),
        (r"qwen-1[-.]8b", "tongyi-qianwen-research"),
        (r"qwen(?:-vl)?(?:-chat)?(?:-(?:7|14|72)b|$)", "tongyi-qianwen"),
    ),
    *_rows(
        "mistralai",
        (r"mistral-large-3", "Apache-2.0"),
        (r"mistral-large|pixtral-large|mistral-small-(?:instruct-)?2409|ministral-8b-instruct-2410", "mrl"),
        (r"mamba-codestral", "Apache-2.0"),
        (r"codestral", "mnpl"),
        (r"mi[sx]tral|ministral-3|mathstral|magistral-small|devstral-small|pixtral-12b|voxtral", "Apache-2.0"),
    ),
    *_rows(
        "deepseek-ai",
        (r"deepseek-(?:r1|v3[.-][12]|v3-0324|v4|ocr|prover-v2)", "MIT"),
        (r"deepseek-(?:v[23]|coder|math|moe|llm|vl)|janus-", "deepseek"),
    ),
    *_rows("HuggingFaceTB", (r"smol(?:lm|vlm)", "Apache-2.0"), (r"zephyr-7b", "MIT")),
    *_rows("ibm-granite", (r"granite-", "Apache-2.0")),
    *_rows("allenai", (r"olmo", "Apache-2.0")),
    *_rows("openai", (r"gpt-oss", "Apache-2.0"), (r"whisper-", "Apache-2.0"), (r"gpt-?2(?:-|$)", "MIT")),
    *_rows("microsoft", (r"phi-[1-4]", "MIT")),
    *_rows(
        "tiiuae",
        (r"falcon-180b", "falcon-180b"),
        (r"falcon-(?:7|40)b|falcon-rw", "Apache-2.0"),
        (r"falcon-11b", "falcon-2-11b"),
        (r"falcon-?(?:3|h1|e|mamba)", "falcon-llm-license"),
    ),
    *_rows("moonshotai", (r"kimi-k2", "kimi-k2")),
    *_rows("bigscience", (r"bloomz?(?:-|$)", "bigscience-bloom-rail-1.0")),
    *_rows("bigcode", (r"starcoder|santacoder", "bigcode-openrail-m")),
    *_rows(
        "stabilityai",
        (r"stable-diffusion-(?:2|xl)", "openrail++"),
        (r"stable-diffusion-3", "stabilityai-ai-community"),
        (r"stable-diffusion-v?-?1", "creativeml-openrail-m"),
    ),
    *_rows("CohereLabs", (r"c4ai-|command-[ar]|aya-", "CC-BY-NC-4.0")),
    *_rows("EleutherAI", (r"pythia|gpt-neox|gpt-j", "Apache-2.0")),
    *_rows("nvidia", (r"(?:mini|nemotron|opennemo)[a-z]*-", "nvidia-open-model-license")),
    *_rows("01-ai", (r"yi-1\.5", "Apache-2.0")),
    *_rows("zai-org", (r"glm-(?:4\.[5-9]|5)", "MIT")),
    *_rows("TinyLlama", (r"tinyllama|openllama|open-llama", "Apache-2.0")),
    *_rows("LGAI-EXAONE", (r"exaone", "exaone")),
]


def of(name: str) -> Family | None:
    """The family that a model's name (``org/name``, a file name, a GGUF base name) gives away, or None."""
    plain = re.sub(r"[^a-z0-9./]+", "-", name[:300].lower())
    return next((family for family in FAMILIES if family.pattern.search(plain)), None)
