"""Where a person can be reached: e-mail addresses, telephone numbers, and the address of a machine.

Addresses that RFC 2606 and RFC 6761 reserve for examples belong to nobody and are not told; nor are private, loopback
and documentation IP addresses. Telephone numbers are checked against the numbering plans in phonenumbers (Google's
libphonenumber): one with its country's code in that plan, one without only beside a word that calls it a telephone
number, in the plans of `TRUNK` and `REGIONS`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from freehold.sensitive.hit import Hit, Kind
from freehold.sensitive.sheet import Sheet, whole

TRUNK = ("GB", "DE", "FR", "IT", "NL", "IN", "CH", "SE", "AU", "BR", "ZA", "JP")  # a number of their own begins with 0
REGIONS = ("US", "ES", "IN", "PL", "IT", "BR", "MX")  # and here with another digit
CHECKED = 500  # telephone numbers in one text; what is shaped like one beyond that is taken for one

# From the @ on, and from it backwards: a search that began with the local part would try every word.
_AT = re.compile(
    r"@(?<=[\w.%+'-]@)(?P<host>(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?P<top>xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24}))"
    r"(?![\w@-])",
    re.I,
)
_LOCAL = re.compile(r"[\w%+'-][\w.%+'-]{0,63}\Z")
_USERINFO = re.compile(r"://[^\s/]*\Z")
_EXAMPLE = re.compile(r"(?:\A|\.)example\.(?:com|net|org|edu)\Z")
_RESERVED = frozenset({"example", "invalid", "test", "localhost", "local", "internal", "lan", "arpa"})
_FILES = frozenset(
    {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "py", "md", "txt", "json", "yaml", "yml", "html"}
    | {"pdf", "zip", "exe", "dll", "so"}
)
_NOBODY = frozenset(
    {"git", "noreply", "no-reply", "donotreply", "do-not-reply", "user", "username", "you", "your.name"}
)

_PLUS = re.compile(r"\+(?<![\w+]\+)\(?[0-9](?:[ .()/-]{0,3}[0-9]){6,16}(?![0-9])")
_PREFIXED = re.compile(r"\+[0-9 .()/-]*\Z")
_PAIRS = re.compile(r"99(?P<mark>[ .-])99(?:(?P=mark)99){3}")  # as in France: 06 12 34 56 78
_NANP = re.compile(r"999\) ?999[-. ]9999|999([-. ])999\1 ?9999")
_LOOSE = re.compile(r"9(?<![9Aa_]9)(?<![9Aa][-./]9)(?:[ .()/-]{0,2}9){6,12}(?![9Aa_])(?![-./,]9)")
_DATED = re.compile(
    r"(?:19|20)[0-9]{2}[-./ ][01]?[0-9][-./ ][0-3]?[0-9]|[0-3]?[0-9][-./][01]?[0-9][-./](?:19|20)[0-9]{2}"
)
_CALLED = whole(
    r"tel|t[ée]l[ée]?(?:ph|f)on\w*|phone\w*|mobile|mobil\w*|cell|cellphone|call(?! ?sign)|ring|text(?: me)?|sms|fax|"
    r"whatsapp|signal|handy\w*|rufnummer|portable|m[óo]vil|celular|cellulare|telefo\w*|contact number|n[uú]m[ée]ro|"
    r"joindre|gsm|hotline|landline|dial|reach me|ph|mob|komórk\w*|電話|手机|电话"
)
_OTHER = whole(
    r"part|sku|isbn|issn|model|serial|p/n|s/n|order|invoice|ref|reference|tracking|version|ean|upc|gtin|imei|account|"
    r"ticket|case|item|batch|lot|build|doi|customer|policy|article|artikel\w*|bestell\w*|rechnung\w*|commande|factura|"
    r"pedido|zamówieni\w*|order\w*"
)
_IPV4 = re.compile(r"9(?<![9Aa_.-]9)9{0,2}(?:\.9{1,3}){3}(?![9Aa_-])(?![./]9)")
_IPV6 = re.compile(r"[0-9a-fA-F](?<![\w:.][0-9a-fA-F])[0-9a-fA-F]{0,3}(?::[0-9a-fA-F]{0,4}){2,7}(?!\w)(?!/[0-9])")
_VERSION = whole(r"v|ver|version|release|build|firmware|driver|oid|section|chapter|§|kapitel|upgraded?|assembly|schema")


def emails(sheet: Sheet) -> Iterator[Hit]:
    """Addresses as RFC 5321 has them, without quoted local parts and bare IP addresses."""
    text = sheet.text
    for found in _AT.finditer(text) if "@" in text else ():
        at = found.start()
        local = _LOCAL.search(text, max(0, at - 64), at)
        if not local or _nobody(local[0].lower(), found["host"].lower(), found["top"].lower()):
            continue
        if not _USERINFO.search(text, max(0, local.start() - 128), local.start()):
            yield Hit(Kind.EMAIL, local.start(), found.end(), "e-mail address")


def _nobody(local: str, host: str, top: str) -> bool:
    """Whether the address is reserved, a service's, or no address at all but the name of a file."""
    reserved = top in _RESERVED or _EXAMPLE.search(host)
    return bool(reserved) or top in _FILES or local in _NOBODY


def phones(sheet: Sheet) -> Iterator[Hit]:
    """Telephone numbers in any of the usual ways of writing them."""
    left = CHECKED
    for start, end, regions in _candidates(sheet):
        if left <= 0 or _assigned(sheet.text[start:end], regions):
            yield Hit(Kind.PHONE, start, end, "telephone number")
        left -= 1


def _candidates(sheet: Sheet) -> Iterator[tuple[int, int, tuple[str | None, ...]]]:
    """What is shaped like one, with the plans in which to look it up."""
    if "+" in sheet.text:
        for found in _PLUS.finditer(sheet.text):
            yield found.start(), found.end(), (None,)
    if "99" not in sheet.shape:
        return
    for found in _LOOSE.finditer(sheet.shape):
        start, end = found.span()
        if _PREFIXED.search(sheet.text, max(0, start - 16), start) or _DATED.match(sheet.text, start, end):
            continue  # the rest of one with a country's code, or a date
        if _CALLED.search(sheet.low, max(0, start - 32), start):
            yield start - _opened(sheet.text, start), end, TRUNK if sheet.text[start] == "0" else REGIONS
        elif (region := _written(found[0])) and not _OTHER.search(sheet.low, max(0, start - 24), start):
            yield start - _opened(sheet.text, start), end, (region,)


def _written(shape: str) -> str:
    """Whose numbers are written so, where that alone tells them from other numbers."""
    return "US" if _NANP.fullmatch(shape) else "FR" if _PAIRS.fullmatch(shape) else ""


def _opened(text: str, start: int) -> int:
    return int(start > 0 and text[start - 1] == "(")


def _assigned(number: str, regions: tuple[str | None, ...]) -> bool:
    import phonenumbers  # a seventh of a second with its plans: only where something looks like a number

    for region in regions:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def addresses(sheet: Sheet) -> Iterator[Hit]:
    """IP addresses that can be reached from anywhere, IPv4 and IPv6."""
    if sheet.text.count(".") >= 3 and "9.9" in sheet.shape:
        for found in _IPV4.finditer(sheet.shape):
            if not _VERSION.search(sheet.low, max(0, found.start() - 16), found.start()):
                yield from _global(sheet.text, *found.span())
    if sheet.text.count(":") >= 7 or "::" in sheet.text:
        for found in _IPV6.finditer(sheet.text):
            groups = [group for group in found[0].split(":") if group]
            if len(groups) < 3 or max(map(len, groups)) < 3:  # code has a::b
                continue
            yield from _global(sheet.text, *found.span())


def _global(text: str, start: int, end: int) -> Iterator[Hit]:
    if text[end - 1] == ":" and text[end - 2] != ":":
        end -= 1  # a colon of the sentence
    try:
        address = ipaddress.ip_address(text[start:end])
    except ValueError:
        return
    if address.is_global and not address.is_multicast:
        yield Hit(Kind.IP_ADDRESS, start, end, f"IPv{address.version} address")
