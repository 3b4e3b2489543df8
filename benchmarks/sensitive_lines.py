"""Labelled lines for the detectors of `freehold.sensitive`: made by a seed, in two halves that share nothing.

The rules were written with the development half in sight. The held-out half has other sentences, other languages,
other names, other issuers and other countries; its figures are those that are reported. Every secret and every person
here is made up by a generator of random numbers.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
import uuid
from collections.abc import Callable, Iterator
from importlib import import_module

from msgspec import Struct

Maker = Callable[[random.Random], str]
SLOT = re.compile(r"\{(\w+)\}")


class Line(Struct, frozen=True):
    """A text and what is in it: (kind, start, end) for each."""

    text: str
    marks: tuple[tuple[str, int, int], ...]
    group: str  # the kind that it is about, or "none" for a line with nothing in it


class Half(Struct, frozen=True):
    """For each kind its templates and the makers of its values; the negatives' templates and fillings."""

    names: tuple[str, ...]
    positive: dict[str, tuple[tuple[str, ...], tuple[Maker, ...]]]
    negative: tuple[str, ...]
    fill: dict[str, Maker]


def lines(half: Half, seed: int, each: int = 60, negatives: int = 400) -> Iterator[Line]:
    """So many lines of each kind, and so many with nothing in them."""
    rng = random.Random(seed)
    for kind, (templates, makers) in half.positive.items():
        for index in range(each):
            maker = makers[index % len(makers)]
            yield _line(rng, half, templates[rng.randrange(len(templates))], kind, maker)
    for index in range(negatives):
        yield _line(rng, half, half.negative[index % len(half.negative)], "none", None)


def _line(rng: random.Random, half: Half, template: str, kind: str, maker: Maker | None) -> Line:
    """The template with its slots filled: ``{it}`` by the maker, ``{name}`` by a name, the others by what they say."""
    text, words, marks, end = "", "", [], 0
    value = maker(rng) if maker else ""
    if "\t" in value:  # a word that says what the value is, then the value
        words, value = value.split("\t")
    for slot in SLOT.finditer(template):
        text += template[end : slot.start()]
        end = slot.end()
        if slot[1] == "it":
            text += words
            marks.append((kind, len(text), len(text) + len(value)))
            text += value
        else:
            text += _filling(rng, half, slot)
    return Line(text + template[end:], tuple(marks), kind)


def _filling(rng: random.Random, half: Half, slot: re.Match[str]) -> str:
    if slot[1] == "name":
        return rng.choice(half.names)
    return half.fill[slot[1]](rng) if slot[1] in half.fill else slot[0]


def pick(alphabet: str, size: int) -> Maker:
    """Random characters of an alphabet."""
    return lambda rng: "".join(rng.choices(alphabet, k=size))


WORD, HEX, UP = string.ascii_letters + string.digits, "0123456789abcdef", string.ascii_uppercase
URL64 = WORD + "-_"


def form(pattern: str) -> Maker:
    """``9`` becomes a digit, ``A`` a capital, ``w`` a letter or digit, ``h`` a hexadecimal digit, ``u`` one of URL-safe
    Base64; ``9{40}`` forty of them; what stands in ``<>`` stays."""
    sets = {"9": string.digits, "A": UP, "w": WORD, "h": HEX, "u": URL64, "l": string.ascii_letters}

    def make(rng: random.Random) -> str:
        made = ""
        for literal, letter, size in re.findall(r"<([^>]*)>|(.)(?:\{(\d+)\})?", pattern):
            made += literal or "".join(rng.choices(sets.get(letter, letter), k=int(size or 1)))
        return made

    return make


def luhn(prefix: str, size: int, grouping: tuple[int, ...] = (), mark: str = " ") -> Maker:
    """A number with its check digit (ISO/IEC 7812-1), in groups."""

    def make(rng: random.Random) -> str:
        digits = prefix + "".join(rng.choices(string.digits, k=size - 1 - len(prefix)))
        total = sum(sum(divmod(int(d) * 2, 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(digits)))
        return grouped(digits + str(-total % 10), grouping, mark)

    return make


def grouped(digits: str, sizes: tuple[int, ...], mark: str) -> str:
    """The digits in groups of these sizes."""
    parts, start = [], 0
    for size in sizes or (len(digits),):
        parts.append(digits[start : start + size])
        start += size
    return mark.join(parts)


def iban(country: str, bban: str, mark: str = " ", wrong: bool = False) -> Maker:
    """An IBAN of random digits with its check digits, or with wrong ones."""

    def make(rng: random.Random) -> str:
        while True:
            body = form(bban)(rng).upper()
            rest = int("".join(str(int(letter, 36)) for letter in body + country + "00")) % 97
            check = (98 - rest + (rng.randint(1, 9) if wrong else 0)) % 100
            whole = f"{country}{check:02}{body}"
            if wrong or import_module("stdnum.iban").is_valid(whole):
                return grouped(whole, (4,) * -(-len(whole) // 4), mark)

    return make


def national(module: str, pattern: str, words: str = "") -> Maker:
    """A number of this form that stdnum finds right, by trying; ``words`` are put before it."""

    def make(rng: random.Random) -> str:
        valid = import_module(f"stdnum.{module}").is_valid
        for _ in range(200_000):
            number = form(pattern)(rng)
            if valid(number.replace(" ", "")):
                return f"{words}\t{number}" if words else number
        raise ValueError(f"there is no number of the form {pattern} in {module}")

    return make


def said(words: str, maker: Maker) -> Maker:
    """The value with words before it."""
    return lambda rng: f"{words}\t{maker(rng)}"


def jwt(algorithm: str) -> Maker:
    """A JSON Web Token with a random signature."""

    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    def make(rng: random.Random) -> str:
        payload = {"sub": str(rng.randrange(10**9)), "iat": rng.randrange(1_600_000_000, 1_700_000_000)}
        return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(payload)}.{pick(URL64, 43)(rng)}"

    return make


def pem(name: str, rows: int, newline: str = "\n") -> Maker:
    """What has the form of a private key, of random bytes."""

    def make(rng: random.Random) -> str:
        body = newline.join(base64.b64encode(rng.randbytes(48)).decode() for _ in range(rows))
        return f"-----BEGIN {name}-----{newline}{body}{newline}-----END {name}-----"

    return make


def email(names: tuple[str, ...], hosts: tuple[str, ...], marks: str = "._-") -> Maker:
    """first.last@host."""

    def make(rng: random.Random) -> str:
        local = rng.choice(names).lower().replace(" ", rng.choice(marks))
        return f"{local}{rng.choice(['', str(rng.randrange(100))])}@{rng.choice(hosts)}"

    return make


def uuid4(rng: random.Random) -> str:
    """A random UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def password(rng: random.Random) -> str:
    """As people make them: a word, a number, a sign."""
    word = rng.choice(["Sommer", "tiger", "Winter", "dragon", "Blume", "falcon", "marble", "Rocket"])
    return f"{word}{rng.choice('!#_-*')}{rng.randrange(10, 9999)}"


def isbn(rng: random.Random) -> str:
    """An ISBN-13 with its check digit."""
    digits = "978" + "".join(rng.choices(string.digits, k=9))
    check = -sum(int(d) * (1 if i % 2 == 0 else 3) for i, d in enumerate(digits)) % 10
    return grouped(digits + str(check), (3, 1, 4, 4, 1), "-")


def imei(rng: random.Random) -> str:
    """An IMEI, whose check digit is a card's."""
    return luhn("35", 15)(rng)


def not_luhn(prefix: str, size: int, grouping: tuple[int, ...] = (), mark: str = " ") -> Maker:
    """A card's number with a wrong check digit."""

    def make(rng: random.Random) -> str:
        right = luhn(prefix, size)(rng)
        return grouped(right[:-1] + str((int(right[-1]) + rng.randint(1, 9)) % 10), grouping, mark)

    return make


DEV_NAMES = ("Anna Schmidt", "John Miller", "Peter Brown", "Julia Weber", "Mary Johnson", "Tom Fischer")
DEVELOPMENT = Half(
    DEV_NAMES,
    {
        "card": (
            (
                "Please charge my card {it}, it expires 09/27.",
                "{name} paid with {it} yesterday",
                '{{"payment": {{"number": "{it}", "cvc": "123"}}}}'.replace("{{", "{").replace("}}", "}"),
                "Order 4821 was paid by card.\nCard: {it}\nName: {name}",
                "my visa is {it} thanks",
            ),
            (
                luhn("4", 16), luhn("4", 16, (4, 4, 4, 4)), luhn("51", 16, (4, 4, 4, 4), "-"), luhn("2345", 16),
                luhn("37", 15, (4, 6, 5)), luhn("6011", 16, (4, 4, 4, 4)), luhn("53", 16, (4, 4, 4, 4)),
            ),
        ),
        "iban": (
            ("Please transfer it to {it}.", "IBAN: {it} BIC: COBADEFFXXX", "My account is {it} at Sparkasse", "{it}"),
            (
                iban("DE", "9{18}"), iban("DE", "9{18}", ""), iban("GB", "<NWBK>9{14}"), iban("NL", "<ABNA>9{10}", ""),
                iban("AT", "9{16}"),
            ),
        ),
        "national_id": (
            ("{name} gave {it} at the desk.", "Customer: {name}, {it}", "{it} ({name})"),
            (
                national("de.idnr", "99 999 999 999", "Steuer-ID "), national("de.idnr", "9{11}", "Steuer-IdNr. "),
                national("es.dni", "99999999A"), national("it.codicefiscale", "AAAAAA99A99A999A"),
                national("nl.bsn", "9{9}", "BSN: "), national("us.ssn", "999-99-9999", "SSN "),
                national("us.ssn", "9{9}", "social security number is "), national("pl.pesel", "9{11}", "PESEL "),
                national("br.cpf", "999.999.999-99"), said("NI number: ", form("<AB>999999<C>")),
                said("", form("<JM> 99 99 99 <A>")), national("gb.nhs", "999 999 9999", "NHS number "),
            ),
        ),
        "email": (
            ("Write to {it} please.", "From: {name} <{it}>", "user={it}&lang=de", "contact {it}, or call",
            "mailto:{it}"),
            (
                email(DEV_NAMES, ("gmail.com", "web.de", "corp-mail.com", "firma.de", "mail.example-shop.co.uk")),
                email(DEV_NAMES, ("gmx.de", "outlook.com"), "._"),
            ),
        ),
        "phone": (
            ("Call me at {it} tomorrow.", "Phone: {it}", "Tel. {it}, {name}", "my mobile is {it} thanks"),
            (
                form("<+49 30 >9<01820>"), form("<+44 20 7946 0>999"), form("<+1 415 >2<55 >9999"),
                form("<(415) 5>22<-2>999"), form("<0171 >9999999"), form("<030 90>99999"), form("<212-736-5>999"),
                form("<+49171>9999999"), form("<020 7946 0>999"),
            ),
        ),
        "ip_address": (
            ("Login from {it} failed.", "client={it} status=200", "The server answers at {it}.", "ssh root@{it}"),
            (form("<81.2.69.1>99"), form("<93.184.216.1>99"), form("<2a00:1450:4001:8>h<::200e>"),
            form("<5.9.1>99<.12>")),
        ),
        "api_key": (
            (
                "Use {it} for now.", "OPENAI_API_KEY={it}",
                'headers = {"x-api-key": "{it}"}', "why does {it} not work?",
                "curl -H 'Authorization: Bearer {it}' https://api.site.com", "export KEY={it}\nmake run",
            ),
            (
                form("<AKIA>A{16}"), form("<ghp_>w{36}"), form("<sk-proj->u{48}"), form("<xoxb->9{11}<->9{12}<->w{24}"),
                form("<sk_live_>w{24}"), form("<AIza>u{35}"), form("<glpat->u{20}"), form("<hf_>l{34}"),
                form("<sk-ant-api03->u{93}<AA>"), form("<SG.>u{22}<.>u{43}"), form("<npm_>w{36}"), form("<dapi>h{32}"),
            ),
        ),
        "jwt": (
            ("Authorization: Bearer {it}", "token={it}", "it says {it} is expired", '{"id_token": "{it}"}'),
            (jwt("HS256"), jwt("RS256")),
        ),
        "private_key": (
            ("{it}", "Here is the key:\n{it}\nWhat is wrong with it?", 'key = "{it}"'),
            (pem("RSA PRIVATE KEY", 12), pem("PRIVATE KEY", 4), pem("EC PRIVATE KEY", 3, "\\n")),
        ),
        "password": (
            (
                "password: {it}", "PASSWORD={it}", 'db.connect(user="app", password="{it}")', "my password is {it}",
                "postgres://app:{it}@db.intern.net:5432/app", "DB_PASSWORD: '{it}'", "login: {name}, pwd: {it}",
                '{"username": "x", "password": "{it}"}', "das Passwort lautet {it}", "mysql -u root --password={it}",
            ),
            (password, pick(WORD + "!#_-", 12)),
        ),
        "secret": (
            (
                "client_secret={it}", 'API_KEY = "{it}"', "secret_key: {it}", "access token: {it}",
                '"apiKey": "{it}"', "export APP_SECRET='{it}'", "auth_token => '{it}'",
            ),
            (pick(WORD, 32), pick(HEX, 40), pick(URL64, 43), pick(HEX, 32)),
        ),
    },
    (
        "Order number {order16} has shipped.", "order_id: {order16}", "Order {digits10} of {name}", "{uuid}",
        "request id {uuid} failed", "sha256: {sha}", "commit {sha1} by {name}", "Version 10.{n}.{n}.{n} is out.",
        "ISBN {isbn} is a good book.", "timestamp {ms} and {ns}", "IBAN {badiban} is rejected.",
        "The key to success is patience, and the token of thanks was small.",
        "Write to someone@example.com or me@test.example.",
        "Part no. {part}, 20 pieces", "SKU 415-555-{n}{n}", "card {badcard} was declined: wrong number",
        "The password must have at least 12 characters.", 'password = os.environ["DB_PASSWORD"]', "password: ********",
        "api_key = YOUR_API_KEY_GOES_HERE_12345", "max_tokens=4096, total_tokens: 1234567",
        "def f(password: str, token: str | None):",
        "IMEI {imei} is registered.", "From 2024-05-{n}{n} to 2024-06-{n}{n}, 10:30 to 12:45",
        "127.0.0.1 and 192.168.1.{n}, 10.0.0.{n}",
        "The total is 1.234.567,89 EUR or 1,234,567.89 USD.", "pi is 3.14159265358979323846",
        "0.{digits16} was the loss",
        "x = [{digits10}, {digits10}, {digits10}]", "tracking number {order16}", "secret: see the vault",
        "Is the password correct? yes",
        "token_count: {digits10}", "Bearer of bad news", "The -----BEGIN PRIVATE KEY----- line comes first.",
        "icon@2x.png and lodash@4.17.21",
        "git@github.com:org/repo.git", "call 112 in an emergency, or text STOP to 40404", "room 12-34-567, desk 8",
        "sk-learn and sk-image are libraries",
        "https://example.org/a/b/c?id={digits10}&token=none", "the class token CLS is at index 0: [CLS]",
        "aaaa-bbbb-cccc-dddd-eeee-ffff",
        "PASSWORD_MIN_LENGTH=12", "password_reset_url: https://site.com/reset", "{digits9} is the number of rows",
        "the number {digits11} is prime",
    ),
    {
        "order16": form("9{16}"), "digits10": form("9{10}"), "digits9": form("9{9}"), "digits11": form("9{11}"),
        "digits16": form("9{16}"), "uuid": uuid4, "sha": pick(HEX, 64), "sha1": pick(HEX, 40), "n": form("9"),
        "isbn": isbn, "ms": form("<17>9{11}"), "ns": form("<17>9{17}"), "badiban": iban("DE", "9{18}", wrong=True),
        "part": form("999-999-9999"), "badcard": not_luhn("4", 16, (4, 4, 4, 4)), "imei": imei,
    },
)  # fmt: skip


HELD_NAMES = ("Élodie Marchand", "Javier Ortega", "Chiara Ricci", "Lars Lindqvist", "Priya Nair", "Beatriz Souza")
ASCII_NAMES = ("Elodie Marchand", "Javier Ortega", "Chiara Ricci", "Lars Lindqvist", "Priya Nair", "Beatriz Souza")


def octets(first: str) -> Maker:
    """An IPv4 address that begins so."""
    return lambda rng: ".".join([*first.split("."), *(str(rng.randint(1, 254)) for _ in range(3 - first.count(".")))])


def passphrase(rng: random.Random) -> str:
    """As password managers make them."""
    return "".join(rng.choices(WORD + "!@%^+?", k=rng.choice([10, 14, 20])))


HELD_OUT = Half(
    HELD_NAMES,
    {
        "card": (
            (
                "Bonjour, ma carte {it} a été débitée deux fois.",
                "{name};{it};2028-03;FR",
                "I tried again w/ {it} (exp 3/28) and it still says insufficient funds?!",
                "<cc><num>{it}</num><holder>{name}</holder></cc>",
                "num={it}&cvv=991",
                "Tarjeta de {name}: {it}.",
                "| {name} | {it} | active |",
            ),
            (
                luhn("4", 16, (4, 4, 4, 4), "-"), luhn("55", 16), luhn("2720", 16, (4, 4, 4, 4)), luhn("34", 15),
                luhn("37", 15, (4, 6, 5), "-"), luhn("3530", 16, (4, 4, 4, 4)), luhn("36", 14, (4, 6, 4)),
                luhn("62", 16), luhn("4", 16), luhn("65", 16),
            ),
        ),
        "iban": (
            (
                "Voici mon RIB : {it}", "Puede ingresarlo en la cuenta {it} antes del viernes.", "{name},{it},1200.00",
                "refund to {it} pls", "coordinate bancarie {it} intestato a {name}", "<IBAN>{it}</IBAN>",
            ),
            (
                iban("FR", "9{20}w9{2}"), iban("ES", "9{20}", ""), iban("IT", "<X>9{22}"), iban("SE", "9{20}"),
                iban("BE", "9{12}"), iban("CH", "9{17}", ""), iban("PT", "9{21}"), iban("PL", "9{24}", ""),
            ),
        ),
        "national_id": (
            (
                "Dossier de {name} : {it}", "{name}\t{it}", "the applicant ({name}) stated {it} on the form",
                "datos: {it}; {name}", "Please update {it} in our records",
            ),
            (
                national("fr.nir", "<2 >99 99 99 999 999 99"), national("fr.nir", "<1>9{14}"),
                national("es.nie", "<X>9999999A"), national("es.dni", "99999999-A"),
                national("se.personnummer", "999999-9999"), national("fi.hetu", "999999-999A"),
                national("in_.aadhaar", "9999 9999 9999", "Aadhaar no "), national("ca.sin", "999-999-999", "SIN "),
                national("no.fodselsnummer", "9{11}", "fødselsnummer "), national("mx.curp", "<GOMC>9{6}<HDF>AAA99"),
                national("be.nn", "99.99.99-999.99"), national("ch.ssn", "<756.>9999.9999.99"),
                national("cz.rc", "999999/9999"), national("br.cpf", "9{11}", "CPF "),
                national("us.ssn", "999 99 9999", "social security no. "), national("cl.rut", "99.999.999-9"),
            ),
        ),
        "email": (
            (
                "{name} ({it}) a demandé un remboursement", "cc: {it}; bcc: none", "Envíame la factura a {it}.",
                '{"to": ["{it}"], "body": "ciao"}', "my mail's {it}!", "assignee={it},priority=2",
            ),
            (
                email(ASCII_NAMES, ("orange.fr", "yahoo.es", "libero.it", "telia.se", "tcs.in", "uol.com.br")),
                email(ASCII_NAMES, ("students.univ-lyon.fr", "protonmail.ch", "bücher-haus.at"), "._+"),
            ),
        ),
        "phone": (
            (
                "Vous pouvez me joindre au {it}.", "Mi número es el {it}, gracias", "Telefono: {it}", "WhatsApp {it}",
                "{name}, {it}, Lyon", "give me a ring on {it} after six", "numéro de téléphone {it}",
            ),
            (
                form("<+33 6 12 >99< >99< >99"), form("<06 12 >99< >99< >99"), form("<+34 612 >999< >999"),
                form("<612 34 >99< >99"),
                form("<+39 347 >9999999"), form("<+46 70 >123< >99< >99"), form("<+91 98>999< >99999"),
                form("<+55 11 9>8765<->9999"), form("<(312) 726->9999"), form("<+1-646-555-2>999"),
                form("<+4670>1234999"),
                form("<+61 412 >999< >999"),
            ),
        ),
        "ip_address": (
            (
                "Refused connection: {it} port 22", "X-Forwarded-For: {it}", "blocked {it} after 5 attempts",
                '{it} - - [12/Mar/2026] "GET / HTTP/1.1" 200', "traceroute vers {it}", "peer {it}: timed out",
            ),
            (octets("185.15"), octets("104.16"), octets("51.15"), form("<2606:4700:>hhhh<:>hhhh<::6810:85e5>"),
            octets("200.147")),
        ),
        "api_key": (
            (
                "j'ai mis {it} dans le fichier .env", "TOKEN: {it}", "const k = '{it}';", "Here you go: {it}",
                "git clone https://oauth2:{it}@gitlab.company.io/x.git", '  value: "{it}"', "{it}",
                "il token {it} è scaduto",
            ),
            (
                form("<ASIA>A{16}"), form("<github_pat_>w{22}<_>w{59}"), form("<gho_>w{36}"),
                form("<sk-svcacct->u{60}"),
                form("<xoxp->9{12}<->9{12}<->9{12}<->h{32}"), form("<rk_live_>w{24}"), form("<whsec_>w{32}"),
                form("<GOCSPX->u{28}"), form("<pypi-AgEIcHlwaS5vcmc>u{100}"), form("<dckr_pat_>u{27}"),
                form("<shpat_>h{32}"), form("<glsa_>w{32}<_>h{8}"), form("<hvs.>u{90}"), form("<gsk_>w{52}"),
                form("<r8_>w{37}"), form("<sk-or-v1->h{64}"), form("<9>9{9}<:AA>u{33}"), form("<fh_>u{43}"),
                form("<https://hooks.slack.com/services/T>A{8}</B>A{8}</>w{24}"), form("<sntryu_>h{64}"),
            ),
        ),
        "jwt": (
            ("Cookie: session={it}; Path=/", "le jeton {it} ne passe pas", "fetch(u, {auth: '{it}'})", "{it}"),
            (jwt("ES256"), jwt("HS512"), jwt("EdDSA")),
        ),
        "private_key": (
            ("Voici ma clé\n\n{it}\n\nmerci", '{"private_key": "{it}", "client_id": "1"}', "cat id_rsa\n{it}"),
            (
                pem("OPENSSH PRIVATE KEY", 7), pem("ENCRYPTED PRIVATE KEY", 6), pem("RSA PRIVATE KEY", 9, "\\n"),
                pem("DSA PRIVATE KEY", 5),
            ),
        ),
        "password": (
            (
                "mot de passe : {it}", "la contraseña es {it}", "user={name}\npasswd={it}", "Senha: {it}",
                "redis://:{it}@cache.prod.company.io:6379/0", "mongodb+srv://root:{it}@c0.ab1.mongodb.net",
                '$config["password"] = "{it}";', "spring.datasource.password={it}", "sshpass -p x --password {it}",
                "PGPASSWORD='{it}' psql", "username {name} / password {it}", "wachtwoord is {it}",
                "<password>{it}</password>",
            ),
            (password, passphrase, form("<Azerty>99<!>")),
        ),
        "secret": (
            (
                "jwt.secret={it}", "SECRET_KEY_BASE: {it}", "  signing-key: {it}", "webhookSecret: '{it}',",
                "the api key is {it}", "x-api-key: {it}", '"refresh_token":"{it}"', "clé secrète / secret : {it}",
                "ACCESS_KEY_SECRET={it}", "aws_secret_access_key = {it}",
            ),
            (pick(WORD + "+/", 40), pick(HEX, 64), pick(WORD, 24), pick(URL64, 48), uuid4),
        ),
    },
    (
        "Commande {order16} expédiée.", "n° de suivi {digits13}", "pedido {order16} de {name}", "EAN {ean}, rayon 4",
        "{digits12};{digits10};{digits9}", "trace_id={hex32} span_id={hex16}", "etag: \"{hex32}\"", "ETA {uuid}.json",
        "{hex40}  dist/app-2.{n}.{n}.tar.gz", "linux-image-5.{n}{n}.0-{n}{n}-generic 10.0.{n}.{n}",
        "build 17.{n}.{n}.{n}{n}",
        "IBAN invalide : {badiban}", "{badiban} no es válido", "carte {badcard} : numéro erroné", "{badcard2}",
        "ISBN-13 {isbn}, 3e édition", "réf. article {part}", "model no 800-{n}{n}{n}-{n}{n}{n}{n}, black",
        "IMEI : {imei}", "epoch {ms}, delta 0.{digits16}", "coordinates 48.8566{n}{n}, 2.3522{n}{n}{n}",
        "Keep the key under the mat; the secret is patience and practice.", "Ce mot de passe est trop court.",
        "La contraseña debe tener ocho caracteres.", "contact: utilisateur@exemple.example",
        "demo@example.net wrote back",
        "const password = form.password.value;", "password = getpass.getpass()", "token = tokenizer.decode(ids[{n}])",
        "if (token == null) return;", "api_key: str = Field(...)", "API_KEY=${API_KEY}", "secret: {{ vault.secret }}",
        "primary_key = order_item_identifier_2", "sort_key: created_at_descending_v2", "next_page_token: none",
        "password: <your password>", "token limit exceeded: 128000 > 32768", "The access key panel is on floor 3.",
        "Rendez-vous le 12/0{n}/2026 de 14h30 à 15h45", "du 01.0{n}.2025 au 31.12.2025",
        "2026-0{n}-1{n}T08:15:3{n}.123Z",
        "255.255.255.0 et 172.16.{n}.{n}", "fe80::1%eth0 ::1 std::vector::iterator", "192.0.2.{n} and 2001:db8::{n}",
        "montant : 12 345 678,90 €", "1 000 000 000 000 étoiles", "chassis WVWZZZ1JZXW{n}{n}{n}{n}{n}{n}",
        "seats 12-14, rows 100-200",
        "AAPL 2026-03-20 C 00150000", "license plate AB-123-CD", "BIC NWBKGB2L, VAT GB 999 9999 73",
        "DE{n}{n} bis DE{n}{n}",
        "GPU-{uuid}", "MAC 00:1a:2b:3c:4d:5{n}", "s3://bucket/2026/0{n}/part-0000{n}-{uuid}.parquet",
        "@app.route decorator, user @ host",
        "npm_config_registry and sk-test-runner-package-name-long", "hf_hub_download_with_a_very_long_function_name",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "AKIAIOSFODNN7EXAMPLE is from the manual",
        "sk-proj-your-key-goes-here-please-replace-me-now-ok",
        "eyJ is how a token begins", "tolerance +1.5000000, offset +12 345", "score: 1234567890123456789",
        "matrix 9 8 7 6 5 4 3 2 1 0 9 8",
        "the case number is {digits9}", "policy {digits11} of {name}", "my favourite number is {digits10}",
        "call sign {digits10} over",
        "phone model SM-G9{n}{n}B firmware 4.{n}.{n}.{n}", "Text messages: 1,024,768 in total", "id {digits13}",
        "user {digits12} logged in",
    ),
    {
        "order16": form("9{16}"), "digits9": form("9{9}"), "digits10": form("9{10}"), "digits11": form("9{11}"),
        "digits12": form("9{12}"), "digits13": form("9{13}"), "digits16": form("9{16}"), "hex16": pick(HEX, 16),
        "hex32": pick(HEX, 32), "hex40": pick(HEX, 40), "uuid": uuid4, "n": form("9"), "isbn": isbn,
        "ean": lambda rng: isbn(rng).replace("-", ""), "ms": form("<17>9{11}"), "imei": imei,
        "badiban": iban("FR", "9{23}", wrong=True), "part": form("999-999-9999"),
        "badcard": not_luhn("5412", 16, (4, 4, 4, 4), "-"), "badcard2": not_luhn("37", 15, (4, 6, 5)),
    },
)  # fmt: skip
