"""A third set of labelled lines, made when the rules of `freehold.sensitive` were finished, and looked at once.

What the held-out half of `sensitive_lines` showed was mended, so that half is no longer blind. These lines are: other
languages, sentences, issuers and countries again, longer texts as people paste them into a prompt, and no rule was
changed for what they show. Whoever changes a rule writes another set.
"""

from __future__ import annotations

import json
import random

from sensitive_lines import (
    HEX,
    URL64,
    WORD,
    Half,
    email,
    form,
    iban,
    imei,
    isbn,
    jwt,
    luhn,
    national,
    not_luhn,
    octets,
    pem,
    pick,
    said,
    uuid4,
)

NAMES = ("Katarzyna Nowak", "Jan de Vries", "Mette Sørensen", "Tomáš Dvořák", "Inês Carvalho", "Owen Gallagher")
ASCII = ("Katarzyna Nowak", "Jan de-Vries", "Mette Sorensen", "Tomas Dvorak", "Ines Carvalho", "Owen Gallagher")


def phrase(rng: random.Random) -> str:
    """Four words and a number."""
    words = ("harbour", "violet", "engine", "paper", "lantern", "walnut", "copper", "meadow")
    return "-".join(rng.sample(words, 3)) + str(rng.randrange(10, 99))


def keyboard(rng: random.Random) -> str:
    """A word with letters exchanged for signs."""
    return rng.choice(["P@ssw0rt", "Adm1n$", "Zomer#", "l3tm31n!", "H4slo_"]) + str(rng.randrange(1, 999))


def statement(rng: random.Random) -> str:
    """A line of a bank's statement without anybody's number in it."""
    return json.dumps({"amount": rng.randrange(10_000_000) / 100, "currency": "PLN", "batch": rng.randrange(10**11)})


FRESH = Half(
    NAMES,
    {
        "card": (
            (
                "Hej, mit kort {it} blev afvist i går, kan I se hvorfor? Jeg har prøvet to gange. Mvh {name}",
                "De klant ({name}) betaalde met {it}; kunt u een nette mail schrijven waarin we excuses aanbieden?",
                "INSERT INTO payments (holder, pan) VALUES ('{name}', '{it}');",
                "Summarise this chat:\nAgent: may I have the card?\nCustomer: sure, {it}\nAgent: and the expiry?",
                "kartu {it} ważna do 11/29",
                "payment_method:\n  type: card\n  number: {it}\n  exp: 11/2029",
                "Platil kartou {it}, částka 1 290 Kč",
            ),
            (
                luhn("4", 16), luhn("4", 16, (4, 4, 4, 4)), luhn("54", 16, (4, 4, 4, 4)),
                luhn("2221", 16, (4, 4, 4, 4), "-"), luhn("37", 15), luhn("34", 15, (4, 6, 5)), luhn("3589", 16),
                luhn("38", 14), luhn("645", 16, (4, 4, 4, 4)), luhn("62", 16, (4, 4, 4, 4)), luhn("6759", 16),
            ),
        ),
        "iban": (
            (
                "Proszę o zwrot na konto {it}, dziękuję.", "Kunt u het bedrag overmaken naar {it} t.n.v. {name}?",
                "beneficiary={name};iban={it};amount=90.00", "Konto: {it}\nModtager: {name}",
                "Transfira para {it}, por favor",
                "The supplier's new account is {it} (please verify by phone!).",
            ),
            (
                iban("PL", "9{24}"), iban("NL", "<INGB>9{10}"), iban("DK", "9{14}"), iban("CZ", "9{20}", ""),
                iban("PT", "9{21}", ""), iban("IE", "<AIBK>9{14}"), iban("HU", "9{24}"), iban("FI", "9{14}", ""),
                iban("LU", "9{3}w{13}"), iban("NO", "9{11}"),
            ),
        ),
        "national_id": (
            (
                "Dane klienta: {name}, {it}, zamieszkały w Poznaniu.",
                "Write a letter to {name} ({it}) about the pension.",
                "name,{it}", "borger: {name} / {it}", "O utente {name} indicou {it}.", "{it} - vyřízeno",
            ),
            (
                national("pl.pesel", "9{11}", "PESEL: "), national("nl.bsn", "9{9}", "BSN "),
                national("dk.cpr", "999999-9999", "CPR "), national("cz.rc", "999999/9999"),
                national("pt.nif", "9{9}", "NIF "), said("NI number ", form("<JK>999999<D>")),
                national("fi.hetu", "999999-999A"), national("ro.cnp", "9{13}", "CNP "),
                national("ar.cuit", "99-99999999-9"), national("es.dni", "99999999-A"),
                national("gb.nhs", "999 999 9999", "NHS no. "), national("it.codicefiscale", "AAAAAA99A99A999A"),
                national("us.ssn", "999-99-9999", "SSN: "), national("at.vnr", "9999 999999", "SVNR "),
            ),
        ),
        "email": (
            (
                "Skriv til {it} hvis der er noget.", "Odpowiedz na {it} i dodaj w kopii {name}",
                "\"{name}\" <{it}> skrev:",
                "git config user.email {it}", "SELECT * FROM users WHERE mail = '{it}'",
                "Kontakt: {it} (hverdage 9-15)",
                "draft a reply to the customer below\n---\nFrom: {it}\nSubject: refund",
            ),
            (
                email(ASCII, ("wp.pl", "ziggo.nl", "mail.dk", "seznam.cz", "sapo.pt", "eircom.ie")),
                email(ASCII, ("hr.corp-group.eu", "alumni.uu.nl", "post.au.dk"), "._-"),
            ),
        ),
        "phone": (
            (
                "Zadzwoń do mnie: {it}", "Je kunt me bereiken op telefoon {it}.",
                "Ring mig på {it}, helst efter kl. 16",
                "tel {it}", "mobile: {it} ({name})", "Telemóvel {it}", "phone={it}&ext=4",
                "Please call the customer back on {it}, she was quite upset about the delay.",
            ),
            (
                form("<+48 60>9< >999< >999"), form("<+31 6 2>9999999"), form("<+45 20 >99< >99< >99"),
                form("<+420 602 >999< >999"), form("<+351 912 >999< >999"), form("<+353 87 >999< >9999"),
                form("<+1 (212) 736-5>999"), form("<+44 7911 >999999"), form("<06-2>9999999"), form("<0171 >9999999"),
            ),
        ),
        "ip_address": (
            (
                "Nov 11 09:14:02 web1 sshd[811]: Failed password for root from {it} port 51122 ssh2",
                "deny from {it};",
                "remote_addr={it} user=-", "Hvem ejer {it}?", "curl: (7) Failed to connect to {it} port 443",
                '{{"client_ip": "{it}"}}'.replace("{{", "{").replace("}}", "}"),
            ),
            (octets("89.23"), octets("146.70"), octets("31.13"), form("<2a01:4f8:>hhhh<:>hhhh<::2>"),
            octets("212.58")),
        ),
        "api_key": (
            (
                "czemu {it} zwraca 401?", "environment:\n  - TOKEN={it}", "client = Client('{it}')",
                "revoke {it} please",
                "I accidentally committed {it} to a public repository, what do I do now?",
                "Authorization: token {it}",
                "//registry.npmjs.org/:_authToken={it}",
                "Here is my config, why does it fail?\n\nkey: {it}\nregion: eu",
            ),
            (
                form("<ghs_>w{36}"), form("<ghr_>w{36}"), form("<gldt->u{20}"),
                form("<xapp-1-A0>A{8}<->9{12}<->h{64}"),
                form("<sk_test_>w{24}"), form("<lin_api_>w{40}"), form("<ntn_>w{44}"), form("<figd_>u{40}"),
                form("<PMAK->h{24}<->h{34}"), form("<NRAK->A{27}"), form("<sbp_>h{40}"), form("<pul->h{40}"),
                form("<xai->w{80}"), form("<pplx->w{48}"), form("<dop_v1_>h{64}"), form("<rubygems_>h{48}"),
                form("<AIza>u{35}"), form("<AKIA>A{16}"), form("<sk-ant-api03->u{93}<AA>"), form("<hvs.>u{24}"),
                form("<pcsk_>w{6}<_>w{60}"), form("<key->h{32}"),
            ),
        ),
        "jwt": (
            ("set-cookie: auth={it}; HttpOnly", "decode this for me: {it}", "x-id-token: {it}",
             "bearer {it}\n\nwaarom 403?"),
            (jwt("PS256"), jwt("HS384"), jwt("ES384")),
        ),
        "private_key": (
            (
                "-v $PWD:/srv\n{it}\nthat is what I pasted into the secret", "tls.key: |\n{it}", "Oto klucz:\n{it}",
                "const KEY = `{it}`;",
            ),
            (
                pem("EC PRIVATE KEY", 4), pem("PRIVATE KEY", 14), pem("OPENSSH PRIVATE KEY", 5, "\\n"),
                pem("RSA PRIVATE KEY", 20), pem("ENCRYPTED PRIVATE KEY", 8),
            ),
        ),
        "password": (
            (
                "hasło: {it}", "adgangskode: {it}", "Het wachtwoord is {it}, niet doorsturen", "heslo k wifi: {it}",
                "DATABASE_URL=postgres://svc:{it}@db.internal.company.io:5432/main", "MYSQL_ROOT_PASSWORD: {it}",
                "admin / password: {it}", "smtp_password = '{it}'", "curl -u svc:{it} https://nexus.company.io/repo",
                "user {name}, password {it}", '"passwd": "{it}",',
                "net use z: \\\\srv\\share /user:jan password={it}",
                "passphrase: {it}", "amqp://guest:{it}@mq-1.company.io/vhost",
            ),
            (keyboard, phrase, pick(WORD + "!%^*", 16), form("<Winter20>99<!>")),
        ),
        "secret": (
            (
                "client_secret: {it}", "COOKIE_SECRET={it}", "webhook signing secret is {it}",
                'encryption_key = "{it}"',
                "X-Auth-Token: {it}", "'access_token' => '{it}'", "<apiKey>{it}</apiKey>", "session_secret={it}",
                "azure:\n  clientSecret: {it}", "moj api key to {it}", "storage account key={it}",
            ),
            (pick(WORD, 40), pick(HEX, 48), pick(URL64, 32), pick(WORD + "+/", 44), pick(HEX, 32)),
        ),
    },
    (
        "Zamówienie {order16} zostało wysłane.", "Bestelling {order16}, klant {name}", "ordre {digits13} er afsendt",
        "Track & trace {order16}", "faktura FV/2026/{digits9}", "row {digits12}: ok", "{statement}",
        "job {uuid} finished in 0.{digits9} s", "sha512-{sha}", "digest sha256:{sha}", "{sha1} refs/heads/main",
        "node v20.{n}.{n}, npm 10.{n}.{n}, openssl 3.{n}.{n}", "chrome/12{n}.0.{n}{n}{n}{n}.{n}{n}",
        "1.{n}.{n}.{n} was the last release before 2.0.{n}.{n}", "ISBN {isbn} (paperback)", "EAN {ean}",
        "timestamp={ms}", "{ms},{ms},{digits10}", "IBAN {badiban} has a typo", "rekening {badiban} bestaat niet",
        "kortet {badcard} er ugyldigt", "card number {badcard2} failed the checksum", "IMEI {imei} zablokowany",
        "Nr części {part}", "serial no. {digits12}", "meter reading {digits9} kWh", "batch {digits11}, line 4",
        "The key to a good password is length; the secret is a sentence.", "Hasło musi mieć co najmniej 12 znaków.",
        "Adgangskoden er forkert.", "Vergeet uw wachtwoord niet te wijzigen.", "heslo je příliš krátké",
        "password = config.get('password')", "password: !vault |", "token = request.headers['X-Token']",
        "secret: ${{ secrets.DEPLOY_TOKEN }}", "API_KEY = os.getenv('API_KEY')", "apiKey: process.env.API_KEY,",
        "export TOKEN=<paste your token here>", "ghp_XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX", "password=********",
        "def login(user: str, password: str) -> Token: ...", "SELECT password_hash FROM users WHERE id = {digits9}",
        "sort key = (created_at, id)", "public key infrastructure is covered in chapter 1{n}", "token budget: 128000",
        "write to kontakt@example.com or admin@localhost.test", "user@example.org is a placeholder",
        "no-reply@firma.dk",
        "@media (min-width: 600px) and @import", "fix: bump lodash@4.17.21 and react@18.2.0", "logo@3x.webp",
        "10.{n}.{n}.{n}/16 via 192.168.0.{n}", "0.0.0.0:8080 and 127.0.0.53:53", "fe80::{n} dev eth0",
        "see section 4.3.{n}.{n} of the contract", "198.51.100.{n} is for documentation",
        "od 01.02.2026 do 28.02.2026, 8:00-16:00", "2026-11-0{n} 09:1{n}:22,123 INFO worker-{n} started",
        "kl. 14.30-15.45, lokale 2.{n}{n}", "size 120 x 240 x 360 mm, weight 1.250 kg", "cena 12 345 678,90 zł",
        "π ≈ 3.14159265358979", "lat 52.2296756, lon 21.0122287", "GTIN {ean13}", "VIN WDB{digits9}",
        "call the function at 0x{hex16}", "phone model A{n}{n}{n}{n}, 128 GB", "text size 16, line height 24",
        "ring buffer of 1048576 bytes", "mobile first design, 320 480 768 1024", "fax machines are from 1843",
        "dial code +48 is Poland's", "the national library has 12 000 000 items", "score 10-9, 8-11, 11-7",
        "eyJust kidding, that is no token", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{hex32} jan@laptop.local", "sk-learn-contrib and sk-video",
        "uuid4().hex gives {hex32}", "Set-Cookie: theme=dark; Path=/", "the SSN field is required",
        "NIF is the Portuguese tax number", "Please explain the IBAN checksum (mod 97).",
        "BSN, PESEL and CPR are national",
    ),
    {
        "order16": form("9{16}"), "digits9": form("9{9}"), "digits10": form("9{10}"), "digits11": form("9{11}"),
        "digits12": form("9{12}"), "digits13": form("9{13}"), "uuid": uuid4, "sha": pick(HEX, 64),
        "sha1": pick(HEX, 40),
        "hex16": pick(HEX, 16), "hex32": pick(HEX, 32), "n": form("9"), "isbn": isbn, "statement": statement,
        "ean": lambda rng: isbn(rng).replace("-", ""), "ean13": form("<590>9{10}"), "ms": form("<17>9{11}"),
        "badiban": iban("NL", "<ABNA>9{10}", wrong=True), "part": form("999-999-9999"), "imei": imei,
        "badcard": not_luhn("4571", 16, (4, 4, 4, 4)), "badcard2": not_luhn("53", 16),
    },
)  # fmt: skip
