"""The pages of /admin, as HTML: a form to log in, and what is true now. No script, nothing from outside; whatever
stands on them is text, whoever wrote it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import time
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from freehold import log
from freehold.types import Alias, Call, Caller, Outcome

LOGIN, LOGOUT, FRONT = "/admin/login", "/admin/logout", "/admin"
SHOWN = 50  # calls

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
caption{text-align:left;opacity:.75;padding-bottom:.3rem}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid #8884;vertical-align:top}
td{overflow-wrap:anywhere}
.wide{overflow-x:auto}
.wrong{font-weight:600}
form.line{display:inline}
input,button{font:inherit;padding:.35rem .6rem}
input{width:min(32rem,100%)}
label{display:block;margin:.8rem 0 .2rem}
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = (
    (
        "content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_DIGEST}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),  # with none at all a browser would not say where a form comes from
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


class Overview(Struct, frozen=True):
    """What a caller may see now. ``status`` and ``aliases`` are None for those who may not look at the server, and then
    ``calls`` are their own."""

    queue: Sequence[dict[str, Any]]
    calls: Sequence[Call]
    status: dict[str, Any] | None = None
    aliases: Sequence[Alias] | None = None


def login(problem: str = "") -> bytes:
    """The form to log in; ``problem`` is why the last try came to nothing."""
    said = f'<p role="alert" class="wrong">{_text(problem)}</p>' if problem else ""
    return _page(
        "Log in to Freehold",
        f'<h1>Freehold</h1>{said}<form method="post" action="{LOGIN}" autocomplete="off">'
        '<label for="key">Key</label>'
        '<input id="key" name="key" type="password" required autofocus autocomplete="current-password">'
        '<p><button type="submit">Log in</button></p></form>'
        "<p>A key is made by <code>freehold keys create NAME</code>.</p>",
    )


def trouble(sentence: str) -> bytes:
    """A page that says what is wrong."""
    return _page(
        "Freehold",
        f'<h1>Freehold</h1><p role="alert">{_text(sentence)}</p><p><a href="{FRONT}">To the front page</a></p>',
    )


def overview(caller: Caller, form: str, seen: Overview) -> bytes:
    """What is true now, for one caller; ``form`` is the word that a form of theirs carries."""
    parts = [
        f'<h1>Freehold</h1><div>{_text(caller.name)}, {_text(caller.role.value)} · <a href="{FRONT}">Look again</a> · '
        f'<form class="line" method="post" action="{LOGOUT}"><input type="hidden" name="form" value="{_text(form)}">'
        '<button type="submit">Log out</button></form></div>'
    ]
    if seen.status is not None:
        parts += [_status(seen.status), _seal(seen.status["processes"])]
    parts.append(_queue(seen.queue))
    if seen.aliases is not None:
        parts.append(_aliases(seen.aliases))
    parts.append(_calls(seen.calls, own=seen.status is None))
    return _page("Freehold", "".join(parts))


def _status(status: dict[str, Any]) -> str:
    ledger = "CANNOT BE WRITTEN, nothing is served" if status["ledger_failing"] else "is written"
    ended = ", ".join(f"{count} {outcome}" for outcome, count in status["outcomes"].items()) or "none"
    head = "cannot be read" if status["audit_head"] is None else f"{status['audit_head']} events"
    facts = [
        ("version", status["version"]), ("address", status["address"]), ("started", _time(status["started_at"])),
        ("seal", status["seal"]), ("ledger", f"{ledger}; durability {status['durability']}"), ("audit chain", head),
        ("calls since the start", ended), ("recorded with their texts", _captured(status["capture"])),
    ]  # fmt: skip
    if traces := status.get("traces"):
        said = f"to {traces['host']}: {traces['exported']} exported, {traces['failed'] + traces['dropped']} lost"
        facts.append(("traces LEAVE THE HOUSE", f"{said}; {traces['why']}" if traces["why"] else said))
    engines = [
        (one["model"], one["purpose"], one["state"], one["slots"], one["context"] or "", one["restarts"], one["digest"])
        for one in status["engines"]
        if one["kind"] != "remote"
    ]
    upstreams = [
        (one["name"], one["host"], ", ".join(one["models"]), one["breaker"], one["sent"], one["answering"])
        for one in status["upstreams"]
    ]
    return (
        "<h2>Status</h2>" + _table("", ("", ""), facts)
        + _table("Engines", ("model", "for", "state", "slots", "context", "restarts", "digest"), engines)
        + (_table("Upstreams: these calls LEAVE THE HOUSE", ("name", "host", "models", "breaker", "sent", "in hand"),
                  upstreams) if upstreams else "")
    )  # fmt: skip


def _captured(capture: dict[str, Any]) -> str:
    names = ", ".join(capture["aliases"]) or "no name"
    return f"{names}: {capture['kept']} kept, {capture['known']} asked before, {capture['lost']} lost"


def _seal(processes: Iterable[Any]) -> str:
    rows = [
        (one.who, one.pid or "", layer.name, "on" if layer.active else "OFF", layer.detail)
        for one in processes
        for layer in one.reported
    ]
    return "<h2>Seal</h2>" + _table(
        "As reported; 'freehold status' asks the kernel", ("process", "pid", "layer", "", "what it says"), rows
    )


def _queue(queue: Sequence[dict[str, Any]]) -> str:
    rows = [
        (seat["model"], seat["purpose"], what, one["caller"], one["kind"], f"{one['seconds']:.1f} s", one["call"])
        for seat in queue
        for what, shown in (("answered", seat["answering"]), ("waits", seat["waiting"]))
        for one in shown
    ]
    counts = "; ".join(
        f"{seat['model']}: {seat['counts']['answering']} answered, {seat['counts']['waiting']} waiting, "
        f"{seat['slots']} slots"
        for seat in queue
    )
    head = ("model", "for", "", "caller", "kind", "for so long", "call")
    return "<h2>Queue</h2>" + _table(counts or "No engine was called yet", head, rows)


def _aliases(aliases: Sequence[Alias]) -> str:
    rows = [
        (
            one.name, one.target.model, one.target.upstream or one.target.digest,
            f"{one.canary.target.model}, {one.canary.share * 100:g} %" if one.canary else "",
        )
        for one in aliases
    ]  # fmt: skip
    return "<h2>Aliases</h2>" + _table("", ("name", "points at", "by", "canary"), rows)


def _calls(calls: Sequence[Call], *, own: bool) -> str:
    rows = [
        (
            _time(one.opened_at), one.caller, one.kind, one.alias or "", one.model or "", one.outcome or "open",
            "" if one.status is None else one.status, one.prompt_tokens, one.completion_tokens,
            "" if one.total_ms is None else f"{one.total_ms:.0f}", "yes" if one.left_the_house else "",
        )
        for one in calls[:SHOWN]
    ]  # fmt: skip
    head = ("opened", "caller", "kind", "alias", "model", "outcome", "status", "in", "out", "ms", "left the house")
    wrong = sum(one.outcome not in (Outcome.ANSWERED, None) for one in calls[:SHOWN])
    whose = "your" if own else "the"
    return "<h2>Ledger</h2>" + _table(f"{whose} latest {len(rows)} calls, {wrong} of them not answered", head, rows)


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head) if any(head) else ""
    said = f"<caption>{_text(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f'<div class="wide"><table>{said}{top}<tbody>{body}</tbody></table></div>'


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def _text(value: Any) -> str:
    """As text, whatever it is: nothing in it is a tag, or turns the reading direction."""
    return html.escape(log.plain(str(value)))


def _page(title: str, body: str) -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    ).encode()
