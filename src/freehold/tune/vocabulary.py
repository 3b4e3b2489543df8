"""Does the engine read texts in the tokens that the model was made with?

What is trained on are the engine's own tokens (`Probe.tokens`): they are what the adapter will meet. Whether these are
right is another question, and nothing in training would show it. The engine knows how to split a text only by a name in
the file and falls back to another way where it does not know that name; a GGUF may have been made from another
vocabulary than the weights beside it, and then row 4,711 of the embeddings is another word. So a second implementation,
the tokenizer of the publisher's own library, reads the same texts, and every id is compared.

It is built from the repository's ``tokenizer.json`` where there is one, which is the publisher's word, and otherwise
from what the GGUF says. Of the latter's ways to split, those of the families here are known; with another, nothing is
compared, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from freehold.errors import BadModel, CannotDo
from freehold.tune.tensors import File

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTROL, _USER_DEFINED = 3, 4  # types of token in a GGUF that a text may name
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How texts are split before tokens are looked up, by the name in the file: the publishers' own patterns.
_SPLITS = {
    "qwen2": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST,
    "llama-bpe": _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST,
}
_DIGITS = {"gpt-2": False, "smollm": True}  # split as GPT-2 does; the value: each digit by itself


class Compared(Struct, frozen=True):
    """What was compared: so many ``texts`` and ``tokens``, ``against`` what. ``skipped`` says why nothing was."""

    texts: int = 0
    tokens: int = 0
    against: str = ""
    skipped: str = ""


def compare(texts: Iterable[str], tokens_of: Callable[[str], Sequence[int]], files: Mapping[str, Path]) -> Compared:
    """Compare the engine's tokens of each text (``tokens_of``, which adds none at the beginning) with those of the
    model's tokenizer, id by id. ``files`` are the model's, by their names in it.

    Raises:
        CannotDo: they differ; the first difference is named.
        BadModel: the model's tokenizer cannot be read.
    """
    tokenizer, source = _tokenizer(files)
    if tokenizer is None:
        return Compared(skipped=source)
    count = tokens = 0
    for text in texts:
        engine = tokens_of(text)
        _check(count, engine, tokenizer.encode(text, add_special_tokens=False).ids, tokenizer, source)
        count, tokens = count + 1, tokens + len(engine)
    return Compared(count, tokens, source)


def _check(number: int, engine: Sequence[int], own: Sequence[int], tokenizer: Tokenizer, source: str) -> None:
    for place, (theirs, ours) in enumerate(zip_longest(engine, own)):
        if theirs != ours:
            raise CannotDo(
                f"The engine reads text {number + 1} in other tokens than the model's own tokenizer ({source}): "
                f"its token {place + 1} is {_shown(tokenizer, theirs)} for the one and {_shown(tokenizer, ours)} for "
                "the other.",
                hint="The model would be trained, and asked, in tokens that it was not made with. Take another GGUF of "
                "it, or one of the same repository.",
            )


def _shown(tokenizer: Tokenizer, token: int | None) -> str:
    if token is None:
        return "none"
    return f"{token} ({tokenizer.id_to_token(token)!r})"


def _tokenizer(files: Mapping[str, Path]) -> tuple[Tokenizer | None, str]:
    """The model's tokenizer and where it is from; or none, and why."""
    from tokenizers import Tokenizer

    if path := files.get("tokenizer.json"):
        try:
            return Tokenizer.from_str(path.read_text(encoding="utf-8")), "tokenizer.json"
        except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
            raise BadModel(f"The model's tokenizer.json cannot be read: {error}.") from None
    ggufs = [path for name, path in sorted(files.items()) if name.lower().endswith(".gguf")]
    if not ggufs:
        return None, "the model has no tokenizer.json"
    said = File(ggufs[0]).metadata
    kind, split = said.get("tokenizer.ggml.model"), said.get("tokenizer.ggml.pre", "")
    if kind != "gpt2" or (split not in _SPLITS and split not in _DIGITS):
        return None, f"no second implementation of its tokenizer ({kind}, {split or 'no way to split named'}) is here"
    return _byte_pairs(said, split), "the vocabulary in the GGUF"


def _byte_pairs(said: Mapping[str, Any], split: str) -> Tokenizer:
    """A byte-level tokenizer from what a GGUF says."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    try:
        tokens, kinds = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
        merges = [tuple(merge.split(" ", 1)) for merge in said["tokenizer.ggml.merges"]]
    except KeyError as error:
        raise BadModel(f"The model's file has no {error.args[0]}.") from None
    vocabulary = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=split == "llama-bpe"))
    if split in _DIGITS:
        first = [pre_tokenizers.Digits(individual_digits=True)] if _DIGITS[split] else []
        steps = [*first, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        pieces = pre_tokenizers.Split(Regex(_SPLITS[split]), "isolated")
        steps = [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if split == "qwen2":
        made.normalizer = normalizers.NFC()
    named = [token for token, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _USER_DEFINED)]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in named])
    return made
