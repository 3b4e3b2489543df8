"""Secrets known by what stands beside them: passwords in assignments and URLs, and random words called a key."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from freehold.sensitive.hit import Hit, Kind
from freehold.sensitive.random import placeholder, random
from freehold.sensitive.sheet import Sheet

PASSWORDS = (
    "password", "passwd", "passwort", "passphrase", "passcode", "pwd", "kennwort", "contrasena", "senha", "wachtwoord",
    "mot de passe", "adgangskode", "salasana", "contraseña", "hasło", "lösenord", "пароль", "密码", "パスワード",
)  # fmt: skip
_PASS = tuple(word for word in PASSWORDS if "pass" in word)
_OTHERS = tuple(word for word in PASSWORDS if word.isascii() and "pass" not in word)
_FOREIGN = tuple(word for word in PASSWORDS if not word.isascii())
SECRETS = ("secret", "token", "credential", "bearer", "key")
_KEYS = (
    "api", "access", "private", "signing", "encryption", "auth", "account", "master", "shared", "service", "client",
    "secret", "app", "admin", "deploy", "webhook", "hmac", "license", "server", "storage", "session", "refresh",
)  # fmt: skip
# What follows the word: the rest of its name, quotes (escaped ones too), what joins it to the value, and the value.
_NAME = r"(?P<name>[\w.-]{0,24}+)(?:\\{0,2}[\"'`]){0,1}[\])]?"
_JOIN = (
    r"(?:[ \t]{0,8}(?:=>|:=|==?|::?|\||>)[ \t]{0,8}|"
    r"[ \t]{1,3}(?:is|was|lautet|ist|est|es|è|é|jest|är|er)(?:[ \t]{0,2}:)?[ \t]{1,3})"
)
_VALUE = (
    r"(?:\\{0,2}(?P<quote>[\"'`])(?P<quoted>[^\n\"'`]{3,512}?)\\{0,2}(?P=quote)|"
    r"(?P<bare>[^\s\"'`,;<>(){}\[\]|\\]{4,512}))"
)
_ASSIGNED = re.compile(_NAME + _JOIN + _VALUE)
_SPACED = re.compile(r"(?P<name>)(?P<quote>)(?P<quoted>)[ \t]{1,3}(?P<bare>[^\s\"'`,;<>(){}\[\]|\\]{4,512})")
_TITLE = re.compile(
    r"[_.-]?(?:hints?|reset|url|uri|path|file|field|hash|length|len|policy|polic|min|max|type|name|expir\w*|ttl|count|"
    r"limit|usage|id|label|placeholder|algorithm|size|endpoint|scopes?|required|rules?|bits|budget|manager|words?)(?![a-z])"
)
_NOT_A_VALUE = re.compile(
    r"(?:none|null|nil|true|false|undefined|string|str|int|text|bytes|optional|required|missing|incorrect|invalid|"
    r"hidden|unset|empty|n/?a|todo|secret|value|word|in|not|on|off|yes|no)\W*|"
    r"(?:os|env|process|settings|config|self|this|args|getenv|vault|secrets|params|request|req|var|data|local|module|"
    r"input|user|props|state|ctx|credentials)[.:/].*|\$\{.*|\$[a-z_]+|%\w+%|%s|%\(.*|#\{.*|&\w+;?|\W+|.*\.\.\..*|(.)\1+|//.*"
)
_NEXT = re.compile(r"&(?=[\w.-]{1,40}=)")  # where the next parameter of a query begins
_STRONG = re.compile(r"(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[^\s]*[!@#$%^&*+?]")
_URL = re.compile(r"://[^\s:/?#@\"'<>]{0,128}:(?![0-9]{1,5}[/?#])(?P<value>[^\s/\"'<>]{2,256})@[A-Za-z0-9\[_-]")
_BASIC = re.compile(r"basic\s{1,3}([A-Za-z0-9+/]{8,512}={0,2})", re.I)
_SECRET_WORD = re.compile(r"[A-Za-z0-9+/=_.~-]{16,512}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_TURNS = re.compile(r"[A-Z](?=[a-z])|[a-z](?=[A-Z])")  # a name of several words has fewer
_LETTERS = re.compile(r"[^\W\d]+(?:[-.][^\W\d]+)*[.!?:]*")


def find(sheet: Sheet) -> Iterator[Hit]:
    """Passwords and generic secrets."""
    low = sheet.low
    for word in _words(low):
        if word in low:
            for end in _ends(low, word):
                yield from _password(sheet, end)
    for word in SECRETS:
        if word in low:
            for end in _ends(low, word):
                if word != "key" or _named(low, end, 3):
                    yield from _secret(sheet, word, end)
    if "://" in low:
        yield from _in_urls(sheet.text)
    if "basic" in low:
        yield from _basic(sheet.text)


def _words(low: str) -> tuple[str, ...]:
    """Those that may be in the text, by tests that most texts fail."""
    words = _OTHERS + _PASS if "pass" in low else _OTHERS
    return words if low.isascii() else words + _FOREIGN


def _ends(low: str, word: str) -> Iterator[int]:
    start = low.find(word)
    while start >= 0:
        yield start + len(word)
        start = low.find(word, start + len(word))


def _named(low: str, end: int, size: int = 5) -> bool:
    """Whether the word that ends here is called a secret one: an API key, an access token."""
    return low[max(0, end - size - 13) : end - size].rstrip(" _-").endswith(_KEYS)


def _value(found: re.Match[str] | None) -> tuple[str, int, int, bool]:
    """The value, where it stands, and whether it is in quotes; '' where there is none."""
    if not found or _TITLE.match(found["name"]):
        return "", 0, 0, False
    group = "quoted" if found["quoted"] else "bare"
    value, start = found[group], found.start(group)
    if group == "bare":
        value = _NEXT.split(value, maxsplit=1)[0].rstrip(".:")
    return value, start, start + len(value), group == "quoted"


def _password(sheet: Sheet, end: int) -> Iterator[Hit]:
    value, start, stop, quoted = _value(_ASSIGNED.match(sheet.text, end) or _spaced(sheet, end))
    if 4 <= len(value) <= 128 and _plausible(value, quoted):
        yield Hit(Kind.PASSWORD, start, stop, "password beside its name")


def _spaced(sheet: Sheet, end: int) -> re.Match[str] | None:
    """``--password VALUE``, as on a command line; elsewhere only what no word of prose looks like."""
    found = _SPACED.match(sheet.text, end)
    return found if found and ("--" in sheet.low[max(0, end - 24) : end] or _STRONG.match(found["bare"])) else None


def _plausible(value: str, quoted: bool) -> bool:
    """Not a word of prose, a variable, a label or what a manual writes."""
    if placeholder(value) or _NOT_A_VALUE.fullmatch(value.lower()) or value.lower() in PASSWORDS:
        return False
    if quoted:
        return value.count(" ") < 2 or any(letter.isdigit() for letter in value)
    if value.isdigit():
        return len(value) >= 6
    return not _LETTERS.fullmatch(value) or len(_TURNS.findall(value)) >= 4


def _secret(sheet: Sheet, word: str, end: int) -> Iterator[Hit]:
    found = _ASSIGNED.match(sheet.text, end) or (_SPACED.match(sheet.text, end) if word == "bearer" else None)
    value, start, stop, _ = _value(found or _spaced(sheet, end))
    if not _SECRET_WORD.fullmatch(value):
        return
    if random(value) and (word in ("key", "secret") or not _UUID.fullmatch(value) or _named(sheet.low, end)):
        yield Hit(Kind.SECRET, start, stop, "random word called a secret")


def _in_urls(text: str) -> Iterator[Hit]:
    """RFC 3986, section 3.2.1: scheme://user:password@host."""
    for found in _URL.finditer(text):
        value = found["value"]
        if not placeholder(value) and not _NOT_A_VALUE.fullmatch(value.lower()) and value.lower() not in PASSWORDS:
            yield Hit(Kind.PASSWORD, found.start("value"), found.end("value"), "password in a URL")


def _basic(text: str) -> Iterator[Hit]:
    """RFC 7617: Basic, and user:password in Base64."""
    for found in _BASIC.finditer(text):
        try:
            said = base64.b64decode(found[1], validate=True).decode()
        except (binascii.Error, ValueError):
            continue
        if ":" in said and said.isprintable():
            yield Hit(Kind.PASSWORD, found.start(1), found.end(1), "HTTP Basic credentials")
