"""What the settings may not ask for: each check raises an error that says what would be wrong with it."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from freehold.app.opening import Parts
from freehold.config import ServerSettings, Settings
from freehold.errors import BadConfig, StoreFailed, UnsafeBind


def check_key(opened: Parts) -> None:
    """Before anything is recorded: the key of recorded calls can be read, and is the one in use. Raises BadConfig,
    WrongKey."""
    if opened.ring.writes.id or opened.home.traffic.exists():
        with contextlib.suppress(StoreFailed):  # whoever records says so, and tries again
            opened.samples.ready()


def check_bind(server: ServerSettings) -> None:
    """Keys and prompts do not travel in the clear. Raises BadConfig, UnsafeBind."""
    if bool(server.tls_cert) != bool(server.tls_key):
        raise BadConfig("TLS needs a certificate and its key.", hint="Give both --tls-cert and --tls-key.")
    try:
        loopback = server.host == "localhost" or ip_address(server.host).is_loopback
    except ValueError:
        raise BadConfig(f"{server.host!r} is not an address.", hint="Give one like 127.0.0.1 or 0.0.0.0.") from None
    if not loopback and not server.tls_cert and not server.behind_proxy:
        raise UnsafeBind(
            f"Listening on {server.host} would send keys and prompts in the clear.",
            hint="Add --tls-cert and --tls-key, or --behind-proxy if something in front encrypts.",
        )


def check_open(settings: Settings) -> None:
    """Behind a proxy on this machine everybody seems to come from this machine. Raises BadConfig."""
    if settings.metrics.open and settings.server.behind_proxy:
        raise BadConfig(
            "metrics.open would show the metrics to whoever comes through the proxy of server.behind_proxy.",
            hint="Leave one of the two out; with a key /metrics can be read from anywhere.",
        )


def check_database(settings: Settings) -> None:
    """A sealed gateway has Unix sockets and no others, to its database too. Raises BadConfig."""
    try:
        url = make_url(settings.database or "sqlite://")
    except SQLAlchemyError:
        return  # opening it says what is wrong
    if url.get_backend_name() == "sqlite" or settings.seal == "off":
        return
    if url.host or not str(url.query.get("host", "")).startswith("/"):
        raise BadConfig(
            f"The seal lets the gateway reach no database over the network, and {url.render_as_string()} is one.",
            hint="Name the folder of its Unix socket: postgresql+psycopg://USER@/NAME?host=/var/run/postgresql",
        )
