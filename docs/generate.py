"""Write docs/reference anew from the code. ``--check`` writes nothing and fails where a page is not current."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import msgspec

from freehold import admit, config, errors, metrics, policy
from freehold.api import acts, anthropic, base, document, openai
from freehold.cli.main import VERBS, main
from freehold.engine import schema
from freehold.scan import rules
from freehold.seal import trial
from freehold.types import Role

SETTINGS = """# Settings

From `<home>/freehold.toml` (or the file that `FREEHOLD_CONFIG` names), then from variables, which win; a command's
own flag wins over both. `FREEHOLD_HOME` names the home.

| setting | variable | default | meaning |
| --- | --- | --- | --- |"""
MODELS = """
A list in a variable is words with commas between, or JSON: `FREEHOLD_TRUST_LICENCES=open,source-available`.

## Whose signatures count

Names of your own for the publishers, and the PEM file of each one's public key (ECDSA) or CA; in the file alone:

```toml
[trust.signers]
"Example Labs" = "/etc/freehold/example-labs.pem"
```

## For one model

Every setting of `engine` can be given for one model alone, in the file:

```toml
[engine]
slots = 4

[models."smollm2-135m-instruct"]
context = 8192
slots = 2
kv_type = "q8_0"
```
"""
COST = """
## Prices of your own

What somebody else charges for a model's tokens, each model in a table of its own, in the file alone; they win over the
price list. See [the guide](../guides/cost.md).

```toml
[cost.prices."gpt-4o-mini"]
input = 0.15
output = 0.60
cached = 0.075
```

| setting of `[cost.prices."MODEL"]` | default | meaning, in `cost.currency` |
| --- | --- | --- |"""
GUARD = """
## What is done with secrets and personal data

By where a text goes, and for the calls of one key by its name, each in a table of its own, in the file alone. Each
setting is `allow`, `mask` or `refuse`. See [the guide](../guides/guard.md).

```toml
[guard.house]
card = "refuse"

[guard.upstream]
personal = "mask"

[guard.callers."support desk".upstream]
email = "allow"
```

| setting of `[guard.house]`, `[guard.upstream]`, `[guard.capture]` | of |
| --- | --- |"""
UPSTREAMS = """
## For one upstream

Models that somebody else runs, each upstream in a table of its own, in the file alone; its host must be in
`upstream_hosts`. See [the guide](../guides/upstreams.md).

```toml
upstream_hosts = ["api.example.com:443"]

[upstreams.example]
url = "https://api.example.com/v1"
key_file = "/etc/freehold/example.key"
models = ["example-large", "example-small"]
```

| setting of `[upstreams.NAME]` | default | meaning |
| --- | --- | --- |"""
ERRORS = """# Errors

`code` is stable. OpenAI's endpoints carry it in `error.code`; Anthropic's have their own types.

| code | status | means | next step |
| --- | --- | --- | --- |"""
API = """# API

The machine-readable form is served at `/openapi.json`. Every path but `/healthz` and `/readyz` needs a key, as
`Authorization: Bearer` or `x-api-key`; `/metrics` needs none where [the settings](../guides/operate.md) say so, and
`/admin` is a page for a browser, to which one logs in. A null field is the same as one left out.
"""
SCHEMAS = """## Looking and telling

Over `GET`:

{LOOKS}

Over `POST`, with a JSON body:

{ACTS}

Every answered call says in the header `x-freehold-model` what answered: `NAME@sha256:...`, the digest of the model's
file, or `NAME@upstream:UPSTREAM` where [somebody else's](../guides/upstreams.md) did.

A call that had to wait for its turn says so in the header `x-freehold-queue` of its answer; see
[the line before an engine](../concepts/queue.md).

## JSON schemas

In `response_format`, `text.format` and tools: at most {MAX_NODES} objects, {MAX_DEPTH} deep, {MAX_PROPERTIES}
properties each, {MAX_CHOICES} values to choose from, bounds up to {MAX_REPEAT}, and patterns of {MAX_PATTERN}
characters with {MAX_PATTERN_REPEAT} repetitions.
"""
PROOF = """# The proof of privacy

What `freehold prove privacy` attempts, from outside the seal and from inside.

| attempt | gateway | engine | what it does |
| --- | --- | --- | --- |"""
RULES = """# Rules

What `freehold scan` and the gate look for. `hold` asks a named person to decide; `block` refuses; `note` changes
nothing. See [the gate](../concepts/gate.md).

| rule | asks for | means | what to do | source |
| --- | --- | --- | --- | --- |"""
POLICY = """# Who may do what

The roles of keys, out of the one table that every path asks (`policy.py`). The commands do not ask it: whoever owns the
home's files owns everything in it. See [keys, teams and limits](../guides/policy.md).

| may | {ROLES} |
| --- | {RULES} |"""
METRICS = """# Metrics

What `GET /metrics` and `freehold metrics` show; see [the guide](../guides/operate.md). The names stay. Of the gateway's
own process there are Prometheus' usual ones besides: `process_start_time_seconds`, `process_resident_memory_bytes`,
`process_cpu_seconds_total`, `process_open_fds` and their like.

| name | kind | labels | says |
| --- | --- | --- | --- |"""
FOLDER = Path(__file__).parent / "reference"


def pages() -> dict[str, str]:
    """Every page, by file name."""
    made = {"settings.md": settings(), "errors.md": error_tree(), "api.md": api(), "proof.md": proof()}
    made["rules.md"] = scan_rules()
    made["policy.md"] = roles()
    made["metrics.md"] = figures()
    if sys.version_info < (3, 13):  # later ones lay out their help in other ways
        made["commands.md"] = commands()
    note = "\n<!-- generated by 'make docs' from the code; edit there -->\n"
    return {name: text.replace("\n", note, 1) for name, text in made.items()}


def settings() -> str:
    """Each setting, its variable, its default and what it means."""
    lines = [SETTINGS]
    defaults = config.Settings()
    for name, owner in config.names().items():
        table, _, key = name.rpartition(".")
        value = getattr(getattr(defaults, table) if table else defaults, key)
        annotation = msgspec.inspect.type_info(next(f for f in msgspec.structs.fields(owner) if f.name == key).type)
        meaning = (annotation.extra_json_schema or {}).get("description", "")
        shown = msgspec.json.encode(value).decode()
        lines.append(f"| `{name}` | `FREEHOLD_{name.replace('.', '_').upper()}` | `{shown}` | {meaning} |")
    upstream, price = _table(config.UpstreamSettings), _table(config.PriceSettings)
    return "\n".join([*lines, MODELS + GUARD, *_actions(), UPSTREAMS, *upstream, COST, *price, ""])


def _actions() -> list[str]:
    """What the guard can be told to do something with."""
    fields = msgspec.structs.fields(config.TreatmentSettings)
    infos = [(field.name, msgspec.inspect.type_info(field.type)) for field in fields]
    return [f"| `{name}` | {(info.extra_json_schema or {}).get('description', '')} |" for name, info in infos]


def _table(settings: type) -> list[str]:
    """The settings of a table that has a name of the user's."""
    lines = []
    for field in msgspec.structs.fields(settings):
        meaning = (msgspec.inspect.type_info(field.type).extra_json_schema or {}).get("description", "")
        default = {} if field.default_factory is dict else field.default
        shown = "needed" if field.required else f"`{msgspec.json.encode(default).decode()}`"
        lines.append(f"| `{field.name}` | {shown} | {meaning} |")
    return lines


def commands() -> str:
    """The help of every verb."""
    lines = ["# Commands", "", "Exit codes: 0 done and clean; 1 done, and the answer is no; 2 could not do it.", ""]
    for verb in VERBS:
        lines += [f"## freehold {verb}", "", "```", _help([verb]), "```", ""]
        module = importlib.import_module(f"freehold.cli.{verb}")
        for sub in _subcommands(module):
            lines += [f"### freehold {verb} {sub}", "", "```", _help([verb, sub]), "```", ""]
    return "\n".join(lines)


def _subcommands(module) -> list[str]:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return [
        name for action in parser._actions if isinstance(action, argparse._SubParsersAction) for name in action.choices
    ]


def _help(words: list[str]) -> str:
    out = io.StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        main([*words, "--help"])
    return out.getvalue().strip()


def error_tree() -> str:
    """Every error with its code, status and hint."""
    lines = [ERRORS]
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, errors.FreeholdError):
            status = str(found.status) if not issubclass(found, errors.CannotDo) else "exit code 2"
            doc = " ".join((found.__doc__ or "").split())
            lines.append(f"| `{found.code}` | {status} | {doc} | {found.hint} |")
    return "\n".join([*lines, ""])


def api() -> str:
    """Each endpoint with its fields."""
    lines = [API]
    for form in (*openai.OpenAI.forms, *anthropic.Anthropic.forms):
        lines += _form(form)
    bounds = {name: getattr(schema, name) for name in dir(schema) if name.startswith("MAX_")}
    looks = "\n".join(f"- `{path}`: {summary}" for path, (summary, _) in document.LOOKS.items())
    lines.append(SCHEMAS.format(LOOKS=looks, ACTS="\n".join(map(_act, acts.EVERY)), **bounds))
    return "\n".join(lines)


def _form(form: base.Form) -> list[str]:
    fields = msgspec.structs.fields(form.schema)
    sent = ", ".join(f"**`{field.name}`**" if field.required else f"`{field.name}`" for field in fields)
    lines = [f"## POST {form.path}", "", f"{form.summary}{'; streams' if form.streams else ''}.", ""]
    lines += [f"- Sent on (those in bold are needed): {sent}."]
    if form.harmless:
        lines += [f"- Taken, and changes nothing: {', '.join(f'`{name}`' for name in sorted(form.harmless))}."]
    for name, values in form.neutral.items():
        shown = " or ".join(f"`{msgspec.json.encode(value).decode()}`" for value in values)
        lines.append(f"- `{name}` only as {shown}.")
    lines += [f"- `{name}` is refused: {reason}" for name, reason in form.refused.items()]
    return [*lines, ""]


def _act(act: acts.Act) -> str:
    fields = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(act.schema))
    return f"- `{act.path}`: {act.summary} ({fields})"


def proof() -> str:
    """What the proof of privacy attempts."""
    lines = [PROOF]
    for name, (_, meaning) in trial.ATTEMPTS.items():
        who = ["yes" if name in trial.PROFILES[profile] else "" for profile in ("gateway", "engine")]
        lines.append(f"| `{name}` | {who[0]} | {who[1]} | {meaning} |")
    return "\n".join([*lines, ""])


def figures() -> str:
    """Every metric with its labels."""
    lines = [METRICS]
    for family in metrics.FAMILIES:
        name = f"{family.name}_total" if family.kind == metrics.COUNTER else family.name
        labels = ", ".join(f"`{label}`" for label in family.labels)
        lines.append(f"| `{name}` | {family.kind} | {labels} | {family.says} |")
    bounds = [", ".join(f"{bound:g}" for bound in known) for known in (metrics.SECONDS, metrics.SECONDS_A_TOKEN)]
    lines += ["", f"Histograms have the bounds {bounds[0]} s; that of the time per token {bounds[1]} s."]
    return "\n".join([*lines, ""])


def scan_rules() -> str:
    """Every rule of the scanners and of the gate."""
    lines = [RULES]
    for rule in sorted([*rules.every(), *admit.RULES], key=lambda rule: rule.id):
        cells = (f"`{rule.id}`", rule.severity.value, rule.meaning, rule.remedy, rule.source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def roles() -> str:
    """What each role may do."""
    head = POLICY.format(ROLES=" | ".join(Role), RULES=" | ".join(":---:" for _ in Role))
    rows = [[action.value, *("yes" if may[role] else "" for role in Role)] for action, may in policy.table()]
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows), ""])


def run(arguments: list[str]) -> int:
    """Write, or check."""
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if "--check" in arguments:
            stale += [] if path.exists() and path.read_text() == text else [name]
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"not current: {', '.join(stale)}; run 'make docs'")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
