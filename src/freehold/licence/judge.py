"""Under which licence is this model? Every place that says something is heard, and they are held against each other.

The text decides. A card's tag, a GGUF key and a hub's listing are only words about it; where a text and a word, two
words, or a model and what it was made from disagree, a sentence says so, and names both places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from freehold.licence import family
from freehold.licence.identify import Identified, expression, identify, restraint
from freehold.licence.known import KNOWN, RANK, mildest, strictest
from freehold.types import Acquired, Judged, Licence, LicenceClass, Stated

MAX_BASES, MAX_SAID = 64, 300  # base models heard, and characters quoted of what a place says
MAX_READ = 1 << 20  # characters of licence files, all together
MAX_READMES = 16

_TEXT = re.compile(r"^(?:un)?licen[cs]e|^copying|(?:^|[-_.])licen[cs]e(?:[-_.]|$)|(?:^|[-_])terms", re.I)
_OTHERS = re.compile(r"third[-_ ]?part|3rd[-_ ]?part|policy|header", re.I)
_SECTION = re.compile(r"^#{1,6}[^\n]{0,80}\b(?:licen[cs]e|licensing|terms of use)\b[^\n]{0,80}$", re.I | re.M)
_NOTHING = {"", "other", "unknown", "none", "null", "n/a"}


class _Word(Struct, frozen=True):
    """What one place says. ``text`` where it holds a licence, ``base`` where it speaks of what a model is made from."""

    stated: Stated
    kind: LicenceClass
    ids: tuple[str, ...] = ()
    like: tuple[str, ...] = ()  # what a changed text resembles
    text: bool = False
    base: bool = False

    @property
    def place(self) -> str:
        return self.stated.where


def judge(files: Sequence[Judged], acquired: Acquired, base: tuple[str, Licence] | None = None) -> Licence:
    """The licence of a model: what is stated where, what it comes to, what it asks, and who disagrees with whom.
    ``base`` is the name and licence of the admitted model that an adapter belongs to."""
    own = [*_texts(files), *_cards(files), *_ggufs(files), *_listing(acquired)]
    own += [] if any(word.ids for word in own) else _mentions(files)
    bases = [*([_admitted(*base)] if base else []), *_bases(files, acquired)]
    chief = [word for word in own if word.text] or [word for word in own if word.ids]
    conflicts = tuple(
        dict.fromkeys([*_disagreements(own, chief), *_flowing(own, chief, bases), *_spoken(files, chief)])
    )
    return Licence(
        id=_id(chief),
        kind=_kind(chief, bases, files),
        asks=_asks(chief, bases),
        stated=tuple(word.stated for word in [*own, *bases]),
        conflicts=conflicts,
    )


def _texts(files: Sequence[Judged]) -> list[_Word]:
    """What the licence files hold."""
    made, left = [], MAX_READ
    for file in files:
        name, text = PurePosixPath(file.file).name, file.facts.get("text")
        notice = name.lower().startswith("notice")
        if not isinstance(text, str) or not text.strip() or not (notice or _is_licence(name)):
            continue
        left -= len(text)
        if left < 0:
            made.append(_unread(file.file))
            continue
        told = identify(text)
        if notice and not told.id:
            continue
        made.append(_from_text(file.file, told, text=not notice and told.match != "reference"))
    return made


def _unread(where: str) -> _Word:
    said = Stated(where, f"not read: the licence files hold more than {MAX_READ >> 10} KiB together")
    return _Word(said, LicenceClass.UNKNOWN, text=True)


def _is_licence(name: str) -> bool:
    return bool(_TEXT.search(name)) and not _OTHERS.search(name)


def _from_text(where: str, told: Identified, *, text: bool) -> _Word:
    says = told.says()[:MAX_SAID]
    ids = tuple(told.id.split(" AND ")) if told.id else ()
    return _Word(Stated(where, says, told.id), told.kind, ids, told.like, text=text or not told.id)


def _cards(files: Sequence[Judged]) -> list[_Word]:
    """What the front matter of each README says."""
    made = []
    for file in files:
        card = file.facts.get("card")
        if isinstance(card, dict):
            fields = ("license", "license_name", "license_link")  # of a list of licences, each has a say
            made += _tagged(file.file, [" AND ".join(_strings(card.get(field))) for field in fields])
    return made


def _ggufs(files: Sequence[Judged]) -> list[_Word]:
    """What the keys inside each GGUF file say."""
    fields = ("licence", "licence_name", "licence_link")
    return [
        word
        for file in files
        if file.format == "gguf"
        for word in _tagged(f"{file.file}, general.license", [t for f in fields for t in _strings(file.facts.get(f))])
    ]


def _listing(acquired: Acquired) -> list[_Word]:
    return _tagged(f"the listing of {acquired.source}", [acquired.licence])


def _tagged(where: str, tags: Iterable[str]) -> list[_Word]:
    """One word for each licence that the tags of one place name; one without an id where they name none."""
    said = [tag[:MAX_SAID] for tag in tags if tag.strip()]
    known = [(tag, *expression(tag)) for tag in said]
    made: dict[str, _Word] = {}
    for tag, ids, choice in known:
        if ids:
            joined = (" OR " if choice else " AND ").join(ids)
            kind = (mildest if choice else strictest)([KNOWN[id].kind for id in ids])
            made.setdefault(joined, _Word(Stated(where, tag, joined), kind, ids))
    if made or not said:
        return list(made.values())
    return [_Word(Stated(where, said[0] if len(said) == 1 else ", ".join(said[:2])), LicenceClass.UNKNOWN)]


def _mentions(files: Sequence[Judged]) -> list[_Word]:
    """Where nothing else names a licence: what a README's section of that name says."""
    made = []
    for where, section in _sections(files):
        told = identify(section)
        if told.like:
            made.append(_Word(Stated(where, told.says()[:MAX_SAID], told.id), told.kind, told.like if told.id else ()))
    return made


def _sections(files: Sequence[Judged]) -> list[tuple[str, str]]:
    """The sections on the licence in each README: where, and the text."""
    readmes = [file for file in files if PurePosixPath(file.file).name.lower().startswith("readme")][:MAX_READMES]
    made = []
    for file in readmes:
        text = file.facts.get("text")
        heads = list(_SECTION.finditer(text))[:4] if isinstance(text, str) else []
        made += [
            (f"{file.file}, section '{head[0].strip('# ')}'", _until_heading(text[head.end() : head.end() + 4000]))
            for head in heads
        ]
    return made


def _until_heading(text: str) -> str:
    return re.split(r"^#{1,6}\s", text, maxsplit=1, flags=re.M)[0]


def _bases(files: Sequence[Judged], acquired: Acquired) -> list[_Word]:
    """What the models that this one is made from are under, as far as their names are known."""
    named_by: dict[str, str] = {}
    for where, names in _base_names(files, acquired):
        for name in names:
            if len(named_by) < MAX_BASES:
                named_by.setdefault(name[:MAX_SAID], where)
    return [_base(name, where) for name, where in named_by.items()]


def _admitted(name: str, licence: Licence) -> _Word:
    """What the base of an adapter is under, as it was told when that was admitted."""
    ids = tuple(id for id in re.split(r" (?:AND|OR) ", licence.id) if id in KNOWN)
    said = Stated(f"base model {name}, admitted here", licence.id or licence.kind.value, licence.id)
    return _Word(said, licence.kind, ids, base=True)


def _base_names(files: Sequence[Judged], acquired: Acquired) -> list[tuple[str, list[str]]]:
    """Where a base model is named, and the names; the model's own name gives a well-known family away too."""
    made = []
    for file in files:
        card = file.facts.get("card")
        if isinstance(card, dict):
            made.append((file.file, _strings(card.get("base_model"))))
        if file.format == "gguf":
            made.append((file.file, _strings(file.facts.get("base_models"))))
    made.append((f"the listing of {acquired.source}", list(acquired.base_models)))
    return [*made, *_own_names(files, acquired)]


def _own_names(files: Sequence[Judged], acquired: Acquired) -> list[tuple[str, list[str]]]:
    said = [("the model's name", acquired.name), ("the model's source", acquired.source.partition("@")[0])]
    for file in files:
        if file.format == "gguf":
            metadata = file.facts.get("metadata")
            base = metadata.get("general.basename") if isinstance(metadata, dict) else ""
            said += [(f"{file.file}, general.name", file.facts.get("name")), (f"{file.file}, general.basename", base)]
            said.append(("the file's name", PurePosixPath(file.file).stem))
    return [(where, [name]) for where, name in said if isinstance(name, str) and name and family.of(name)]


def _base(name: str, where: str) -> _Word:
    found = family.of(name)
    own = where.startswith(("the model's", "the file's")) or ", general." in where
    place = f"{name} ({where})" if own else f"base model {name}, named by {where}"
    if found is None:
        return _Word(Stated(place, "no family that is known here"), LicenceClass.UNKNOWN, base=True)
    said = Stated(place, f"{found.licence}, by {found.source}", found.licence)
    return _Word(said, KNOWN[found.licence].kind, (found.licence,), base=True)


def _disagreements(own: list[_Word], chief: list[_Word]) -> list[str]:
    """Texts against words about them; where there is no text, words against each other; two tags of one place too."""
    texts = [word for word in chief if word.text]
    if not texts:
        return [_against(a, b) for a, b in combinations(_distinct(chief), 2)]
    held = {id for word in texts for id in word.ids}
    kind = strictest([word.kind for word in texts])
    made = []
    for word in own:
        if word.text or not word.ids:
            continue
        if not held.intersection(word.ids) or (RANK.index(word.kind) < RANK.index(kind)):
            made.append(_against(word, max(texts, key=lambda text: RANK.index(text.kind))))
        elif RANK.index(word.kind) > RANK.index(kind):
            made.append(_against(word, texts[0]))
    return made


def _distinct(said: list[_Word]) -> list[_Word]:
    """One word for each licence that is named."""
    return list({frozenset(word.ids): word for word in reversed(said)}.values())[::-1]


def _against(a: _Word, b: _Word) -> str:
    return f"{_says(a)}; {_says(b)}."


def _flowing(own: list[_Word], chief: list[_Word], bases: list[_Word]) -> list[str]:
    """Where a base model's terms bind what is made from it, and the model is said to be under milder or other ones."""
    if not chief:
        return []
    held = {id for word in chief for id in word.ids}
    kind = strictest([word.kind for word in chief])
    said = " and ".join(_says(word) for word in [word for word in own if word.ids or word.text][:3])
    binding = [word for word in bases if word.ids and word.ids[0] not in held and _binds(word, kind)]
    once = {word.ids[0]: word for word in reversed(binding)}
    return [
        f"{said}; {_what(word)} is under {id}, whose terms bind what is made from it."
        for id, word in reversed(once.items())
    ]


def _says(word: _Word) -> str:
    return f"{word.place} {'holds' if word.text else 'says'} {word.stated.says.rstrip('.;')}"


def _what(word: _Word) -> str:
    """The base model; or the family that a name gives away."""
    name = word.place.partition(", named by ")[0]
    return f"the {name}" if name != word.place else f"the family that the name {name} tells of"


def _binds(word: _Word, kind: LicenceClass) -> bool:
    """Does the base's licence ask for more than the model's own does?"""
    if KNOWN[word.ids[0]].share_alike:
        return kind is not LicenceClass.NON_COMMERCIAL or word.kind is LicenceClass.NON_COMMERCIAL
    if word.kind is LicenceClass.OPEN:
        return False
    return kind is not LicenceClass.NON_COMMERCIAL


def _spoken(files: Sequence[Judged], chief: list[_Word]) -> list[str]:
    """A README that says 'non-commercial' in its section on the licence, over a licence that does not."""
    if not chief or strictest([word.kind for word in chief]) is LicenceClass.NON_COMMERCIAL:
        return []
    return [
        f"{where} speaks of non-commercial use; {_says(chief[0])}."
        for where, section in _sections(files)
        if restraint(section) is LicenceClass.NON_COMMERCIAL
    ]


def _id(chief: list[_Word]) -> str:
    """The strictest licence that is stated, several of one rank joined; '' where a text is changed or unknown."""
    if not chief or not all(word.ids for word in chief):
        return ""
    texts = [word for word in chief if word.text]
    if texts:
        return " AND ".join(dict.fromkeys(id for word in texts for id in word.ids))
    return max(chief, key=lambda word: RANK.index(word.kind)).stated.id


def _kind(chief: list[_Word], bases: list[_Word], files: Sequence[Judged]) -> LicenceClass:
    """The strictest class of all that is said; a base adds to what the model itself says, and never makes it milder."""
    said = [word.kind for word in [*chief, *(base for base in bases if base.ids)]]
    if not chief:
        said.append(LicenceClass.UNKNOWN)
    said += [LicenceClass.NON_COMMERCIAL for _ in _spoken(files, chief)]
    return strictest(said)


def _asks(chief: list[_Word], bases: list[_Word]) -> tuple[str, ...]:
    """What each licence asks; that of a base too, where its terms flow down."""
    ids = [id for word in chief for id in (word.ids or word.like)]
    ids += [id for word in bases for id in word.ids if KNOWN[id].kind is not LicenceClass.OPEN]
    return tuple(dict.fromkeys(ask for id in ids for ask in KNOWN[id].asks))


def _strings(value: Any) -> list[str]:
    """A string, or the strings of a list of them."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values[:MAX_BASES] if isinstance(item, str) and item.strip()]
