"""The licences that Freehold knows by name: what each is called, what class it is, and what it asks of its user.

The figures come from the licence texts themselves; ``source`` says where the publisher keeps the text. This is a
reader's summary and not legal advice: the text decides.
"""

from __future__ import annotations

import re

from msgspec import Struct

from freehold.types import LicenceClass

_OPEN, _SOURCE = LicenceClass.OPEN, LicenceClass.SOURCE_AVAILABLE
_USE, _NC = LicenceClass.USE_RESTRICTED, LicenceClass.NON_COMMERCIAL


class Known(Struct, frozen=True):
    """One licence: its title, class, what it asks, the names that hubs and files give it, and where its text is."""

    title: str
    kind: LicenceClass
    asks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    source: str = ""
    share_alike: bool = False  # what is made from it has to stay under it


_SPDX = "https://spdx.org/licenses/{}.html"
_CREDIT = "Name the authors and the licence, link to it, and say what you changed."
_SHARE = "What you make from it and share goes under the same licence."
_NO_TRADE = "Do not use it for anything aimed mainly at commercial advantage or money."
NO_CHANGES = "Do not share what you change."
_KEEP = "Keep the copyright notice and the licence text with every copy."
_RESEARCH = "Use it for research or evaluation only; ask the publisher before any commercial use."
_ADOPT = (
    "Pass the licence's list of forbidden uses on, as a term that binds everyone to whom you give the model or a "
    "service with it."
)
_COPY = "Give a copy of the licence with every copy of the model, and say which files you changed."
_FORBIDDEN = "Do not use it for what the licence's Attachment A forbids."
_SOURCE_CODE = "Give the source code, under the same licence, with every copy that you share."


def _spdx(
    id: str, title: str, *asks: str, also: tuple[str, ...] = (), kind: LicenceClass = _OPEN, same: bool = False
) -> tuple[str, Known]:
    return id, Known(title, kind, asks, also, _SPDX.format(id), same)


def _cc(part: str, *asks: str, kind: LicenceClass = _OPEN) -> tuple[str, Known]:
    title = "Creative Commons " + part.upper() + " 4.0"
    links = (f"creativecommons.org/licenses/{part}/4.0", f"cc-{part}")
    source = f"https://creativecommons.org/licenses/{part}/4.0/legalcode"
    return f"CC-{part.upper()}-4.0", Known(title, kind, (_CREDIT, *asks), links, source, "sa" in part)


def _llama(version: str, *asks: str, name: str = "Llama") -> tuple[str, Known]:
    title = f"Llama {version} Community License"
    notice = f"{name} {version} is licensed under the {name} {version} Community License"
    asked = (
        f"Over 700 million monthly active users when Llama {version} came out: ask Meta for a licence first.",
        *asks,
        f"Give a copy of the licence, and a Notice file that says '{notice}, Copyright (c) Meta Platforms, Inc. All "
        "Rights Reserved.'",
        "Keep to Meta's Acceptable Use Policy.",
    )
    also = (f"llama-{version}", f"llama{version}-community", f"{title} agreement", f"meta-llama-{version}")
    source = f"https://github.com/meta-llama/llama-models/blob/main/models/llama{version.replace('.', '_')}/LICENSE"
    return f"llama{version}", Known(title, _SOURCE, asked, also, source)


_BUILT = (
    "Show 'Built with Llama' prominently where you offer the model or a product with it, and begin the name of a model "
    "made from it or from its outputs with 'Llama'."
)
_BUILT_3 = (
    "Show 'Built with Meta Llama 3' prominently where you offer the model or a product with it, and begin the name of "
    "a model made from it with 'Llama 3'."
)
_NO_TRAINING = "Do not use it or its outputs to improve any other large language model."
_NOT_EU = (
    "By its use policy, the rights to its multimodal models are not granted to people who live, or companies based, in "
    "the European Union."
)
_OWN_COPY = "Give a copy of the licence and keep its notices with every copy."
_FALCON = (
    "Keep to its Acceptable Use Policy, and pass it on.",
    "Say in every public statement that what you made is 'built using Falcon LLM technology from the Technology "
    "Innovation Institute'.",
)
_WITH_QWEN = "Show 'Built with Qwen' or 'Improved using Qwen' with a model that you make with it or its outputs."
_HUNDRED = "Over 100 million monthly active users of a commercial product: ask Alibaba Cloud for a licence first."

KNOWN: dict[str, Known] = dict(
    [
        _spdx(
            "Apache-2.0",
            "Apache License 2.0",
            "Keep the licence text, the notices and a NOTICE file with every copy.",
            "Say which files you changed.",
            "Your patent licence ends if you sue over patents in it.",
            also=(
                "apache",
                "apache2",
                "apache-license-2.0",
                "apache-software-license",
                "apache.org/licenses/license-2.0",
            ),
        ),
        _spdx("MIT", "MIT License", _KEEP, also=("expat", "mit-license", "opensource.org/licenses/mit")),
        _spdx("MIT-0", "MIT No Attribution"),
        _spdx("0BSD", "BSD Zero Clause License"),
        _spdx("BSD-2-Clause", "BSD 2-Clause License", _KEEP, also=("bsd-2", "simplified-bsd", "freebsd")),
        _spdx(
            "BSD-3-Clause",
            "BSD 3-Clause License",
            _KEEP,
            "Do not use its authors' names to promote what you make.",
            also=("bsd", "bsd-3", "new-bsd", "modified-bsd"),
        ),
        _spdx("ISC", "ISC License", _KEEP),
        _spdx("Zlib", "zlib License", "Do not claim that you wrote it; mark changed versions as changed."),
        _spdx("BSL-1.0", "Boost Software License 1.0", _KEEP),
        _spdx("WTFPL", "WTFPL"),
        _spdx("Unlicense", "The Unlicense"),
        _spdx("CC0-1.0", "Creative Commons Zero 1.0", also=("cc0", "creativecommons.org/publicdomain/zero/1.0")),
        _cc("by", kind=_OPEN),
        _cc("by-sa", _SHARE),
        _cc("by-nd", NO_CHANGES, kind=_SOURCE),
        _cc("by-nc", _NO_TRADE, kind=_NC),
        _cc("by-nc-sa", _NO_TRADE, _SHARE, kind=_NC),
        _cc("by-nc-nd", _NO_TRADE, NO_CHANGES, kind=_NC),
        _spdx("CC-BY-3.0", "Creative Commons BY 3.0", _CREDIT),
        _spdx("CC-BY-SA-3.0", "Creative Commons BY-SA 3.0", _CREDIT, _SHARE, same=True),
        _spdx("CC-BY-NC-3.0", "Creative Commons BY-NC 3.0", _CREDIT, _NO_TRADE, kind=_NC),
        _spdx("CC-BY-NC-SA-3.0", "Creative Commons BY-NC-SA 3.0", _CREDIT, _NO_TRADE, _SHARE, kind=_NC, same=True),
        _spdx("CC-BY-NC-2.0", "Creative Commons BY-NC 2.0", _CREDIT, _NO_TRADE, kind=_NC),
        _spdx(
            "GPL-2.0",
            "GNU General Public License 2",
            _SOURCE_CODE,
            same=True,
            also=("gpl", "gplv2", "gpl2", "gpl-2.0-only", "gpl-2.0-or-later", "gpl-2.0+"),
        ),
        _spdx(
            "GPL-3.0",
            "GNU General Public License 3",
            _SOURCE_CODE,
            same=True,
            also=("gplv3", "gpl3", "gpl-3.0-only", "gpl-3.0-or-later", "gpl-3.0+", "gnu.org/licenses/gpl-3.0"),
        ),
        _spdx(
            "LGPL-2.1",
            "GNU Lesser General Public License 2.1",
            _SOURCE_CODE,
            same=True,
            also=("lgpl", "lgplv2.1", "lgpl-2.1-only", "lgpl-2.1-or-later"),
        ),
        _spdx(
            "LGPL-3.0",
            "GNU Lesser General Public License 3",
            _SOURCE_CODE,
            same=True,
            also=("lgplv3", "lgpl-lr", "lgpl-3.0-only", "lgpl-3.0-or-later"),
        ),
        _spdx(
            "AGPL-3.0",
            "GNU Affero General Public License 3",
            _SOURCE_CODE,
            same=True,
            also=("agpl", "agplv3", "agpl-3.0-only", "agpl-3.0-or-later"),
        ),
        _spdx(
            "MPL-2.0", "Mozilla Public License 2.0", "Share changed files of it under the same licence.", also=("mpl",)
        ),
        _spdx("EUPL-1.2", "European Union Public Licence 1.2", _SOURCE_CODE, also=("eupl",), same=True),
        _spdx("AFL-3.0", "Academic Free License 3.0", _KEEP),
        _spdx("Artistic-2.0", "Artistic License 2.0", _KEEP),
        _spdx("ECL-2.0", "Educational Community License 2.0", _KEEP),
        _spdx("NCSA", "University of Illinois/NCSA Open Source License", _KEEP),
        _spdx("PostgreSQL", "PostgreSQL License", _KEEP),
        _spdx("MS-PL", "Microsoft Public License", _KEEP),
        _spdx(
            "CDLA-Permissive-2.0",
            "Community Data License Agreement Permissive 2.0",
            "Pass the licence text on with the data.",
        ),
        _spdx("ODC-By-1.0", "Open Data Commons Attribution 1.0", "Say where the data is from.", also=("odc-by",)),
        _spdx(
            "ODbL-1.0", "Open Database License 1.0", "Say where the data is from.", _SHARE, also=("odbl",), same=True
        ),
        (
            "OpenMDW-1.0",
            Known(
                "OpenMDW License Agreement 1.0",
                _OPEN,
                (
                    "Keep a copy of the agreement and the notices of origin with every copy.",
                    "Your rights end if you sue over patents in it.",
                ),
                ("openmdw", "openmdw-1"),
                "https://openmdw.ai/license/1-0/",
            ),
        ),
        (
            "OpenMDW-1.1",
            Known(
                "OpenMDW License Agreement 1.1",
                _OPEN,
                ("Keep a copy of the agreement and the notices of origin with every copy.",),
                (),
                "https://openmdw.ai/license/1-1/",
            ),
        ),
        (
            "fair-nc",
            Known(
                "FAIR Noncommercial Research License",
                _NC,
                ("Use it for non-commercial research only.",),
                ("fair-noncommercial-research-license", "fair-noncommercial-research", "fair-nc-research"),
                "https://huggingface.co/facebook",
            ),
        ),
        (
            "llama1",
            Known(
                "LLaMA License Agreement (2023)",
                _NC,
                ("Use it for non-commercial research only.",),
                ("llama-1",),
                "https://github.com/meta-llama/llama/tree/llama_v1",
            ),
        ),
        _llama("2", _NO_TRAINING),
        _llama("3", _BUILT_3, _NO_TRAINING, name="Meta Llama"),
        _llama("3.1", _BUILT),
        _llama("3.2", _BUILT, _NOT_EU),
        _llama("3.3", _BUILT),
        _llama("4", _BUILT, _NOT_EU),
        (
            "gemma",
            Known(
                "Gemma Terms of Use",
                _USE,
                (
                    "Do not use it for what Google's Gemma Prohibited Use Policy forbids.",
                    _ADOPT,
                    "Give a copy of the terms, a Notice file that says 'Gemma is provided under and subject to the "
                    "Gemma Terms of Use found at ai.google.dev/gemma/terms', and say which files you changed.",
                ),
                ("gemma-terms-of-use", "gemma-terms", "ai.google.dev/gemma/terms"),
                "https://ai.google.dev/gemma/terms",
            ),
        ),
        (
            "health-ai-developer-foundations",
            Known(
                "Health AI Developer Foundations Terms of Use",
                _USE,
                ("Keep to Google's use restrictions; clinical use needs its own clearance.",),
                ("hai-def", "developers.google.com/health-ai-developer-foundations/terms"),
                "https://developers.google.com/health-ai-developer-foundations/terms",
            ),
        ),
        (
            "bigscience-openrail-m",
            Known(
                "BigScience OpenRAIL-M",
                _USE,
                (_FORBIDDEN, _ADOPT, _COPY),
                ("openrail", "openrail-m", "bigscience-openrail"),
                "https://huggingface.co/spaces/bigscience/license",
            ),
        ),
        (
            "bigscience-bloom-rail-1.0",
            Known(
                "BigScience BLOOM RAIL 1.0",
                _USE,
                (_FORBIDDEN, _ADOPT, _COPY),
                ("bloom-rail", "bloom-rail-1.0", "bigscience-rail-1.0"),
                "https://huggingface.co/spaces/bigscience/license",
            ),
        ),
        (
            "creativeml-openrail-m",
            Known(
                "CreativeML Open RAIL-M",
                _USE,
                (_FORBIDDEN, _ADOPT, _COPY),
                ("creativeml-openrail",),
                "https://github.com/CompVis/stable-diffusion/blob/main/LICENSE",
            ),
        ),
        (
            "openrail++",
            Known(
                "CreativeML Open RAIL++-M",
                _USE,
                (_FORBIDDEN, _ADOPT, _COPY),
                ("openrail++-m", "creativeml-openrail++-m"),
                "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
            ),
        ),
        (
            "bigcode-openrail-m",
            Known(
                "BigCode OpenRAIL-M 1",
                _USE,
                (_FORBIDDEN, _ADOPT, _COPY),
                ("bigcode-open-rail-m", "bigcode-open-rail-m-v1"),
                "https://huggingface.co/spaces/bigcode/bigcode-model-license-agreement",
            ),
        ),
        (
            "deepseek",
            Known(
                "DeepSeek License Agreement 1.0",
                _USE,
                (_FORBIDDEN, _ADOPT, _COPY),
                ("deepseek-license", "deepseek-license-1.0", "deepseek-license-agreement", "deepseek-model-license"),
                "https://github.com/deepseek-ai/DeepSeek-V3/blob/main/LICENSE-MODEL",
            ),
        ),
        (
            "tongyi-qianwen",
            Known(
                "Tongyi Qianwen License Agreement",
                _SOURCE,
                (_HUNDRED, _NO_TRAINING, _OWN_COPY),
                ("tongyi-qianwen-license", "tongyi-qianwen-license-agreement"),
                "https://github.com/QwenLM/Qwen/blob/main/Tongyi%20Qianwen%20LICENSE%20AGREEMENT",
            ),
        ),
        (
            "tongyi-qianwen-research",
            Known(
                "Tongyi Qianwen Research License Agreement",
                _NC,
                (_RESEARCH, _NO_TRAINING, _OWN_COPY),
                ("tongyi-qianwen-research-license",),
                "https://github.com/QwenLM/Qwen/blob/main/Tongyi%20Qianwen%20RESEARCH%20LICENSE%20AGREEMENT",
            ),
        ),
        (
            "qwen",
            Known(
                "Qwen License Agreement",
                _SOURCE,
                (_HUNDRED, _WITH_QWEN, _OWN_COPY),
                ("qwen-license", "qwen-license-agreement"),
                "https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE",
            ),
        ),
        (
            "qwen-research",
            Known(
                "Qwen Research License Agreement",
                _NC,
                (_RESEARCH, _WITH_QWEN, _OWN_COPY),
                ("qwen-research-license", "qwen-research-license-agreement"),
                "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct/blob/main/LICENSE",
            ),
        ),
        (
            "kimi-k2",
            Known(
                "Kimi K2 Modified MIT License",
                _SOURCE,
                (
                    "A commercial product with over 100 million monthly active users, or over 20 million US dollars of "
                    "revenue a month, shows 'Kimi K2' prominently.",
                    _KEEP,
                ),
                ("modified-mit", "kimi-k2-modified-mit", "modified-mit-license"),
                "https://github.com/MoonshotAI/Kimi-K2/blob/main/LICENSE",
            ),
        ),
        (
            "nvidia-open-model-license",
            Known(
                "NVIDIA Open Model License",
                _SOURCE,
                (
                    "Do not bypass or weaken a guardrail without one that is as good; your rights end if you do.",
                    "Give a copy of the agreement, and a Notice file that says 'Licensed by NVIDIA Corporation under "
                    "the NVIDIA Open Model License'.",
                    "Your rights end if you sue over copyright or patents in it.",
                ),
                ("nvidia-open-model", "nvidia-open-model-license-agreement"),
                "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/",
            ),
        ),
        (
            "falcon-180b",
            Known(
                "Falcon 180B TII License 1.0",
                _USE,
                (
                    "Ask the Technology Innovation Institute for a licence before you offer it, or what you make from "
                    "it, as a hosted service.",
                    *_FALCON,
                ),
                ("falcon-180b-tii-license", "falcon-180b-license"),
                "https://huggingface.co/tiiuae/falcon-180B/blob/main/LICENSE.txt",
            ),
        ),
        (
            "falcon-2-11b",
            Known(
                "Falcon 2 11B TII License 1.0",
                _USE,
                _FALCON,
                ("falcon-2-11b-tii-license",),
                "https://falconllm.tii.ae/falcon-2-terms-and-conditions.html",
            ),
        ),
        (
            "falcon-llm-license",
            Known(
                "TII Falcon-LLM License 2.0",
                _USE,
                _FALCON,
                ("falcon-llm", "falcon-llm-2.0"),
                "https://falconllm.tii.ae/falcon-terms-and-conditions.html",
            ),
        ),
        (
            "ai2-model",
            Known(
                "AI2 AI Model License Agreement",
                _NC,
                (
                    "Use it for non-commercial research only.",
                    "Do not use it for what its Appendix A forbids.",
                    "Give a copy of the licence and its attribution with every copy.",
                ),
                ("ai-model-license",),
                "https://github.com/allenai/open-instruct/blob/main/assets/model_licenses/tulu_license.txt",
            ),
        ),
        (
            "ai2-impact-lr",
            Known(
                "AI2 ImpACT License, low risk",
                _USE,
                ("Keep to its use restrictions, pass them on, and report what you make from it to AI2.",),
                ("ai2-impact-license-low-risk", "allenai.org/licenses/impact-lr", "impact-lr"),
                "https://allenai.org/licenses/impact-lr",
            ),
        ),
        (
            "ai2-impact-mr",
            Known(
                "AI2 ImpACT License, medium risk",
                _USE,
                (
                    "Keep to its use restrictions, do not pass the artefact on, and report what you make "
                    "from it to AI2.",
                ),
                ("ai2-impact-license-medium-risk", "allenai.org/licenses/impact-mr", "impact-mr"),
                "https://allenai.org/licenses/impact-mr",
            ),
        ),
        (
            "stabilityai-ai-community",
            Known(
                "Stability AI Community License",
                _SOURCE,
                (
                    "Over 1,000,000 US dollars of revenue a year: ask Stability AI for a licence first.",
                    "Show 'Powered by Stability AI' and keep to its use policy.",
                ),
                ("stabilityai-community", "stability-ai-community-license"),
                "https://stability.ai/community-license-agreement",
            ),
        ),
        (
            "stabilityai-nc-research",
            Known(
                "Stability AI Non-Commercial Research Community License",
                _NC,
                ("Use it for non-commercial research only.",),
                ("stabilityai-non-commercial-research-community", "stable-code-nc"),
                "https://huggingface.co/stabilityai",
            ),
        ),
        (
            "flux-1-dev-non-commercial",
            Known(
                "FLUX.1 [dev] Non-Commercial License",
                _NC,
                ("Use the model for non-commercial purposes only.",),
                ("flux-1-dev-non-commercial-license",),
                "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
            ),
        ),
        (
            "exaone",
            Known(
                "EXAONE AI Model License Agreement 1.1 NC",
                _NC,
                ("Use it for research only; ask LG before any commercial use.",),
                ("exaone-nc",),
                "https://huggingface.co/LGAI-EXAONE",
            ),
        ),
        (
            "mrl",
            Known(
                "Mistral AI Research License",
                _NC,
                ("Use it for research only; ask Mistral AI before any commercial use.",),
                ("mistral-research-license", "mistral-ai-research-licence", "mistral-ai-research-license"),
                "https://mistral.ai/licenses/MRL-0.1.md",
            ),
        ),
        (
            "mnpl",
            Known(
                "Mistral AI Non-Production License",
                _NC,
                ("Do not use it in production; ask Mistral AI before any commercial use.",),
                ("mistral-ai-non-production-licence", "mistral-ai-non-production-license", "mnpl-0.1"),
                "https://mistral.ai/licenses/MNPL-0.1.md",
            ),
        ),
        (
            "lfm1.0",
            Known(
                "LFM Open License 1.0",
                _SOURCE,
                ("Over 10 million US dollars of revenue a year: ask Liquid AI for a licence first.",),
                ("lfm", "lfm-open-license"),
                "https://huggingface.co/LiquidAI",
            ),
        ),
        (
            "apple-amlr",
            Known(
                "Apple Machine Learning Research Model License",
                _NC,
                ("Use it for research only.",),
                ("apple-aml-research", "apple-ascl"),
                "https://huggingface.co/apple",
            ),
        ),
        (
            "tencent-hunyuan",
            Known(
                "Tencent Hunyuan Community License",
                _SOURCE,
                (
                    "Not granted in the European Union, the United Kingdom and South Korea.",
                    "Over 100 million monthly active users: ask Tencent for a licence first.",
                ),
                ("tencent-hunyuan-community", "tencent-license"),
                "https://huggingface.co/tencent",
            ),
        ),
        (
            "jamba-open-model-license",
            Known(
                "Jamba Open Model License",
                _SOURCE,
                ("Over 50 million US dollars of revenue a year: ask AI21 for a licence first.",),
                ("jamba-open-model",),
                "https://www.ai21.com/jamba-open-model-license/",
            ),
        ),
    ]
)

RANK = (_OPEN, _SOURCE, _USE, LicenceClass.UNKNOWN, _NC)  # from the mildest to the strictest


def strictest(kinds: list[LicenceClass]) -> LicenceClass:
    """The class that lets its user do least; unknown for none at all."""
    return max(kinds, key=RANK.index, default=LicenceClass.UNKNOWN)


def mildest(kinds: list[LicenceClass]) -> LicenceClass:
    """The class that lets its user do most; unknown for none at all."""
    return min(kinds, key=RANK.index, default=LicenceClass.UNKNOWN)


def slug(name: str) -> str:
    """A name as it is compared: lower case, one hyphen for all that stands between words."""
    plain = re.sub(r"^https?://(?:www\.)?", "", name[:500].strip().lower())
    return re.sub(r"[^a-z0-9.+/]+", "-", plain.replace("licence", "license")).strip("-./")


def named(name: str) -> str:
    """The id of the licence that a tag, a title or a link names; '' where it names none that is known."""
    wanted = re.sub(
        r"(\.html?|\.txt|\.md|/legalcode.*|/deed.*)$", "", slug(name).removeprefix("license-").removeprefix("the-")
    )
    for form in (
        wanted,
        wanted.removesuffix("-license"),
        wanted.removesuffix("-agreement"),
        wanted.replace("-version", "").replace("-v", "-"),
    ):
        if form in _NAMES:
            return _NAMES[form]
    return ""


_NAMES = {
    slug(name): id for id, known in KNOWN.items() for name in (id, known.title, *known.aliases, known.source) if name
}
