"""Numbers that name an account or a person: payment cards, IBANs and national identity numbers.

Each is known by how it is written and by its check digits, which python-stdnum has. How strong that is differs. Where
one ordinary number in a hundred or more would pass, a word must stand beside it that says what it is: a nine-digit
number is a burgerservicenummer only where somebody calls it one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

from msgspec import Struct

from freehold.sensitive.hit import Hit, Kind
from freehold.sensitive.sheet import Sheet, whole


class Number(Struct, frozen=True):
    """A national number: its module in stdnum, how it is written where that alone tells it (9: a digit, A: a letter),
    how it is written where one of ``words`` must stand beside it, and those words."""

    what: str
    module: str
    sure: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    words: str = ""


D9, D10, D11, D12, D13 = ("9" * size for size in (9, 10, 11, 12, 13))

NATIONAL = (
    Number("US Social Security number", "us.ssn", (), ("999-99-9999", "999 99 9999", D9),
        r"ssn|social security|soc\.? sec"),
    Number("US taxpayer number (ITIN)", "us.itin", (), ("999-99-9999", D9), r"itin|taxpayer id\w*|tax id\w*"),
    Number("German tax number (Steuer-ID)", "de.idnr", (), ("99 999 999 999", D11),
        r"steuer\W?id\w*|steuerliche id\w*|idnr|identifikationsnummer|tax id\w*"),
    Number("French social security number (NIR)", "fr.nir",
        ("9 99 99 99 999 999 99", "9 99 99 9A 999 999 99", "9" * 15, "999999A99999999")),
    Number("Spanish DNI", "es.dni", ("99999999A", "99999999-A", "99.999.999-A", "99999999 A")),
    Number("Spanish NIE", "es.nie", ("A9999999A", "A-9999999-A", "A9999999-A")),
    Number("Italian codice fiscale", "it.codicefiscale", ("AAAAAA99A99A999A", "AAA AAA 99A99 A999A")),
    Number("Dutch citizen number (BSN)", "nl.bsn", (), (D9, "999 999 999", "9999.99.999", "9999 99 999"),
        r"bsn|burgerservice\w*|sofi\w*"),
    Number("UK National Insurance number", "", ("AA 99 99 99 A",), ("AA999999A", "AA-99-99-99-A", "AA 999999 A"),
        r"nino|ni|ni number|national insurance"),
    Number("UK NHS number", "gb.nhs", (), ("999 999 9999", "999-999-9999", D10), r"nhs"),
    Number("Polish PESEL", "pl.pesel", (), (D11,), r"pesel\w*"),
    Number("Swedish personnummer", "se.personnummer", ("999999-9999", "99999999-9999"), (D10, D12),
        r"personnummer|personnr|pnr|personal number"),
    Number("Finnish identity code", "fi.hetu", ("999999-999A", "999999A999A", "999999-9999")),
    Number("Danish CPR number", "dk.cpr", (), ("999999-9999", D10), r"cpr|personnummer"),
    Number("Norwegian identity number", "no.fodselsnummer", (), (D11, "999999 99999"),
        r"f[øo]dselsnummer|personnummer|fnr"),
    Number("Belgian national number", "be.nn", ("99.99.99-999.99",), (D11,),
        r"rijksregister\w*|registre national|national number|insz|niss"),
    Number("Swiss AHV number", "ch.ssn", ("999.9999.9999.99",), (D13,), r"ahv\w*|avs|oasi"),
    Number("Austrian insurance number", "at.vnr", (), ("9999 999999", D10),
        r"svnr|sv-nr|sozialversicherung\w*|versicherungsnummer"),
    Number("Portuguese NIF", "pt.nif", (), (D9, "999 999 999"), r"nif|contribuinte"),
    Number("Romanian CNP", "ro.cnp", (), (D13,), r"cnp|cod numeric personal"),
    Number("Czech birth number", "cz.rc", ("999999/9999",), (D10,), r"rodn[ée] [čc][íi]slo|r\.?[čc]\.?"),
    Number("Bulgarian EGN", "bg.egn", (), (D10,), r"егн|egn"),
    Number("Croatian OIB", "hr.oib", (), (D11,), r"oib"),
    Number("Greek AMKA", "gr.amka", (), (D11,), r"amka|αμκα"),
    Number("Irish PPS number", "ie.pps", (), ("9999999A", "9999999AA"), r"pps\w*"),
    Number("Estonian identity code", "ee.ik", (), (D11,), r"isikukood"),
    Number("Lithuanian identity code", "lt.asmens", (), (D11,), r"asmens kodas"),
    Number("Turkish identity number", "tr.tckimlik", (), (D11,), r"t\.?c\.?|tckn|kimlik\w*"),
    Number("Brazilian CPF", "br.cpf", ("999.999.999-99",), (D11, "999999999-99"), r"cpf"),
    Number("Argentine CUIT", "ar.cuit", ("99-99999999-9",), (D11,), r"cui[tl]"),
    Number("Chilean RUT", "cl.rut", ("99.999.999-9", "99.999.999-A", "9.999.999-9", "9.999.999-A"),
        ("99999999-9", "99999999-A"), r"rut|run"),
    Number("Mexican CURP", "mx.curp", ("AAAA999999AAAAAA99", "AAAA999999AAAAAAA9")),
    Number("Canadian social insurance number", "ca.sin", (), ("999 999 999", "999-999-999", D9),
        r"sin|social insurance|nas"),
    Number("Indian Aadhaar", "in_.aadhaar", (), ("9999 9999 9999", "9999-9999-9999", D12), r"aadha?ar\w*|uidai|आधार"),
    Number("Indian PAN", "in_.pan", (), ("AAAAA9999A",), r"pan|permanent account"),
    Number("Chinese resident number", "cn.ric", ("9" * 18, "9" * 17 + "A")),
    Number("Korean resident number", "kr.rrn", ("999999-9999999",)),
    Number("South African identity number", "za.idnr", (), (D13, "999999 9999 999"),
        r"id|identity|id number|identity number|id no\.?"),
    Number("Israeli identity number", "il.idnr", (), (D9,), r"teudat zehut|israeli id|תעודת זהות|ת\.ז\.?"),
    Number("Australian tax file number", "au.tfn", (), (D9, "999 999 999"), r"tfn|tax file"),
)  # fmt: skip

# By the first digits, as far as one is as long as the other: whose card, and its lengths (ISO/IEC 7812, the networks).
ISSUERS = (
    ("Visa", ("4",), (13, 16, 19)),
    ("Mastercard", (*map(str, range(51, 56)), *map(str, range(2221, 2721))), (16,)),
    ("American Express", ("34", "37"), (15,)),
    ("Discover", ("6011", *map(str, range(644, 650)), "65"), (16, 19)),
    ("Diners Club", ("300", "301", "302", "303", "304", "305", "3095", "36", "38", "39"), (14, 16, 19)),
    ("JCB", tuple(map(str, range(3528, 3590))), (16, 19)),
    ("UnionPay", ("62", "81"), (16, 17, 18, 19)),
    ("Mir", ("2200", "2201", "2202", "2203", "2204"), (16,)),
    ("RuPay", ("508", "60", "82"), (16,)),
    ("Troy", ("9792",), (16,)),
    ("Maestro", ("5018", "5020", "5038", "5893", "6304", "6759", "6761", "6762", "6763"), tuple(range(12, 20))),
)  # fmt: skip
CARDS = (
    *("9" * size for size in range(12, 20)),
    *(mark.join(groups.split()) for mark in " -" for groups in (
        "9999 9999 9999 9999", "9999 9999 9999 9999 999", "9999 999999 99999", "9999 999999 9999", "9999 9999 9999 9",
    )),
)  # fmt: skip
_CARD = whole(
    r"cards?|visa|mastercard|amex|american express|pan|maestro|credit|debit|kreditkarte\w*|carte\w*|tarjeta\w*|carta|"
    r"karta|cartão|kort"
)
_OTHER = re.compile(
    r"(?:order|invoice|tracking|parcel|shipment|ref|reference|ticket|imei|serial|isbn|ean|gtin|upc|barcode|transaction|"
    r"txn|case|batch|trace|request|session|message|msg|user|item|product|commande|factura|pedido|bestellung|sendung\w*|"
    r"rechnung\w*|ordine|zamówieni\w*|id|timestamp|ts)"
    r"(?:[ _-]?(?:no|nr|num|number|id|code|nummer|numero))?[\"'\s.:=#-]*\Z"
)
_PLAIN = re.compile("9+")

# How long an IBAN is in each country: the IBAN registry that SWIFT keeps for ISO 13616.
IBAN_LENGTHS = {
    country: size
    for size, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_IBAN = (re.compile(r"AA99(?<![9Aa_]AA99)"), re.compile(r"aa99(?<![9Aa_]aa99)"))


@cache
def _national() -> tuple[dict[str, list[tuple[Number, bool]]], tuple[re.Pattern[str], ...]]:
    """Who writes its numbers in which shape, and patterns of all the shapes: those that begin with a digit, and the
    others. In a pattern the first character comes before what must not precede it, so that a search skips to it."""
    who: dict[str, list[tuple[Number, bool]]] = defaultdict(list)
    for number in NATIONAL:
        for shape in number.sure:
            who[shape].append((number, False))
        for shape in number.named:
            who[shape].append((number, True))
    shapes = sorted({*who, *CARDS})
    return dict(who), tuple(_pattern([shape for shape in shapes if shape[0] == first]) for first in "9A")


def _pattern(shapes: list[str]) -> re.Pattern[str]:
    """One that matches the longest of the shapes. As a tree, by the next character: a list would be tried in turn."""
    tree: dict[str, Any] = {}
    for shape in shapes:
        node = tree
        for character in shape:
            node = node.setdefault(character, {})
        node[""] = {}
    ((first, rest),) = tree.items()
    return re.compile(
        rf"{first}(?<![9Aa_]{first})(?<![9Aa][-./]{first})" + _alternatives(rest) + r"(?![9Aa_])(?![-./]9)"
    )


def _alternatives(tree: dict[str, Any]) -> str:
    ways = [re.escape(character) + _alternatives(rest) for character, rest in tree.items() if character]
    if not ways:
        return ""
    return f"(?:{'|'.join(ways)})" + ("?" if "" in tree else "")


def find(sheet: Sheet, cards: bool = True, nationals: bool = True) -> Iterator[Hit]:
    """Payment cards and national numbers."""
    if "99" not in sheet.shape:
        return
    who, patterns = _national()
    for pattern in patterns:
        start = 0
        while found := pattern.search(sheet.shape, start):
            hit = (cards and _card(sheet, found)) or (nationals and _person(sheet, found, who))
            if hit:
                yield hit
            start = hit.end if hit else _next_group(sheet.shape, found.start())


def _next_group(shape: str, start: int) -> int:
    """Where the next group begins: what was no number as a whole may still begin with something else."""
    while start < len(shape) and shape[start] in "9A":
        start += 1
    return start


def _card(sheet: Sheet, found: re.Match[str]) -> Hit | None:
    start, end = found.span()
    if found[0] not in _CARD_SHAPES:
        return None
    digits = sheet.text[start:end].replace(" ", "").replace("-", "")
    name = issuer(digits)
    if not name or not _passes("luhn", digits) or len(set(digits)) < 2:
        return None
    if sheet.shape[max(0, start - 5) : start] == "AA99 ":  # an IBAN whose check digits are wrong
        return None
    plain = _PLAIN.fullmatch(found[0])
    if plain and _OTHER.search(sheet.low, max(0, start - 32), start):
        return None
    if plain and (name == "Maestro" or len(digits) not in (15, 16)) and not sheet.says(_CARD, start, end):
        return None
    return Hit(Kind.CARD, start, end, f"{name} card number")


_CARD_SHAPES = frozenset(CARDS)


@cache
def _prefixes() -> dict[str, tuple[str, tuple[int, ...]]]:
    return {prefix: (name, lengths) for name, prefixes, lengths in ISSUERS for prefix in prefixes}


def issuer(digits: str) -> str:
    """Whose card a number of these digits would be, '' where nobody gives out such numbers."""
    for size in (4, 3, 2, 1):
        name, lengths = _prefixes().get(digits[:size], ("", ()))
        if len(digits) in lengths:
            return name
    return ""


def _person(sheet: Sheet, found: re.Match[str], who: dict[str, list[tuple[Number, bool]]]) -> Hit | None:
    start, end = found.span()
    for number, named in who.get(found[0], ()):
        if named and not sheet.says(_words(number.words), start, end):
            continue
        if _passes(number.module, sheet.text[start:end].replace(" ", "")):
            return Hit(Kind.NATIONAL_ID, start, end, number.what)
    return None


_words: Callable[[str], re.Pattern[str]] = cache(whole)
_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[ABCEGHJ-PRSTW-Z][ABCEGHJ-NPRSTW-Z][0-9]{6}[A-D]")


def _passes(module: str, number: str) -> bool:
    """Whether the number's check digits, and what else its kind demands, are right."""
    if not module:  # HMRC's manual, NIM39110: no check digit, and which letters may stand where
        return bool(_NINO.fullmatch(re.sub(r"[ -]", "", number)))
    return import_module(f"stdnum.{module}").is_valid(number)


def ibans(sheet: Sheet) -> Iterator[Hit]:
    """ISO 13616: as long as its country's are, with the check digits of ISO 7064 (mod 97-10), in its country's form."""
    for found in (*_IBAN[0].finditer(sheet.shape), *_IBAN[1].finditer(sheet.shape)):
        start = found.start()
        size = IBAN_LENGTHS.get(sheet.text[start : start + 2].upper())
        if size and (end := _iban_end(sheet.text, start, size)) and _is_iban(sheet.text[start:end]):
            yield Hit(Kind.IBAN, start, end, "IBAN")


def _iban_end(text: str, start: int, size: int) -> int:
    """Where so many letters and digits end, with at most one space or dash between any two; 0 where they do not."""
    end, left = start, size
    for position in range(start, min(len(text), start + 2 * size)):
        letter = text[position]
        if letter.isascii() and letter.isalnum():
            left -= 1
            end = position + 1
            if not left:
                break
        elif letter not in " -" or position != end:
            return 0
    after = text[end : end + 1]
    return 0 if left or (after.isascii() and after.isalnum()) else end


def _is_iban(number: str) -> bool:
    compact = number.replace(" ", "").replace("-", "").upper()
    if int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 != 1:
        return False
    return _passes("iban", compact)
