"""What is true now. The seal is read back from the kernel by this command itself, not taken from the server's word."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import msgspec

import freehold
from freehold import config, seal
from freehold.cli import local
from freehold.errors import BadModel, CannotDo
from freehold.ledger import Verification
from freehold.types import ADAPTER, Alias

_SHORT = 20_000  # events that are walked in a moment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``freehold status``."""
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print what is true. Exit code 1 if a hash does not verify, the chain is broken, or auth or the seal is off."""
    with local.opened(arguments) as parts:
        facts = _facts(parts)
    if arguments.json:
        local.print_json(facts)
    else:
        _show(facts)
    sound = facts["audit"]["holds"] and all(model["verified"] for model in facts["models"])
    return 0 if sound and facts["auth"] == "on" and facts["seal"]["mode"] != "off" else 1


def _facts(parts: Any) -> dict[str, Any]:
    live = local.live(parts.home)
    chain = _chain(parts)
    keys = parts.keys.list()
    return {
        "version": freehold.__version__,
        "home": str(parts.home.folder),
        "running": live is not None,
        "address": live["address"] if live else None,
        "bind": _bind(live["address"]) if live else None,
        "auth": _auth(parts) if live else "on",
        "keys": {
            "live": sum(key.is_live for key in keys),
            "revoked": sum(bool(key.revoked_at) for key in keys),
        },
        "seal": _seal(live, parts.settings),
        "engines": [] if live is None else [_engine(engine) for engine in live["engines"]],
        "upstreams": [] if live is None else live["upstreams"],
        "capture": None if live is None else live["capture"],
        "guard": None if live is None else live["guard"],
        "traces": None if live is None else live["traces"],
        "energy": None if live is None else live["energy"],
        "aliases": [_alias(alias) for alias in parts.aliases.every()],
        "models": [_model(parts, manifest) for manifest in parts.vault.list()],
        "ledger": {"calls": parts.ledger.totals(), "left_the_house": parts.ledger.left_the_house()},
        "audit": {name: getattr(chain, name) for name in ("holds", "events", "head", "problem", "signed")}
        | {"checkpoints": None if live is None else live["audit"]},
    }


def _chain(parts: Any) -> Verification:
    """The whole chain, walked; of a long one, what came since the last checkpoint."""
    number, head = parts.ledger.head()
    try:
        return parts.audit.verify() if number <= _SHORT else parts.audit.verify_latest()
    except CannotDo as error:  # a key or a file of checkpoints that cannot be read
        return Verification(False, number, head, error.message.rstrip("."))


def _alias(alias: Alias) -> dict[str, Any]:
    """An alias in short; 'freehold promote' says more."""
    pointed = {name: getattr(alias.target, name) for name in ("model", "digest", "upstream")}
    canary = alias.canary and {"model": alias.canary.target.model, "share": alias.canary.share}
    return {"alias": alias.name} | pointed | {"canary": canary}


def _auth(parts: Any) -> str:
    """Asked of the server itself, without a key."""
    keyless = msgspec.structs.replace(parts.home.running(), key="")
    try:
        local.call(keyless, "GET", "/v1/models", timeout=10).read()
    except CannotDo:
        return "on"
    return "OFF: a call without a key was answered"


def _bind(address: str) -> str:
    return "loopback" if any(host in address for host in ("//127.", "//[::1]")) else "network"


def _seal(live: dict[str, Any] | None, settings: config.Settings) -> dict[str, Any]:
    """Each process with what the kernel says of it, and what the kernel cannot say (Landlock) as reported."""
    if live is None:
        return {"mode": settings.seal, "processes": []}
    found = [("gateway", live["pid"], "running", live["reported"])]
    if relay := live["relay"]:
        who = {"relay, supervisor": relay["pid"], "relay, worker": relay["worker"]}
        found += [(name, pid, relay["state"], relay["reported"]) for name, pid in who.items()]
    found += [
        (local.engine_name(engine), engine["pid"], engine["state"], engine["reported"])
        for engine in live["engines"]
        if engine["kind"] != "remote"
    ]
    return {"mode": live["seal"], "processes": [_process(*process) for process in found]}


def _process(who: str, pid: int | None, state: str, reported: list[dict[str, Any]]) -> dict[str, Any]:
    known = {layer["name"] for layer in reported}
    read = [msgspec.to_builtins(layer) for layer in seal.read(pid)] if pid else []
    read = [layer for layer in read if layer["name"] in known or layer["name"] in ("kernel", "seccomp", "no_new_privs")]
    unread = [layer for layer in reported if layer["name"] not in {layer["name"] for layer in read}]
    return {"who": who, "pid": pid, "state": state, "layers": read + unread}


def _engine(engine: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in engine.items() if name != "reported"}


def _model(parts: Any, manifest: Any) -> dict[str, Any]:
    facts = msgspec.to_builtins(manifest)
    try:
        parts.vault.verify(manifest, partial(local.Bar(), "verifying"))
    except BadModel as error:
        return facts | {"verified": False, "problem": error.message}
    return facts | {"verified": True}


def _show_upstream(upstream: dict[str, Any]) -> None:
    models = ", ".join(upstream["models"])
    print(f"  upstream {upstream['name']}: calls to {models} LEAVE THE HOUSE, for {upstream['host']}")
    breaker = f"breaker {upstream['breaker']}, {upstream['failures']} failures in a row"
    print(f"          {breaker}; {upstream['sent']} calls sent since the start, {upstream['answering']} in hand")


def _show_capture(capture: dict[str, Any]) -> None:
    aliases = ", ".join(map(local.plain, capture["aliases"])) or "no model"
    print(f"  capture calls to {aliases} are recorded, with their texts")
    counts = f"{capture['kept']} kept, {capture['known']} asked before, {capture['waiting']} waiting"
    lost = f"{capture['lost']} LOST" if capture["lost"] else "0 lost"
    print(f"          since the start {counts}, {lost}")
    if capture["why"]:
        print(f"          {local.plain(capture['why'])}")


def _show_guard(place: str, done: dict[str, dict[str, int]]) -> None:
    counts = {action: ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) for action, kinds in done.items()}
    print(f"  guard   {place}: {'; '.join(f'{action} {said}' for action, said in counts.items())}")


def _show_traces(traces: dict[str, Any]) -> None:
    print(f"  traces  names, times and counts of calls LEAVE THE HOUSE, for {traces['host']}; no texts")
    lost = traces["failed"] + traces["dropped"] + traces["rejected"]
    print(
        f"          since the start {traces['exported']} spans exported, {lost} lost, {traces['waiting']} calls waiting"
    )
    if traces["why"]:
        print(f"          the last ones did not reach it: {local.plain(traces['why'])}")


def _show(facts: dict[str, Any]) -> None:
    state = f"answers at {facts['address']} ({facts['bind']})" if facts["running"] else "is not running"
    print(f"Freehold {facts['version']} {state}")
    print(f"  home    {facts['home']}")
    print(f"  auth    {facts['auth']}; {facts['keys']['live']} live keys, {facts['keys']['revoked']} revoked")
    for model in facts["models"]:
        hash_ = "hash verified" if model["verified"] else "HASH DOES NOT VERIFY"
        pinned = "pinned" if model["pinned"] else "not pinned"
        kind = "adapter" if model["format"] == ADAPTER else "model  "
        print(f"  {kind} {model['name']}  {model['digest']}  {hash_}, {pinned}")
    for upstream in facts["upstreams"]:
        _show_upstream(upstream)
    for alias in facts["aliases"]:
        canary = alias["canary"]
        share = f"; a canary of {canary['model']} has {canary['share'] * 100:g}%" if canary else ""
        print(local.lines([f"  alias   {alias['alias']} -> {alias['model']}{share}"]))
    if facts["capture"] and any(facts["capture"].values()):
        _show_capture(facts["capture"])
    for place, done in (facts["guard"] or {}).items():
        _show_guard(place, done)
    if facts["traces"]:
        _show_traces(facts["traces"])
    if energy := facts["energy"]:
        counters = ", ".join(energy["counters"]) or f"estimated: {energy['why']}"
        print(local.lines([f"  energy  {counters}"]))
    for engine in facts["engines"]:
        if engine["kind"] == "remote":
            continue
        size = f"{engine['slots']} calls at once, {engine['context']} tokens each"
        name = local.engine_name(engine).removeprefix("engine ")
        print(f"  engine  {name}: {engine['kind']}, {engine['state']}, restarted {engine['restarts']} times; {size}")
        print(f"          chat template: {engine['template']}")
        if engine["adapters"]:
            print(f"          adapters: {', '.join(engine['adapters'])}")
    print(f"  seal    {facts['seal']['mode']}")
    for process in facts["seal"]["processes"]:
        print(f"    {process['who']}, process {process['pid']}, {process['state']}")
        for layer in process["layers"]:
            source = "kernel" if layer["known_from"] == "kernel" else "as reported; the kernel has no read-back"
            print(f"      {'on ' if layer['active'] else 'OFF'} {layer['name']:<18} {layer['detail']}  [{source}]")
    calls = ", ".join(f"{count} {outcome}" for outcome, count in facts["ledger"]["calls"].items()) or "none"
    print(f"  calls   {calls}; {facts['ledger']['left_the_house']} left the house")
    chain = facts["audit"]
    state = "the chain holds" if chain["holds"] else f"THE CHAIN IS BROKEN: {chain['problem']}"
    print(f"  audit   {chain['events']} events, {state}")
    print(f"          head {chain['head']}")
    print(f"          signed up to event {chain['signed']}")
    if kept := chain["checkpoints"]:
        print(local.lines([f"          checkpoints go to {kept['to'] or 'no file outside the home'}"]))
        if kept["problem"]:
            print(local.lines([f"          NO CHECKPOINT: {kept['problem']}"]))
