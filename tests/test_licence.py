"""A licence is told by its text; whoever says otherwise is named."""

import json
import time
from importlib.resources import files as resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.licence import KNOWN, family, identify, judge, words
from freehold.licence.identify import expression, references, restraint, table
from freehold.licence.known import named
from freehold.types import Acquired, Judged, LicenceClass

OPEN, NC = LicenceClass.OPEN, LicenceClass.NON_COMMERCIAL
APACHE = (Path(__file__).parent.parent / "LICENSE").read_text()
MIT = """MIT License

Copyright (c) 2024 A Person

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
ISC = """Copyright 2024 A Person

Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby
granted, provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN
AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR
PERFORMANCE OF THIS SOFTWARE.
"""
BSD_HEAD = """Copyright (c) 2024, A University
All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
   disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the
   following disclaimer in the documentation and/or other materials provided with the distribution.
"""
BSD_NAMES = """
3. Neither the name of {} nor the names of its contributors may be used to endorse or promote products derived from
   this software without specific prior written permission.
"""
BSD_TAIL = """
THIS SOFTWARE IS PROVIDED BY {} "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL {} BE
LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED
TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR
OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""
HOLDERS = "THE COPYRIGHT HOLDERS AND CONTRIBUTORS"
BSD_2 = BSD_HEAD + BSD_TAIL.format(HOLDERS, HOLDERS)
BSD_3 = BSD_HEAD + BSD_NAMES.format("the copyright holder") + BSD_TAIL.format(HOLDERS, HOLDERS)
BSD_3_FILLED = (
    BSD_HEAD + BSD_NAMES.format("A University Research Centre") + BSD_TAIL.format("THE REGENTS", "THE REGENTS")
)
KIMI = MIT + (
    "\nOur only modification part is that, if the Software (or any derivative works\nthereof) is used for any of your "
    "commercial products or services that have\nmore than 100 million monthly active users, or more than 20 million US "
    'dollars\n(or equivalent in other currencies) in monthly revenue, you shall prominently\ndisplay "Kimi K2" on the '
    "user interface of such product or service.\n"
)
FILLED = APACHE.replace("[yyyy] [name of copyright owner]", "2024 Example Cloud")


@pytest.mark.parametrize(
    ("text", "id"),
    [
        (APACHE, "Apache-2.0"),
        (MIT, "MIT"),
        (ISC, "ISC"),
        (BSD_2, "BSD-2-Clause"),
        (BSD_3, "BSD-3-Clause"),
        (KIMI, "kimi-k2"),
    ],
    ids=["apache", "mit", "isc", "bsd2", "bsd3", "kimi"],
)
def test_a_whole_text_is_told(text, id):
    """Each is the licence that it is, and none of its siblings."""
    told = identify(text)
    assert (told.match, told.id, told.kind, told.share, told.added) == ("exact", id, KNOWN[id].kind, 1.0, ())


NEAR = {
    "another holder": MIT.replace(
        "2024 A Person", "2019-2023 The Regents of the Research Institute, Ltd. (see AUTHORS)"
    ),
    "several holders": MIT.replace("Copyright (c)", "Copyright © 2020 Somebody Else\nCopyright (c)"),
    "reflowed": " ".join(MIT.split()),
    "a line each word": "\n".join(MIT.split(" ")),
    "Windows newlines": MIT.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + MIT,
    "markdown": "# MIT License\n\n" + "\n".join("> " + line for line in MIT.splitlines()[2:]),
    "curly quotes": MIT.replace('"AS IS"', "\u201cAS IS\u201d"),
    "comment": "\n".join("# " + line for line in MIT.splitlines()),
    "no title": MIT.removeprefix("MIT License\n"),
    "said above": "This model is licensed under the MIT License.\n\n" + MIT,
    "html": "<p>" + MIT.replace("\n\n", "</p><p>").replace('"', "&quot;") + "</p>",
}


@pytest.mark.parametrize("name", NEAR)
def test_another_copy_of_a_text_is_the_same_licence(name):
    """Whose it is and how it was typed make no difference."""
    told = identify(NEAR[name])
    assert (told.match, told.id) == ("exact", "MIT"), told


def test_blanks_may_be_filled():
    """A name in a BSD licence, and the appendix of Apache's."""
    assert identify(BSD_3_FILLED).id == "BSD-3-Clause"
    assert identify(FILLED).id == "Apache-2.0"
    assert identify(APACHE.partition("END OF TERMS")[0]).id == "Apache-2.0"


ADDED = {
    "at the end": MIT + "\nThe Software may not be used for commercial purposes.\n",
    "in the middle": MIT.replace("\nTHE SOFTWARE", "\nCommercial use requires a separate agreement.\n\nTHE SOFTWARE"),
    "in the copyright line": MIT.replace("A Person", "A Person. Non-commercial use only."),
    "inside a sentence": MIT.replace("any person obtaining", "any person, for non-commercial purposes only, obtaining"),
    "as a heading": MIT.replace("MIT License", "MIT License (non-commercial)"),
    "as a comment": MIT + "\n<!-- For research purposes only. -->\n",
    "in Chinese": MIT + "\n禁止商业用途。\n",
    "short": MIT + "\nNo commercial use.\n",
    "in a tag's place": MIT + "\n<non-commercial use only>\n",
    "unseen letters": MIT + "\nNon\u200b-commer\u00adcial use only.\n",
}


@pytest.mark.parametrize("name", ADDED)
def test_a_clause_against_commerce_is_unmasked(name):
    """Wherever it hides in 'MIT-style' text, it is found, quoted, and makes the licence non-commercial."""
    told = identify(ADDED[name])
    assert (told.match, told.id, told.kind) == ("modified", "", NC), told
    assert told.like == ("MIT",) and told.added


def test_the_added_sentence_is_quoted():
    """Verbatim, so that a person can judge it."""
    assert identify(ADDED["at the end"]).added == ("The Software may not be used for commercial purposes.",)


@pytest.mark.parametrize(
    "clause", ["A royalty of 5% is owed.", "Copyright 2024 A Person, royalties owed.", "See the addendum."]
)
def test_a_short_clause_weighs_something(clause):
    """A few words that ask for something are no title."""
    assert identify(clause + "\n" + MIT).match == "modified"


def test_look_alike_letters_hide_nothing():
    """Cyrillic letters in an added clause: no pattern reads it, and it is an addition all the same."""
    told = identify(MIT + "\nN\u043en-c\u043emm\u0435rcial \u043enly.\n")
    assert (told.match, told.id, told.kind) == ("modified", "", LicenceClass.UNKNOWN)


@pytest.mark.parametrize(
    ("clause", "kind"),
    [
        ("You must not use the Software for military purposes.", LicenceClass.USE_RESTRICTED),
        (
            "Whoever has over 5 million monthly active users asks us first for a separate licence.",
            LicenceClass.SOURCE_AVAILABLE,
        ),
        ("Every user must send the author a postcard from the place where they live.", LicenceClass.UNKNOWN),
        (
            "This may be used for commercial and non-commercial ends alike, provided that you smile.",
            LicenceClass.UNKNOWN,
        ),
    ],
)
def test_an_added_sentence_sets_the_class(clause, kind):
    """By what it speaks of; unknown where that cannot be told."""
    assert identify(MIT + "\n" + clause).kind is kind


def test_a_missing_sentence_is_no_licence():
    """MIT without its condition is not MIT, Apache without a section not Apache; what they are nobody knows."""
    bare = identify(MIT.replace("The above copyright notice and this permission notice shall be included in all\n", ""))
    assert (bare.match, bare.id, bare.kind) == ("modified", "", LicenceClass.UNKNOWN)
    cut = identify(APACHE[: APACHE.index("7. Disclaimer")] + APACHE[APACHE.index("8. Limitation") :])
    assert (cut.match, cut.id, cut.kind, cut.added) == ("modified", "", LicenceClass.UNKNOWN, ())
    assert 0.6 < cut.share < 1 and "missing" in cut.says()


def test_a_changed_word_is_no_licence():
    """'Without restriction' became 'with restrictions'."""
    told = identify(MIT.replace("without restriction", "with restrictions"))
    assert told.match == "modified" and "with restrictions" in " ".join(told.added)


def test_several_licences_in_one_file():
    """Both are told, and the stricter class is the file's."""
    told = identify(MIT + "\n----\n\n" + APACHE)
    assert (told.match, set(told.like), told.kind) == ("exact", {"MIT", "Apache-2.0"}, OPEN)
    assert identify(KIMI + "\n\n" + BSD_3).kind is LicenceClass.SOURCE_AVAILABLE


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("SPDX-License-Identifier: Apache-2.0\n", "Apache-2.0"),
        ("Licensed under the Apache License, Version 2.0.", "Apache-2.0"),
        (
            "Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright \u00a9 Meta Platforms, Inc.",
            "llama3.1",
        ),
        ("Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms", "gemma"),
        ("This model is under CC BY-NC 4.0: https://creativecommons.org/licenses/by-nc/4.0/", "CC-BY-NC-4.0"),
        ("Released under the MIT license.", "MIT"),
        ("apache-2.0", "Apache-2.0"),
    ],
)
def test_a_reference_is_less_than_a_text(text, id):
    """It names a licence, and is told as a reference."""
    told = identify(text)
    assert (told.match, told.id, told.kind) == ("reference", id, KNOWN[id].kind)


def test_the_header_of_apache_is_a_reference():
    """Its 'you may not use this file except in compliance' is its own, and no restriction that somebody added."""
    header = APACHE[APACHE.rindex("Licensed under the Apache") :]
    told = identify("Copyright 2024 A Person\n\n" + header)
    assert (told.match, told.id, told.kind) == ("reference", "Apache-2.0", OPEN)


def test_a_reference_with_a_restriction_is_not_that_licence():
    """'Apache 2.0, for non-commercial use only' is non-commercial."""
    told = identify("Licensed under the Apache License, Version 2.0, for non-commercial use only.")
    assert (told.match, told.id, told.kind, told.like) == ("reference", "", NC, ("Apache-2.0",))


def test_a_reference_with_an_exception_is_open_to_doubt():
    """'MIT, except for the folder with the model in it' does not say what the model is under."""
    told = identify("Released under the MIT license, except for the files in the folder weights/.")
    assert (told.match, told.id, told.kind, told.like) == ("reference", "", LicenceClass.UNKNOWN, ("MIT",))


@pytest.mark.parametrize("text", ["", "  \n", "All rights reserved.", "\0" * 50, "You may look, not touch. " * 40])
def test_what_is_no_licence_is_unknown(text):
    """Nothing is guessed."""
    told = identify(text)
    assert (told.match, told.id, told.kind) == ("unknown", "", LicenceClass.UNKNOWN)


def test_what_is_not_read_is_not_vouched_for():
    """A licence with more text behind it than is read is a changed one."""
    assert identify(MIT + "\n" * words.LIMIT + "Send us money.").match == "modified"


@pytest.mark.parametrize(
    "flood",
    [
        "no. ",
        "<a ",
        "a-",
        "&amp;",
        "not commercial ",
        "\ufdfa ",
        "\n ",
        MIT,
        "subject to the terms and conditions of this license ",
        "SPDX-License-Identifier: ",
    ],
    ids=range(10),
)
def test_a_flood_ends_in_bounded_time(flood):
    """256 Ki characters made to be slow take seconds at the worst, on any machine."""
    began = time.monotonic()
    told = identify(flood * (words.LIMIT // len(flood)))
    assert time.monotonic() - began < 20
    assert len(told.added) <= 20 and all(len(sentence) <= 400 for sentence in told.added)


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=2000)
    | st.lists(st.sampled_from([*MIT.split("\n"), *ISC.split("\n"), "not", "\0", "\ud800"])).map("\n".join)
)
def test_identify_always_answers(text):
    """Whatever the text, there is an answer, and an exact one only for what has no additions."""
    told = identify(text)
    assert told.match in ("exact", "modified", "reference", "unknown")
    assert 0 <= told.share <= 1 and (told.match != "exact" or (told.id and not told.added))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 168), st.sampled_from(["not", "never", "non-commercial", "prohibited"]))
def test_no_place_in_a_text_hides_a_word(place, word):
    """One binding word put anywhere in MIT is seen."""
    cut = MIT.split(" ")
    place = min(place, len(cut))
    assert identify(" ".join([*cut[:place], word, *cut[place:]])).match != "exact"


# -- the tables


def test_every_row_of_the_table_is_known():
    """Each wording belongs to a licence, has pieces, and no text is shipped."""
    rows = json.loads(resources("freehold.licence").joinpath("licences.json").read_text())
    assert {name.partition("@")[0] for name in rows} <= set(KNOWN)
    assert all(wording.weight >= 8 for wording in table())
    assert "permission" not in json.dumps(rows).lower()


@pytest.mark.parametrize(
    "id",
    [
        "Apache-2.0",
        "MIT",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Unlicense",
        "CC0-1.0",
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-NC-ND-4.0",
        "GPL-2.0",
        "GPL-3.0",
        "LGPL-3.0",
        "AGPL-3.0",
        "MPL-2.0",
        "OpenMDW-1.0",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "llama4",
        "gemma",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "bigcode-openrail-m",
        "deepseek",
        "tongyi-qianwen",
        "tongyi-qianwen-research",
        "qwen",
        "qwen-research",
        "kimi-k2",
        "nvidia-open-model-license",
        "falcon-180b",
    ],
)
def test_the_licences_that_models_come_under_are_known_by_text(id):
    """Each has at least one wording in the table."""
    assert any(wording.id == id for wording in table())


def test_a_piece_survives_the_table():
    """Packed and unpacked, it is the same."""
    made = words.pieces(
        "<<optional>>\nA title of four words\n\n<<required>>\nThis is by <<gap 12>> and it is long enough."
    )
    assert words.unpack(words.pack(made)) == made
    assert [piece.optional for piece in made] == [True, True, False] and made[1].gap == 12


def test_known_licences_say_what_they_ask():
    """A title and a source each, and an ask for each that is not open."""
    for id, known in KNOWN.items():
        assert known.title and known.source.startswith("https://"), id
        assert known.asks or known.kind is OPEN, id
    assert any("700 million" in ask for ask in KNOWN["llama3.2"].asks)
    assert any("100 million" in ask for ask in KNOWN["kimi-k2"].asks)


@pytest.mark.parametrize(
    ("tag", "id"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("Apache License 2.0", "Apache-2.0"),
        ("mit", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("llama3.1", "llama3.1"),
        ("gemma", "gemma"),
        ("https://ai.google.dev/gemma/terms", "gemma"),
        ("gpl-3.0-or-later", "GPL-3.0"),
        ("bigscience-bloom-rail-1.0", "bigscience-bloom-rail-1.0"),
        ("modified-mit", "kimi-k2"),
        ("https://huggingface.co/Qwen/Qwen2.5-72B-Instruct/blob/main/LICENSE", "qwen"),
        ("other", ""),
        ("", ""),
        ("x" * 9999, ""),
    ],
)
def test_tags_are_read_as_hubs_write_them(tag, id):
    """Tags, titles and links; what is unknown is nobody's."""
    assert named(tag) == id


def test_an_expression_may_leave_a_choice():
    """OR lets the user choose; AND does not; one unknown part makes the whole unknown."""
    assert expression("MIT OR (GPL-3.0-only)") == (("MIT", "GPL-3.0"), True)
    assert expression("MIT AND Apache-2.0 WITH LLVM-exception") == (("MIT", "Apache-2.0"), False)
    assert expression("MIT OR Unheard-Of-1.0") == ((), False)
    assert references("SPDX-License-Identifier: MIT AND Apache-2.0") == ("Apache-2.0", "MIT")


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
        ("unsloth/Llama-3.2-1B-Instruct-GGUF", "llama3.2"),
        ("TheBloke/Llama-2-7B-GGUF", "llama2"),
        ("NousResearch/Meta-Llama-3-8B", "llama3"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        ("meta-llama/Llama-4-Scout-17B", "llama4"),
        ("codellama/CodeLlama-7b-hf", "llama2"),
        ("huggyllama/llama-7b", "llama1"),
        ("TinyLlama/TinyLlama-1.1B", "Apache-2.0"),
        ("openlm-research/open_llama_3b", "Apache-2.0"),
        ("google/gemma-2-2b-it", "gemma"),
        ("google/gemma-3-4b-it", "gemma"),
        ("google/gemma-4-9b", "Apache-2.0"),
        ("Qwen/Qwen2.5-3B-Instruct", "qwen-research"),
        ("Qwen/Qwen2.5-Coder-3B", "qwen-research"),
        ("Qwen/Qwen2.5-72B", "qwen"),
        ("Qwen/Qwen2.5-7B", "Apache-2.0"),
        ("Qwen/Qwen2.5-VL-32B-Instruct", "Apache-2.0"),
        ("Qwen/Qwen3-8B", "Apache-2.0"),
        ("Qwen/Qwen-7B-Chat", "tongyi-qianwen"),
        ("mistralai/Mistral-7B-v0.1", "Apache-2.0"),
        ("mistralai/Mistral-Large-Instruct-2411", "mrl"),
        ("mistralai/Codestral-22B-v0.1", "mnpl"),
        ("deepseek-ai/DeepSeek-R1", "MIT"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama3.1"),
        ("deepseek-ai/DeepSeek-V2-Lite", "deepseek"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0"),
        ("moonshotai/Kimi-K2-Instruct", "kimi-k2"),
        ("tiiuae/falcon-180B", "falcon-180b"),
        ("tiiuae/falcon-7b", "Apache-2.0"),
    ],
)
def test_a_family_is_told_by_its_name(name, licence):
    """With its exceptions by size and version."""
    assert family.of(name).licence == licence


def test_every_family_has_a_licence_that_is_known():
    """And a name that says nothing belongs to none."""
    assert {row.licence for row in family.FAMILIES} <= set(KNOWN)
    assert family.of("acme/our-own-model-7b") is None and family.of("") is None


# -- all that is said of one model


def quarantined(name="m", source="hf:acme/m@0123", **said) -> Acquired:
    return Acquired(Path("quarantine"), name, source, **said)


def file(path: str, kind: str = "text", **facts) -> Judged:
    return Judged(path, kind, 1, "sha256:00", facts=facts)


def card(text: str = "", **fields) -> Judged:
    return file("README.md", text=text, card=fields)


def test_text_card_and_base_agree():
    """No conflict, and what the licence asks."""
    told = judge(
        [file("LICENSE", text=APACHE), card(license="apache-2.0", base_model="Qwen/Qwen2.5-7B")], quarantined()
    )
    assert (told.id, told.kind, told.conflicts, told.asks) == ("Apache-2.0", OPEN, (), KNOWN["Apache-2.0"].asks)
    assert [stated.id for stated in told.stated] == ["Apache-2.0"] * 3


def test_an_apache_card_over_a_llama_base():
    """Both places are named, and the stricter class counts."""
    told = judge([card(license="apache-2.0", base_model=["meta-llama/Llama-3.1-8B"])], quarantined())
    assert told.kind is LicenceClass.SOURCE_AVAILABLE
    assert told.conflicts == (
        "README.md says apache-2.0; the base model meta-llama/Llama-3.1-8B is under llama3.1, whose terms bind what is "
        "made from it.",
    )
    assert any("700 million" in ask for ask in told.asks)


@pytest.mark.parametrize(
    ("files", "acquired"),
    [
        ([card(license="apache-2.0")], quarantined("Llama-3.2-1B-Instruct-GGUF")),
        ([card(license="apache-2.0")], quarantined(source="hf:acme/My-Llama-3.2-3B@0123")),
        ([card(license="apache-2.0")], quarantined(base_models=("meta-llama/Llama-3.2-1B",))),
        ([card(license="apache-2.0"), file("a.gguf", "gguf", base_models=["meta-llama/Llama-3.2-1B"])], quarantined()),
        (
            [card(license="apache-2.0"), file("a.gguf", "gguf", metadata={"general.basename": "Llama-3.2"})],
            quarantined(),
        ),
        ([file("Llama-3.2-1B-Q4.gguf", "gguf", licence="apache-2.0")], quarantined()),
    ],
    ids=["name", "source", "listing", "gguf base", "gguf basename", "file name"],
)
def test_a_base_is_found_wherever_it_is_named(files, acquired):
    """A name, a source, a listing or a key in the file gives the base away; one sentence says so."""
    told = judge(files, acquired)
    assert told.kind is LicenceClass.SOURCE_AVAILABLE and len(told.conflicts) == 1 and "llama3.2" in told.conflicts[0]


def test_a_gguf_key_that_disagrees_with_the_card():
    """Both are quoted, and neither is believed."""
    told = judge([card(license="mit"), file("m.gguf", "gguf", licence="cc-by-nc-4.0")], quarantined())
    assert told.conflicts == ("README.md says mit; m.gguf, general.license says cc-by-nc-4.0.",)
    assert told.kind is NC


def test_the_text_wins_over_the_tag():
    """A card that says MIT over a text that forbids commerce."""
    told = judge([file("LICENSE.md", text=ADDED["at the end"]), card(license="mit")], quarantined())
    assert (told.id, told.kind) == ("", NC)
    assert told.conflicts == (
        "README.md says mit; LICENSE.md holds MIT, changed: The Software may not be used for commercial purposes.",
    )


def test_an_unknown_text_is_not_made_good_by_a_tag():
    """The tag says MIT; the text is nobody's; so the licence is unknown."""
    told = judge(
        [file("LICENSE", text="You may look at this, and do nothing else. " * 9), card(license="mit")], quarantined()
    )
    assert (told.id, told.kind, len(told.conflicts)) == ("", LicenceClass.UNKNOWN, 1)


def test_tags_alone_are_enough_to_go_by():
    """Three that agree, in the three ways of writing it."""
    files = [card(license="apache-2.0"), file("m.gguf", "gguf", licence="Apache License 2.0")]
    told = judge(files, quarantined(licence="Apache-2.0"))
    assert (told.id, told.kind, told.conflicts, len(told.stated)) == ("Apache-2.0", OPEN, (), 3)


def test_other_with_a_name_and_a_link():
    """'other' says nothing; the name beside it does."""
    link = "https://huggingface.co/Qwen/Qwen2.5-3B-Instruct/blob/main/LICENSE"
    told = judge([card(license="other", license_name="qwen-research", license_link=link)], quarantined(licence="other"))
    assert (told.id, told.kind, told.conflicts) == ("qwen-research", NC, ())


def test_a_name_beside_the_tag_may_contradict_it():
    """'apache-2.0' named 'llama3' in one card."""
    told = judge([card(license="apache-2.0", license_name="llama3")], quarantined())
    assert told.kind is LicenceClass.SOURCE_AVAILABLE and len(told.conflicts) == 1


def test_a_base_under_the_same_terms_or_open_ones_is_no_conflict():
    """Llama made from Llama; anything made from Apache; non-commercial made from Llama, which asks for both."""
    assert judge([card(license="llama3.1", base_model="meta-llama/Llama-3.1-8B")], quarantined()).conflicts == ()
    assert judge([card(license="cc-by-nc-4.0", base_model="mistralai/Mistral-7B-v0.1")], quarantined()).conflicts == ()
    both = judge([card(license="cc-by-nc-4.0", base_model="meta-llama/Llama-3.1-8B")], quarantined())
    assert both.conflicts == () and both.kind is NC and any("Built with Llama" in ask for ask in both.asks)


def test_a_base_that_nobody_knows_is_said_and_nothing_more():
    """It is listed as unknown, and decides nothing."""
    told = judge([card(license="mit", base_model="acme/secret-7b")], quarantined())
    assert (told.kind, told.conflicts) == (OPEN, ()) and told.stated[-1].id == ""


def test_code_and_model_under_two_licences():
    """The stricter one counts, and two files for two things are no conflict."""
    told = judge([file("LICENSE-CODE", text=MIT), file("LICENSE-MODEL", text=KIMI)], quarantined())
    assert (told.id, told.kind, told.conflicts) == ("MIT AND kimi-k2", LicenceClass.SOURCE_AVAILABLE, ())


def test_a_choice_of_licences_is_the_milder_one():
    """'MIT OR CC-BY-NC-4.0' may be used as MIT; a card's list of licences is not a choice."""
    assert judge([card(license="MIT OR CC-BY-NC-4.0")], quarantined()).kind is OPEN
    assert judge([card(license=["mit", "cc-by-nc-4.0"])], quarantined()).kind is NC


def test_a_readme_speaks_where_nothing_else_does():
    """Its section on the licence names one."""
    readme = "# M\n\n## License\n\nReleased under the Llama 3.1 Community License.\n\n## Use\n\nMIT License.\n"
    assert judge([card(readme)], quarantined()).id == "llama3.1"


def test_a_readme_that_forbids_what_its_tag_allows():
    """'Non-commercial' in the section on the licence, under an Apache tag."""
    told = judge([card("# M\n\n### Licence\nFor non-commercial use only.\n", license="apache-2.0")], quarantined())
    assert told.kind is NC and len(told.conflicts) == 1


def test_nothing_said_is_unknown():
    """No licence is no permission."""
    told = judge([file("m.gguf", "gguf")], quarantined())
    assert (told.id, told.kind, told.asks, told.stated) == ("", LicenceClass.UNKNOWN, (), ())


def test_a_third_partys_licence_is_not_the_models():
    """Notices of what is bundled, and use policies, are passed over."""
    files = [file("LICENSE", text=MIT), file("THIRD_PARTY_LICENSES", text=KIMI), file("USE_POLICY.md", text="No.")]
    assert judge(files, quarantined()).id == "MIT"


def test_a_thousand_licence_files_are_not_all_read():
    """Only a mebibyte of them is; the rest is said to be unread, and the licence is unknown."""
    files = [file(f"{number}/LICENSE", text=MIT + " " * 200_000) for number in range(50)]
    told = judge(files, quarantined())
    assert (told.id, told.kind) == ("", LicenceClass.UNKNOWN)
    assert sum(stated.says.startswith("not read") for stated in told.stated) > 40


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(JSON, JSON, JSON, JSON)
def test_any_card_and_any_keys_are_judged(licence, name, bases, key):
    """Values of any kind where strings are expected raise nothing."""
    facts = {"licence": key, "licence_name": name, "base_models": bases, "metadata": key, "name": name}
    files = [card(license=licence, license_name=name, base_model=bases), file("m.gguf", "gguf", **facts)]
    assert judge(files, quarantined()).kind in LicenceClass


def test_what_restrains():
    """A few sentences of each kind, and those that only look like one."""
    assert restraint("This is for academic research only") is NC
    assert restraint("Commercial use is strictly prohibited") is NC
    assert restraint("You may use it for commercial or non-commercial purposes") is None
    assert restraint("Subject to the acceptable use policy") is LicenceClass.USE_RESTRICTED
    assert restraint("Thanks to all who helped") is None
