"""Upstreams as the settings have them, checked: where each lies, whether it may be reached, and its models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from msgspec import Struct

from freehold.config import Settings, UpstreamSettings
from freehold.errors import BadConfig
from freehold.types import Manifest

REMOTE = "remote"  # the format of a manifest whose model somebody else runs
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:.]{2,45}")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MODEL = re.compile(r"[!-~]{1,200}")


class Place(Struct, frozen=True):
    """Where an upstream lies: the parts of its base URL."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port, as `upstream_hosts` has them."""
        return authority(self.host, self.port)


class Upstream(Struct, frozen=True):
    """One upstream: its name, its settings, its place, and the name there of each of its models by the name here."""

    name: str
    settings: UpstreamSettings
    place: Place
    models: Mapping[str, str]

    @property
    def manifest(self) -> Manifest:
        """What the pool knows of its engine."""
        return Manifest(self.name, "", 0, REMOTE, self.settings.url, False)

    def manifests(self) -> dict[str, Manifest]:
        """Its models, by the name here. Nobody admitted them, so that none counts as the latest that was."""
        return {name: Manifest(name, "", 0, REMOTE, self.settings.url, False) for name in self.models}


def authority(host: str, port: int) -> str:
    """Host and port as one word, in one spelling."""
    return f"[{host.lower()}]:{port}" if ":" in host else f"{host.lower()}:{port}"


def allowed(hosts: Iterable[str]) -> frozenset[str]:
    """The allow-list in one spelling. Raises BadConfig for what is no host and port."""
    return frozenset(_allowed(entry) for entry in hosts)


def all_of(settings: Settings) -> tuple[Upstream, ...]:
    """Every upstream of the settings.

    Raises:
        BadConfig: a URL cannot be used, its host is not on the allow-list, its key would go in the clear, or two
            upstreams have a model of the same name.
    """
    hosts = allowed(settings.upstream_hosts)
    found = tuple(_upstream(name, own, hosts) for name, own in settings.upstreams.items())
    owners: dict[str, str] = {}
    for upstream in found:
        for model in upstream.models:
            if model in owners:
                raise BadConfig(
                    f"The upstreams {owners[model]!r} and {upstream.name!r} both have a model {model!r}.",
                    hint="Give one of the two another name here, in its table 'names'.",
                )
            owners[model] = upstream.name
    return found


def collector(settings: Settings) -> Place | None:
    """Where traces go; None where they go nowhere. A URL without a path is completed as OTLP has it.

    Raises:
        BadConfig: the URL cannot be used, its host is not on the allow-list, or traces would go in the clear.
    """
    own = settings.traces
    if not own.endpoint:
        return None
    place = _place("traces", own.endpoint, "endpoint")
    if not place.path:
        place = Place(place.scheme, place.host, place.port, "/v1/traces")
    if place.authority not in allowed(settings.upstream_hosts):
        raise BadConfig(
            f"traces.endpoint is at {place.authority}, which is not in upstream_hosts.",
            hint=f'Add "{place.authority}" to upstream_hosts if traces may leave the house for it.',
        )
    if place.scheme == "http" and not own.plain and not is_loopback(place.host):
        raise BadConfig(
            f"traces.endpoint would have traces sent to {place.authority} in the clear.",
            hint="Give an https:// URL, or set traces.plain = true where the network between is your own.",
        )
    return place


def check_names(upstreams: Iterable[Upstream], models: Iterable[str]) -> None:
    """Raises BadConfig if a model of an upstream has the name of one in the vault: nobody could tell which answered."""
    inside = set(models)
    for upstream in upstreams:
        for model in upstream.models.keys() & inside:
            raise BadConfig(
                f"The model {model!r} is in the vault and at the upstream {upstream.name!r} too.",
                hint=f"Give the upstream's another name here: [upstreams.{upstream.name}.names].",
            )


def _upstream(name: str, own: UpstreamSettings, hosts: frozenset[str]) -> Upstream:
    where = f"upstreams.{name}"
    if not _NAME.fullmatch(name):
        raise BadConfig(f"{name!r} cannot be an upstream's name.", hint="Use letters, digits, '.', '_' and '-'.")
    place = _place(where, own.url)
    if place.authority not in hosts:
        raise BadConfig(
            f"{where} is at {place.authority}, which is not in upstream_hosts.",
            hint=f'Add "{place.authority}" to upstream_hosts if calls may leave the house for it.',
        )
    if place.scheme == "http" and not own.plain and not is_loopback(place.host):
        raise BadConfig(
            f"{where} would send prompts and its key to {place.authority} in the clear.",
            hint="Give an https:// URL, or set plain = true where the network between is your own.",
        )
    if own.key_file and own.key_env:
        raise BadConfig(f"{where} has both key_file and key_env.", hint="Give one.")
    models = {model: model for model in own.models} | own.names
    for model in (*models, *models.values()):
        if not _MODEL.fullmatch(model):
            raise BadConfig(f"{where} has a model {model!r}, which cannot be a name.", hint="Names have no spaces.")
    if not models:
        raise BadConfig(f"{where} names no models.", hint='Add models = ["..."], as the upstream calls them.')
    return Upstream(name, own, place, models)


def is_loopback(host: str) -> bool:
    """Is this this machine?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _place(where: str, url: str, name: str = "url") -> Place:
    """The parts of a base URL. No message repeats the URL: somebody may have put a key into it."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise BadConfig(f"{where}.{name} is no URL.", hint="Give one like https://api.example.com/v1.") from None
    host, path = parts.hostname or "", parts.path.rstrip("/")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadConfig(f"{where}.{name} has a user, a query or a fragment.", hint="A key belongs into key_file.")
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host) or not _PATH.fullmatch(path):
        raise BadConfig(f"{where}.{name} cannot be used.", hint="Give one like https://api.example.com/v1.")
    return Place(parts.scheme, host, port, path)


def _allowed(entry: str) -> str:
    try:
        parts = urlsplit(f"//{entry}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if port is None or not _HOST.fullmatch(host) or authority(host, port) != entry.lower():
        raise BadConfig(f"upstream_hosts has {entry!r}.", hint="Give host and port, like api.example.com:443.")
    return authority(host, port)
