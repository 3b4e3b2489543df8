"""Secrets that are known by their form: tokens of well-known issuers, JSON Web Tokens and private keys.

Each form is the issuer's own, as its documentation or its secret-scanning notice has it. Tokens of one prefix and
nothing else are not told here; beside a word that calls them secret, `secrets` finds them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator

from freehold.sensitive.hit import Hit, Kind
from freehold.sensitive.random import placeholder, varied
from freehold.sensitive.sheet import Sheet

_W = r"[A-Za-z0-9]"
_U = r"[A-Za-z0-9_-]"
_HEX = r"[0-9a-f]"

# Who issues it, and its form; every one of them at least 16 letters, digits and _-. in a row.
ISSUERS = (
    ("AWS access key", r"A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}"),
    ("GitHub token", rf"gh[pousr]_{_W}{{36,255}}|github_pat_{_W}{{22}}_{_W}{{59}}"),
    ("GitLab token", rf"gl(?:pat|dt|rt|rtr|ft|soat|cbt|ptt|agent|oas|imt|ffct)-{_U}{{20,128}}"),
    (
        "Slack token",
        r"xox[abeoprs]-(?:[0-9]{1,15}-){1,4}[A-Za-z0-9-]{16,160}|"
        r"xapp-[0-9]-[A-Z0-9]{8,16}-[0-9]{8,16}-[0-9a-f]{32,80}",
    ),
    ("Stripe key", rf"(?:[rs]k_(?:live|test)|whsec)_{_W}{{16,255}}"),
    ("OpenRouter key", rf"sk-or-v1-{_HEX}{{64}}"),
    ("Anthropic key", rf"sk-ant-[a-z]{{3,8}}[0-9]{{2}}-{_U}{{60,140}}"),
    ("Langfuse key", rf"sk-lf-{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"),
    ("OpenAI key", rf"sk-(?:proj|svcacct|admin|None)-{_U}{{40,220}}|sk-{_W}{{20}}T3BlbkFJ{_W}{{20}}|sk-{_W}{{48}}"),
    ("Google API key", rf"AIza{_U}{{35}}"),
    ("Google OAuth secret", rf"GOCSPX-{_U}{{28}}|ya29\.{_U}{{40,255}}"),
    ("Hugging Face token", r"hf_[A-Za-z]{34}|api_org_[A-Za-z]{34}"),
    ("npm token", rf"npm_{_W}{{36}}"),
    ("PyPI token", rf"pypi-AgE{_U}{{60,255}}"),
    ("RubyGems key", rf"rubygems_{_HEX}{{48}}"),
    ("crates.io token", rf"cio{_W}{{32}}"),
    ("Docker token", rf"dckr_[op]at_{_U}{{24,60}}"),
    ("SendGrid key", rf"SG\.{_U}{{22}}\.{_U}{{43}}"),
    ("Mailgun key", rf"key-{_HEX}{{32}}"),
    ("Twilio key", rf"SK{_HEX}{{32}}"),
    ("Discord token", rf"[MNO]{_U}{{23,27}}\.{_U}{{6}}\.{_U}{{27,40}}"),
    ("DigitalOcean token", rf"do[opr]_v1_{_HEX}{{64}}"),
    ("Shopify token", r"shp(?:at|ca|pa|ss|tka)_[0-9a-fA-F]{32}"),
    ("Square token", rf"sq0(?:atp-{_U}{{22}}|csp-{_U}{{43}})"),
    ("Atlassian token", rf"AT(?:ATT3x|CTT3x|BB){_U}{{24,220}}"),
    ("Linear key", rf"lin_(?:api|oauth)_{_W}{{32,64}}"),
    ("Notion token", rf"ntn_{_W}{{40,50}}|secret_{_W}{{43}}"),
    ("Figma token", rf"fig[dou]_{_U}{{40,60}}"),
    ("Postman key", rf"PMAK-{_HEX}{{24}}-{_HEX}{{34}}"),
    ("Databricks token", rf"dapi{_HEX}{{32}}"),
    ("Grafana token", rf"glsa_{_W}{{32}}_[0-9a-fA-F]{{8}}|glc_{_W}{{32,255}}"),
    ("New Relic key", r"NRAK-[A-Z0-9]{27}"),
    ("Sentry token", rf"sntry[su]_{_U}{{40,255}}"),
    ("HashiCorp Vault token", rf"hv[sbr]\.{_U}{{24,255}}"),
    ("Doppler token", rf"dp\.(?:pt|st|ct|sa)\.(?:[a-z0-9_-]{{1,35}}\.)?{_W}{{40,44}}"),
    ("Pulumi token", rf"pul-{_HEX}{{40}}"),
    ("PlanetScale token", rf"pscale_(?:tkn|pw|oauth)_{_U}{{32,64}}"),
    ("Supabase token", rf"sbp_{_HEX}{{40}}|sb_secret_{_U}{{31}}"),
    ("Netlify token", rf"nfp_{_W}{{36}}"),
    ("Groq key", rf"gsk_{_W}{{48,56}}"),
    ("xAI key", rf"xai-{_W}{{70,90}}"),
    ("Replicate token", rf"r8_{_W}{{37}}"),
    ("Perplexity key", rf"pplx-{_W}{{40,56}}"),
    ("LangSmith key", rf"lsv2_(?:pt|sk)_{_HEX}{{32}}_{_HEX}{{10}}"),
    ("Pinecone key", rf"pcsk_{_W}{{5,8}}_{_W}{{50,70}}"),
    ("Alibaba Cloud key", rf"LTAI{_W}{{12,24}}"),
    ("Heroku key", r"HRKU-[A-Za-z0-9_-]{36,70}"),
    ("Airtable token", rf"pat{_W}{{14}}\.{_HEX}{{64}}"),
    ("Buildkite token", rf"bk[ua]a?_{_HEX}{{40}}"),
    ("CircleCI token", rf"CCIPAT_{_W}{{22}}_{_HEX}{{40}}"),
    ("SonarQube token", rf"sq[pua]_{_HEX}{{40}}"),
    ("Artifactory key", rf"AKCp{_W}{{60,80}}"),
    ("NuGet key", r"oy2[a-z0-9]{43}"),
    ("age secret key", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    ("Freehold key", rf"fh_{_U}{{43}}"),
)  # fmt: skip
_ISSUED = re.compile(
    "(?<![A-Za-z0-9])(?=[A-Za-z][A-Za-z0-9])(?:" + "|".join(f"({form})" for _, form in ISSUERS) + ")(?![A-Za-z0-9])"
)
_JWT = re.compile(rf"(?<![A-Za-z0-9_-])(eyJ{_U}{{8,4096}}+)\.(eyJ{_U}{{4,}}+)(?:\.{_U}*+)?")

# Who issues it, what must be in the text, its form, and what must stand right before it: these have other characters.
WRITTEN = (
    ("Telegram bot token", ":A", rf":A{_U}{{34}}(?!{_U})", r"(?<![0-9])[0-9]{8,10}\Z"),
    (
        "Slack webhook", "hooks.slack.com/",
        rf"(?:https://)?hooks\.slack\.com/(?:services|workflows|triggers)/{_W}{{8,16}}/{_W}{{8,24}}/{_W}{{16,48}}", "",
    ),
    (
        "Discord webhook", "/api/webhooks/",
        rf"(?:https://)?discord(?:app)?\.com/api/webhooks/[0-9]{{17,20}}/{_U}{{60,80}}", "",
    ),
    ("Azure storage key", "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{86}==", ""),
    (
        "Azure client secret", "Q~",
        r"[0-9]Q~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~.-])", r"[A-Za-z0-9_~.-]{3}\Z",
    ),
    ("Mailchimp key", "-us", r"-us[0-9]{1,2}(?![A-Za-z0-9])", r"(?<![A-Za-z0-9])[0-9a-f]{32}\Z"),
    ("HashiCorp Terraform token", ".atlasv1.", rf"\.atlasv1\.{_U}{{60,70}}", rf"(?<![A-Za-z0-9]){_W}{{14}}\Z"),
    ("Fly.io token", "fm2_", r"fm2_[A-Za-z0-9+/]{80,2000}={0,3}", ""),
)  # fmt: skip
_WRITTEN = tuple(
    (what, anchor, re.compile(form), re.compile(before) if before else None) for what, anchor, form, before in WRITTEN
)

_BEGIN = re.compile(
    r"-----BEGIN (?P<of>[A-Z0-9 ]{0,24})PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:\s|\\[nr])*+(?:Proc-Type|DEK-Info|Version|Comment|Charset|Hash): [^\n\\]{0,200})*+"
    r"(?P<body>(?:[A-Za-z0-9+/=\s]|\\[nr])*+)"
    r"(?:-----END [A-Z0-9 ]{0,40}-----)?"
)
_BODY = re.compile(r"[A-Za-z0-9+/]{32}")


def find(sheet: Sheet) -> Iterator[Hit]:
    """Tokens, webhooks, JSON Web Tokens and private keys."""
    runs = list(sheet.runs())
    for start, end in runs:
        if not _may_be_one(sheet.shape[start:end]):
            continue
        yield from _issued(sheet.text, start, end)
        yield from _jwt(sheet.text, start, end)
    if runs:
        yield from _written(sheet.text)
    if "PRIVATE KEY" in sheet.text:
        yield from _private_keys(sheet.text)


def _may_be_one(shape: str) -> bool:
    """Not a long word, nor names with dots between them: shorter tokens have a digit or a dash, or capitals alone."""
    return len(shape) >= 36 or "9" in shape or "-" in shape or "a" not in shape


def _issued(text: str, start: int, end: int) -> Iterator[Hit]:
    for found in _ISSUED.finditer(text, start, end):
        if not placeholder(found[0]) and varied(found[0]):
            yield Hit(Kind.API_KEY, found.start(), found.end(), ISSUERS[found.lastindex - 1][0])


def _jwt(text: str, start: int, end: int) -> Iterator[Hit]:
    """RFC 7519, section 3: three parts with dots between; the first is JSON that names an algorithm."""
    for found in _JWT.finditer(text, start, end):
        if _names_algorithm(found[1]):
            yield Hit(Kind.JWT, found.start(), found.end(), "JSON Web Token")


def _names_algorithm(part: str) -> bool:
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and ("alg" in header or "enc" in header)


def _written(text: str) -> Iterator[Hit]:
    for what, anchor, form, before in _WRITTEN:
        for found in form.finditer(text) if anchor in text else ():
            start = found.start()
            if before:
                head = before.search(text[max(0, start - 33) : start])
                if not head:
                    continue
                start -= len(head[0])
            whole = text[start : found.end()]
            if not placeholder(whole) and varied(whole):
                yield Hit(Kind.API_KEY, start, found.end(), what)


def _private_keys(text: str) -> Iterator[Hit]:
    """RFC 7468, and OpenPGP's armour: from the first line to the last, or as far as the key goes."""
    for found in _BEGIN.finditer(text):
        if _BODY.search(found["body"]):
            of = found["of"].strip()
            end = found.end() if text[found.end() - 1] == "-" else found.start() + len(found[0].rstrip())
            yield Hit(Kind.PRIVATE_KEY, found.start(), end, f"{of} private key" if of else "private key")
