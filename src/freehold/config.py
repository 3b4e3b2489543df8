"""One frozen `Settings`, read once, from ``freehold.toml`` and ``FREEHOLD_*`` variables.

The file lies in the home (``<home>/freehold.toml``) unless ``FREEHOLD_CONFIG`` names another. A variable
is named after its table and key, ``FREEHOLD_SERVER_PORT`` for ``[server] port``, and wins over the file;
a command's own flag wins over both.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from freehold.errors import BadConfig

__all__ = ["Settings", "home_folder", "load"]

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]

ASSUMED = {  # of [cost], where nothing is set; money is in US dollars. docs/concepts/cost.md says where each is from
    "machine_per_hour": 0.16, "watts_idle": 60.0, "watts_busy": 150.0, "energy_per_kwh": 0.20, "hours_per_day": 24.0,
}  # fmt: skip


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens.

    Beyond loopback it needs either TLS files or ``behind_proxy``, which says that something in front of it
    encrypts.
    """

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port; 0 takes a free one")] = 8484
    tls_cert: Annotated[str, Meta(description="certificate chain (PEM) for TLS")] = ""
    tls_key: Annotated[str, Meta(description="private key (PEM) for TLS")] = ""
    behind_proxy: Annotated[bool, Meta(description="a proxy in front encrypts")] = False
    grace: Annotated[Seconds, Meta(description="seconds that running calls get when the server stops")] = 30.0


class LimitsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What one client may take."""

    body_bytes: Annotated[Positive, Meta(description="largest request body, in bytes")] = 8 * 1024 * 1024
    bodies_bytes: Annotated[Positive, Meta(description="bodies that are arriving, all together, in bytes")] = 256 << 20
    header_bytes: Annotated[Positive, Meta(description="largest request line and headers together, in bytes")] = (
        32 * 1024
    )
    connections: Annotated[
        Positive,
        Meta(description="open connections; beyond it the longest-waiting silent one is closed"),
    ] = 16_384
    header_seconds: Annotated[Seconds, Meta(description="time for the headers to arrive")] = 10.0
    body_seconds: Annotated[Seconds, Meta(description="longest pause while a body arrives")] = 15.0
    idle_seconds: Annotated[Seconds, Meta(description="time that a kept-alive connection may stay unused")] = 75.0
    stall_seconds: Annotated[Seconds, Meta(description="longest time that a client may not read")] = 30.0


KvType = Literal["f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]


class EngineSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a model runs. 0 means: decide from the model and the machine. Every one can be set for one model alone,
    in a table ``[models."NAME"]``."""

    context: Annotated[
        int, Meta(ge=0, description="tokens that one call may use, prompt and answer; 0: the model's own, at most 4096")
    ] = 0
    slots: Annotated[int, Meta(ge=0, le=256, description="calls answered at once; 0: four")] = 0
    threads: Annotated[int, Meta(ge=0, le=1024, description="CPU threads; 0: all cores")] = 0
    gpu_layers: Annotated[int, Meta(ge=-1, description="layers on the GPU; -1: as many as fit, 0: none")] = -1
    flash_attention: Annotated[Literal["auto", "on", "off"], Meta(description="flash attention")] = "auto"
    kv_type: Annotated[
        KvType, Meta(description="how the attention cache is kept; all but f16 need flash attention")
    ] = "f16"
    batch: Annotated[
        int,
        Meta(
            ge=0,
            le=4096,
            description="prompt tokens taken in at once, between which other calls get their turn and an abandoned one "
            "ends; 0: 32, which suits a CPU; a GPU wants 512 or more",
        ),
    ] = 0
    memory_bytes: Annotated[
        int, Meta(ge=0, description="bound on an engine's memory beside the model's file; 0: three quarters of all")
    ] = 0
    start_seconds: Annotated[Seconds, Meta(description="time that a model may take to load")] = 300.0
    stuck_seconds: Annotated[Seconds, Meta(description="an engine silent for this long is ended and restarted")] = 60.0


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is different for one model: the same names as `EngineSettings`."""

    context: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    slots: Annotated[int, Meta(ge=0, le=256)] | UnsetType = UNSET
    threads: Annotated[int, Meta(ge=0, le=1024)] | UnsetType = UNSET
    gpu_layers: Annotated[int, Meta(ge=-1)] | UnsetType = UNSET
    flash_attention: Literal["auto", "on", "off"] | UnsetType = UNSET
    kv_type: KvType | UnsetType = UNSET
    batch: Annotated[int, Meta(ge=0, le=4096)] | UnsetType = UNSET
    memory_bytes: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    start_seconds: Seconds | UnsetType = UNSET
    stuck_seconds: Seconds | UnsetType = UNSET


class UpstreamSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A table ``[upstreams.NAME]``: somebody else's models, to which calls are passed on. The key is never in it."""

    url: Annotated[str, Meta(description="base URL, such as https://api.example.com/v1; its host is in upstream_hosts")]
    key_file: Annotated[str, Meta(description="file with the upstream's key, read by the relay alone")] = ""
    key_env: Annotated[str, Meta(description="variable with the upstream's key, where there is no file")] = ""
    models: Annotated[tuple[str, ...], Meta(description="models that can be called, by the upstream's own names")] = ()
    names: Annotated[
        dict[str, str], Meta(description='models that have another name here: { "name here" = "name there" }')
    ] = {}
    connect_seconds: Annotated[Seconds, Meta(description="time for a connection to be made")] = 10.0
    silence_seconds: Annotated[
        Seconds, Meta(description="longest wait for the next bytes of an answer, the first ones too")
    ] = 600.0
    retries: Annotated[
        int, Meta(ge=0, le=10, description="further tries of a call of whose answer nothing has arrived")
    ] = 2
    calls: Annotated[int, Meta(ge=1, le=4096, description="calls at once; more wait in line")] = 32
    answer_bytes: Annotated[Positive, Meta(description="longest answer that is taken, in bytes")] = 64 << 20
    count_streams: Annotated[
        bool, Meta(description="ask for the token counts of streams too, and take them out before the client sees them")
    ] = True
    breaker_failures: Annotated[
        Positive, Meta(description="failures in a row after which calls are refused at once, for a while")
    ] = 5
    breaker_seconds: Annotated[Seconds, Meta(description="that while; then one call is let through to see")] = 15.0
    ca: Annotated[str, Meta(description="PEM file of the CA to trust in place of the system's")] = ""
    plain: Annotated[bool, Meta(description="allow http, unencrypted, beyond loopback")] = False


class PoolSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which engines are up at once."""

    memory_bytes: Annotated[
        int, Meta(ge=0, description="memory of all engines together; 0: three quarters of the machine's")
    ] = 0
    idle_seconds: Annotated[Seconds, Meta(description="an engine that nobody called for so long is stopped")] = 1800.0
    stay_seconds: Annotated[
        Annotated[float, Meta(ge=0)],
        Meta(description="an engine with callers is not stopped for another model's sake before it was up so long"),
    ] = 10.0


class QueueSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The line before an engine whose slots are all taken; see docs/concepts/queue.md."""

    calls: Annotated[
        Positive, Meta(description="calls that may wait for one engine; past it the last in line gets 429")
    ] = 256
    seconds: Annotated[
        Seconds, Meta(description="time that a call may wait while its engine is up; past it it gets 503")
    ] = 120.0


Most = Annotated[int, Meta(ge=0, le=10**15)]


class CallerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What one key may take of the whole, where 'freehold limits' says nothing else of it; see
    docs/concepts/limits.md. 0: as much as there is."""

    models: Annotated[
        tuple[str, ...], Meta(description="models that one key may call, by alias or by name; empty: all")
    ] = ()
    calls_per_minute: Annotated[Most, Meta(description="calls that one caller may begin in a minute; 0: any")] = 0
    calls_at_once: Annotated[
        Most, Meta(description="calls that one caller may have in hand, waiting ones included; 0: any")
    ] = 0
    tokens_per_minute: Annotated[
        Most, Meta(description="tokens of one caller in a minute, of prompts and answers; 0: any")
    ] = 0
    max_tokens: Annotated[
        Most, Meta(description="tokens that one call may ask for in its answer; 0: what the context holds")
    ] = 0
    tokens_per_day: Annotated[Most, Meta(description="tokens of one caller in a day of UTC; 0: any")] = 0
    tokens_per_month: Annotated[Most, Meta(description="tokens of one caller in a month of UTC; 0: any")] = 0
    money_per_day: Annotated[
        Annotated[float, Meta(ge=0, le=1e12)],
        Meta(description="what one caller's tokens may cost in a day of UTC, in `cost.currency`; 0: any"),
    ] = 0.0
    money_per_month: Annotated[
        Annotated[float, Meta(ge=0, le=1e12)],
        Meta(description="what one caller's tokens may cost in a month of UTC, in `cost.currency`; 0: any"),
    ] = 0.0


class LedgerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """When an answer may be sent: see docs/concepts/ledger.md."""

    durability: Annotated[
        Literal["strict", "relaxed"],
        Meta(description="'strict': its entry is on the disk before its last byte goes; 'relaxed': about 50 ms later"),
    ] = "strict"


class AuditSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """When the head of the audit chain is signed, and where that is kept; see docs/concepts/audit.md."""

    checkpoint_every: Annotated[
        Positive, Meta(description="events after which a checkpoint is signed; one is at every start and stop, too")
    ] = 10_000
    checkpoint_seconds: Annotated[
        Seconds, Meta(description="time after which one is signed, where there were events meanwhile")
    ] = 600.0
    checkpoint_to: Annotated[
        str,
        Meta(description="file outside the home, by its whole path, that takes checkpoints; empty: none"),
    ] = ""


class CanarySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a canary is judged; see docs/concepts/canary.md."""

    feedback_seconds: Annotated[
        Annotated[float, Meta(ge=0)],
        Meta(description="time in which an application may complain of a call before its conversation is counted"),
    ] = 600.0


class MetricsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may read /metrics; see docs/guides/operate.md."""

    open: Annotated[bool, Meta(description="whoever asks from this machine itself may read /metrics without a key")] = (
        False
    )


class LogsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the server writes to standard error; see docs/guides/operate.md. Never the text of a call."""

    format: Annotated[
        Literal["text", "json"], Meta(description="'text': sentences for people; 'json': one object a line")
    ] = "text"
    calls: Annotated[bool, Meta(description="a line for each call: who, which model, when, how long, how it ended")] = (
        False
    )


class TracesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where traces of calls go, in OpenTelemetry's form; see docs/guides/operate.md. Never the text of a call."""

    endpoint: Annotated[
        str,
        Meta(description="URL that takes OTLP over HTTP as JSON; its host is in upstream_hosts; empty: no traces"),
    ] = ""
    key_file: Annotated[str, Meta(description="file with the key to it, sent as a bearer token by the relay")] = ""
    ca: Annotated[str, Meta(description="PEM file of the CA to trust in place of the system's")] = ""
    plain: Annotated[bool, Meta(description="allow http, unencrypted, beyond loopback")] = False
    service: Annotated[str, Meta(description="the name of this service there", min_length=1, max_length=200)] = (
        "freehold"
    )
    share: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(description="share of the calls that are traced, of those that come without a trace of their own"),
    ] = 1.0


class LoginSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Logging in to /admin with a browser; see docs/guides/operate.md."""

    hours: Annotated[Annotated[float, Meta(gt=0, le=168)], Meta(description="a session ends after so long")] = 8.0
    failures: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        Meta(description="wrong keys from one address within a quarter of an hour, after which it is locked out"),
    ] = 5
    lock_seconds: Annotated[
        Seconds, Meta(description="for so long at first; each time twice as long, up to an hour")
    ] = 60.0


Kind = Literal["open", "source-available", "use-restricted", "non-commercial", "unknown"]


class TrustSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which models may come in without a named decision; see docs/concepts/gate.md."""

    licences: Annotated[
        tuple[Kind, ...], Meta(description="classes of licence that come in; a model under another is held")
    ] = ("open", "source-available", "use-restricted", "unknown")
    refused: Annotated[
        tuple[Kind, ...], Meta(description="classes of licence that are refused, whoever would decide otherwise")
    ] = ()
    openness: Annotated[
        Literal["", "III", "II", "I"],
        Meta(description="least class of the Model Openness Framework that comes in; empty: any"),
    ] = ""
    signed: Annotated[bool, Meta(description="hold a model without a good signature by one of trust.signers")] = False
    templates: Annotated[
        tuple[str, ...], Meta(description="SHA-256 digests of chat templates that were looked at, and come in")
    ] = ()
    signers: dict[str, str] = {}  # a table: in the file alone


Treatment = Literal["allow", "mask", "refuse"]


class TreatmentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A table ``[guard.house]``, ``[guard.upstream]`` or ``[guard.capture]``: what is done with each kind of secret and
    personal data. A kind wins over its group; what is not set is as docs/guides/guard.md says."""

    secrets: Annotated[Treatment | UnsetType, Meta(description="all secrets: the next five")] = UNSET
    private_key: Annotated[Treatment | UnsetType, Meta(description="private keys")] = UNSET
    jwt: Annotated[Treatment | UnsetType, Meta(description="JSON Web Tokens")] = UNSET
    api_key: Annotated[Treatment | UnsetType, Meta(description="keys and tokens of known issuers")] = UNSET
    password: Annotated[Treatment | UnsetType, Meta(description="passwords beside their name, and in URLs")] = UNSET
    secret: Annotated[Treatment | UnsetType, Meta(description="random words that are called a secret")] = UNSET
    personal: Annotated[Treatment | UnsetType, Meta(description="all personal data: the next six")] = UNSET
    card: Annotated[Treatment | UnsetType, Meta(description="payment cards")] = UNSET
    iban: Annotated[Treatment | UnsetType, Meta(description="bank accounts")] = UNSET
    national_id: Annotated[Treatment | UnsetType, Meta(description="national identity numbers")] = UNSET
    email: Annotated[Treatment | UnsetType, Meta(description="e-mail addresses")] = UNSET
    phone: Annotated[Treatment | UnsetType, Meta(description="telephone numbers")] = UNSET
    ip_address: Annotated[Treatment | UnsetType, Meta(description="public IP addresses")] = UNSET


class GuardedCallerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A table ``[guard.callers."NAME"]``: what is different for the calls of one key, by its name."""

    house: TreatmentSettings = TreatmentSettings()
    upstream: TreatmentSettings = TreatmentSettings()
    capture: TreatmentSettings = TreatmentSettings()
    restore: bool | UnsetType = UNSET


class GuardSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done with secrets and personal data before a text reaches an engine, an upstream or the disk; see
    docs/guides/guard.md."""

    restore: Annotated[bool, Meta(description="put what was masked in a request back into its answer")] = True
    unread: Annotated[
        Literal["allow", "refuse"],
        Meta(description="requests with what no detector can read: pictures, sounds, files, prompts as token numbers"),
    ] = "allow"
    house: TreatmentSettings = TreatmentSettings()
    upstream: TreatmentSettings = TreatmentSettings()
    capture: TreatmentSettings = TreatmentSettings()
    callers: dict[str, GuardedCallerSettings] = {}


class TrafficSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How recorded calls are kept; see docs/guides/retention.md."""

    days: Annotated[
        int,
        Meta(ge=0, le=36_500, description="days after which a recorded call is erased; 0: never; a task may differ"),
    ] = 365
    key_file: Annotated[
        str, Meta(description="file with the key that encrypts recorded calls; or FREEHOLD_TRAFFIC_KEY holds the key")
    ] = ""


Money = Annotated[float, Meta(ge=0, le=1e9)]
Watts = Annotated[float, Meta(ge=0, le=1e6)]


class PriceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A table ``[cost.prices."MODEL"]``: what somebody else charges for a model's tokens, in ``cost.currency`` for a
    million of them. It wins over the price list."""

    input: Annotated[Money, Meta(description="a million prompt tokens")]
    output: Annotated[Money, Meta(description="a million answer tokens")]
    cached: Annotated[
        Money | None, Meta(description="a million prompt tokens that the provider had in its cache; null: as `input`")
    ] = None


class CostSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What owning the machine costs, and renting; see docs/concepts/cost.md. What is null is assumed, and every figure
    that rests on it says so."""

    currency: Annotated[
        str, Meta(pattern="^[A-Z]{3}$", description="in which money is shown: the three letters of ISO 4217")
    ] = "USD"
    usd_rate: Annotated[
        Annotated[float, Meta(gt=0, le=1e6)] | None,
        Meta(description="what one US dollar costs in `currency`; needed where that is not USD, in which the list is"),
    ] = None
    machine_per_hour: Annotated[
        Money | None,
        Meta(description="what the machine costs an hour, written off and housed, without its energy; null: 0.16 USD"),
    ] = None
    watts_idle: Annotated[Watts | None, Meta(description="what it draws while it answers nothing; null: 60")] = None
    watts_busy: Annotated[Watts | None, Meta(description="what it draws while it answers; null: 150")] = None
    energy_per_kwh: Annotated[Money | None, Meta(description="what a kilowatt-hour costs; null: 0.20 USD")] = None
    hours_per_day: Annotated[
        Annotated[float, Meta(gt=0, le=24)] | None, Meta(description="hours a day that the machine is on; null: 24")
    ] = None
    energy_counters: Annotated[
        bool,
        Meta(description="read the machine's energy counters (RAPL, NVML) where it has some and lets them be read"),
    ] = True
    prices: dict[str, PriceSettings] = {}  # tables: in the file alone

    def __post_init__(self) -> None:
        if self.currency != "USD" and self.usd_rate is None:
            raise ValueError(f"cost.usd_rate must say what one US dollar is in {self.currency}, the cost.currency")
        if self.currency == "USD" and self.usd_rate not in (None, 1):
            raise ValueError("cost.usd_rate is for another cost.currency than USD")
        idle = ASSUMED["watts_idle"] if self.watts_idle is None else self.watts_idle
        busy = ASSUMED["watts_busy"] if self.watts_busy is None else self.watts_busy
        if idle > busy:
            raise ValueError(f"cost.watts_idle is {idle:g}, more than cost.watts_busy, which is {busy:g}")


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    server: ServerSettings = ServerSettings()
    limits: LimitsSettings = LimitsSettings()
    engine: EngineSettings = EngineSettings()
    ledger: LedgerSettings = LedgerSettings()
    audit: AuditSettings = AuditSettings()
    queue: QueueSettings = QueueSettings()
    pool: PoolSettings = PoolSettings()
    callers: CallerSettings = CallerSettings()
    canary: CanarySettings = CanarySettings()
    trust: TrustSettings = TrustSettings()
    guard: GuardSettings = GuardSettings()
    traffic: TrafficSettings = TrafficSettings()
    cost: CostSettings = CostSettings()
    metrics: MetricsSettings = MetricsSettings()
    logs: LogsSettings = LogsSettings()
    traces: TracesSettings = TracesSettings()
    login: LoginSettings = LoginSettings()
    models: dict[str, ModelSettings] = {}
    upstreams: dict[str, UpstreamSettings] = {}
    upstream_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="'host:port' of every place that calls may be passed on to, or traces sent; empty: nothing "
            "leaves the house"
        ),
    ] = ()
    seal: Annotated[
        Literal["best", "required", "off"],
        Meta(description="best: what the kernel has; required: all or do not start; off: none, for tests"),
    ] = "best"
    database: Annotated[
        str, Meta(description="SQLAlchemy URL, by Unix socket where the seal is on; empty: SQLite in the home")
    ] = ""

    def engine_for(self, model: str) -> EngineSettings:
        """The engine settings of one model."""
        own = self.models.get(model, ModelSettings())
        return msgspec.structs.replace(
            self.engine, **{name: value for name in own.__struct_fields__ if (value := getattr(own, name)) is not UNSET}
        )


def home_folder(flag: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that holds everything Freehold keeps: the flag, ``FREEHOLD_HOME``, or ``~/.freehold``."""
    return Path(flag or environ.get("FREEHOLD_HOME") or Path.home() / ".freehold").expanduser().absolute()


def load(home: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of ``home``.

    Raises:
        BadConfig: the file cannot be read, or a setting is unknown or has a wrong value.
    """
    named = environ.get("FREEHOLD_CONFIG")
    path = Path(named) if named else home / "freehold.toml"
    values = _read(path, must_exist=bool(named))
    for key, text in _variables(environ).items():
        _put(values, key, text)
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfig(
            f"A setting is wrong: {error}.",
            hint=f"Look at {path} and the FREEHOLD_* variables; docs/reference/settings.md lists them all.",
        ) from None


def names() -> dict[str, type]:
    """Every setting's dotted name and the table it belongs to ('' for those outside a table)."""
    found: dict[str, type] = {}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            found |= {f"{field.name}.{inner.name}": field.type for inner in _plain(field.type)}
    return found | {field.name: Settings for field in _plain(Settings) if field.name not in _TABLES}


def _plain(table: type) -> list[msgspec.structs.FieldInfo]:
    """The fields of a table that are no table of their own: those stand in the file alone."""
    return [
        field
        for field in msgspec.structs.fields(table)
        if field.default_factory is not dict and (table is Settings or not isinstance(field.default, Struct))
    ]


def _read(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise BadConfig(
                f"There is no {path}, which FREEHOLD_CONFIG names.", hint="Write it, or unset the variable."
            ) from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"{path} cannot be read: {error}.", hint="Mend the file, or move it away.") from None


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The dotted setting names that the environment sets."""
    return {
        name: environ[variable]
        for name in names()
        if (variable := "FREEHOLD_" + name.replace(".", "_").upper()) in environ
    }


def _put(values: dict[str, Any], dotted: str, text: str) -> None:
    table, _, key = dotted.rpartition(".")
    target = values.setdefault(table, {}) if table else values
    if isinstance(target, dict):
        target[key] = _list(text) if dotted in _LISTS else text


def _list(text: str) -> list[str]:
    """A list in a variable: words with commas between, or JSON."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        found = None
    return found if isinstance(found, list) else [word.strip() for word in text.split(",") if word.strip()]


_TABLES = {field.name for field in msgspec.structs.fields(Settings) if isinstance(field.default, Struct)}
_LISTS = {name for name, owner in names().items() if isinstance(getattr(owner(), name.rpartition(".")[2]), tuple)}
