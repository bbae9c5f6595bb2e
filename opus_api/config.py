"""Every setting once: typed, checked, with its help text. The only module that reads the environment.

Read in this order, the first that has a value wins: environment, ``.env``, ``config.yaml``, default.
"""

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml
from dotenv import dotenv_values

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ROOT = Path(__file__).resolve().parent.parent

# Presets of TRUSTED_PROXIES: who forwards to us there.
PROXY_PRESETS = {"hf": ("10.0.0.0/8", "172.16.0.0/12"), "docker": ("172.16.0.0/12",)}


# Their values never stand in a repr.
SECRET = {
    "DATABASE_URL", "REDIS_URL", "JWT_SECRET", "SECRET_KEY", "ENCRYPTION_KEYS", "DEFAULT_ADMIN_PASSWORD", "HTTP_PROXY",
    "HTTPS_PROXY", "STORAGE_URL",
}  # fmt: skip


class ConfigError(Exception):
    """An operator's mistake; the message is one sentence that says what to do."""


def _text(name: str, value: str) -> str:
    return value.strip()


def _secret(name: str, value: str) -> str:
    return value


def _whole(low: int, high: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ConfigError(f"{name} must be a whole number between {low} and {high}, not {value!r}.")
        return number

    return parse


def _seconds(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 86_400:
        raise ConfigError(f"{name} must be a number of seconds above 0, not {value!r}.")
    return number


def _switch(name: str, value: str) -> bool:
    word = value.strip().lower()
    if word not in _SWITCH:
        raise ConfigError(f"{name} must be true or false, not {value!r}.")
    return _SWITCH[word]


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _choice(*allowed: str) -> Callable[[str, str], str]:
    def parse(name: str, value: str) -> str:
        word = value.strip().lower()
        if word not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
        return word

    return parse


def _words(name: str, value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _networks(name: str, value: str) -> tuple[Network, ...]:
    words = [part for word in _words(name, value) for part in PROXY_PRESETS.get(word.lower(), (word,))]
    try:
        return tuple(ipaddress.ip_network(word, strict=False) for word in words)
    except ValueError:
        raise ConfigError(f"{name} must be a list of networks such as 127.0.0.0/8, not {value!r}.") from None


def _database_url(name: str, value: str) -> str:
    """SQLAlchemy 2.1 reads ``postgresql://`` as psycopg 3 and refuses ``postgres://``: name our driver."""
    for prefix in ("postgres://", "postgresql://"):
        if value.startswith(prefix):
            value = "postgresql+psycopg2://" + value.removeprefix(prefix)
    try:
        _ = urlsplit(value).port
    except ValueError:
        raise ConfigError(
            f"{name} has an invalid port; it must look like postgresql://user:password@host:5432/name."
        ) from None
    if not value.startswith(("sqlite:///", "postgresql+psycopg2:", "mysql+pymysql:")) or value == "sqlite:///":
        raise ConfigError(
            f"{name} must begin with postgresql://, sqlite:/// or mysql+pymysql://; "
            "leave it away to use SQLite under DATA_DIR."
        )
    return value


def _setting(env: str, default: Any, help: str, parse: Callable[[str, str], Any] = _text, shown: str = "") -> Any:
    metadata = {"env": env, "help": help, "parse": parse, "shown": shown}
    return field(default=default, metadata=metadata, repr=env not in SECRET)


@dataclass(frozen=True)
class Settings:
    """The settings of one process. ``shown`` in a field's metadata is its default as the README prints it."""

    host: str = _setting("HOST", "0.0.0.0", "Address to listen on.")  # noqa: S104 - a gateway is reached from outside
    port: int = _setting("PORT", 7860, "Port to listen on.", _whole(1, 65_535))
    data_dir: Path = _setting(
        "DATA_DIR",
        ROOT / "data",
        "Folder for the database and the secret key.",
        lambda _, v: Path(v).expanduser(),
        "data",
    )
    database_url: str = _setting(
        "DATABASE_URL", "", "Database; PostgreSQL 14 or later in production.", _database_url, "SQLite under DATA_DIR"
    )
    redis_url: str = _setting("REDIS_URL", "", "Redis, needed with more than one worker.")
    web_concurrency: int = _setting(
        "WEB_CONCURRENCY", 1, "Number of workers; more than 1 needs REDIS_URL.", _whole(1, 64)
    )
    jwt_secret: str = _setting("JWT_SECRET", "", "Signs API tokens; 32 bytes or more.", _secret, "made on first start")
    secret_key: str = _setting("SECRET_KEY", "", "Signs console sessions.", _secret, "made on first start")
    encryption_keys: tuple[str, ...] = _setting(
        "ENCRYPTION_KEYS", (), "Fernet keys for stored credentials, first is primary.", _words, "derived"
    )
    default_admin_username: str = _setting("DEFAULT_ADMIN_USERNAME", "admin", "Name of the first administrator.")
    default_admin_password: str = _setting(
        "DEFAULT_ADMIN_PASSWORD", "", "Password of the first administrator.", _secret, "random, printed once"
    )
    anonymous_access: str = _setting(
        "ANONYMOUS_ACCESS",
        "off",
        "Who may call /v1 without a key: off, loopback or on.",
        _choice("off", "loopback", "on"),
    )
    rotation_strategy: str = _setting(
        "ROTATION_STRATEGY",
        "priority",
        "Which account is next: priority, round_robin or least_used.",
        _choice("priority", "round_robin", "least_used"),
    )
    cookie_max_error_count: int = _setting(
        "COOKIE_MAX_ERROR_COUNT", 3, "Failures in a row before an account is taken out.", _whole(1, 1000)
    )
    debug_mode: bool = _setting(
        "DEBUG_MODE",
        False,
        "Log more, and keep exchanges as debugLog does; never shows tracebacks to clients.",
        _switch,
        "false",
    )
    log_dir: str = _setting(
        "LOG_DIR", "", "Folder for log files, and for exchanges (default DATA_DIR/logs).", _text, "standard error only"
    )
    log_level: str = _setting(
        "LOG_LEVEL", "info", "debug, info, warning or error.", _choice("debug", "info", "warning", "error")
    )
    upstream_connect_timeout: float = _setting(
        "UPSTREAM_CONNECT_TIMEOUT", 5.0, "Seconds to connect to an upstream.", _seconds, "5"
    )
    upstream_first_event_timeout: float = _setting(
        "UPSTREAM_FIRST_EVENT_TIMEOUT", 300.0, "Seconds to an upstream's first body byte.", _seconds, "300"
    )
    upstream_idle_timeout: float = _setting(
        "UPSTREAM_IDLE_TIMEOUT", 120.0, "Seconds an upstream may be silent within an answer.", _seconds, "120"
    )
    upstream_total_timeout: float = _setting(
        "UPSTREAM_TOTAL_TIMEOUT",
        900.0,
        "Seconds until content, or for a whole answer without streaming.",
        _seconds,
        "900",
    )
    max_attempts: int = _setting("MAX_ATTEMPTS", 3, "Tries of one request whose work may have begun.", _whole(1, 10))
    ping_interval: float = _setting("PING_INTERVAL", 15.0, "Seconds of silence before a ping is sent.", _seconds, "15")
    allow_private_upstreams: tuple[Network, ...] = _setting(
        "ALLOW_PRIVATE_UPSTREAMS", (), "Private networks an upstream may be in, e.g. 127.0.0.0/8.", _networks, "none"
    )
    upstream_ca_bundle: str = _setting("UPSTREAM_CA_BUNDLE", "", "File with certificates to trust.", _text, "certifi's")
    trusted_proxies: tuple[Network, ...] = _setting(
        "TRUSTED_PROXIES", (), "Proxies whose X-Forwarded-* count; presets hf, docker.", _networks, "none"
    )
    cors_origins: tuple[str, ...] = _setting(
        "CORS_ORIGINS", (), "Origins that may call /v1 from a browser.", _words, "none"
    )
    frame_ancestors: tuple[str, ...] = _setting(
        "FRAME_ANCESTORS", (), "Sites that may frame the console.", _words, "none"
    )
    graceful_timeout: int = _setting(
        "GRACEFUL_TIMEOUT", 120, "Seconds running answers get when the service stops; 9 in the image.", _whole(1, 3600)
    )
    http_proxy: str = _setting("HTTP_PROXY", "", "Proxy for http upstreams.", _secret)
    https_proxy: str = _setting("HTTPS_PROXY", "", "Proxy for https upstreams.", _secret)
    no_proxy: tuple[str, ...] = _setting("NO_PROXY", (), "Hosts reached without a proxy.", _words, "none")
    no_browser: bool = _setting("NO_BROWSER", False, "Desktop launcher: do not open the browser.", _switch, "false")
    storage_url: str = _setting("STORAGE_URL", "", "Where files are kept.", _text, "DATA_DIR")
    # Not environment variables of ours: config.yaml's `test: true`, and the platform's mark of a Hugging Face Space.
    practice_only: bool = False
    space_id: str = ""
    given: frozenset[str] = frozenset()  # names of the settings above that somebody has set

    @property
    def on_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")

    def proxy_for(self, scheme: str) -> str:
        return self.https_proxy if scheme == "https" else self.http_proxy


def documented() -> list[tuple[str, str, str]]:
    """Rows (name, default as shown, help) of the README's configuration table."""
    rows = []
    for item in fields(Settings):
        if item.metadata:
            default = item.metadata["shown"] or (str(item.default) if item.default != "" else "none")
            rows.append((item.metadata["env"], default, item.metadata["help"]))
    return rows


def load(root: Path = ROOT, environ: Mapping[str, str] | None = None) -> Settings:
    """Read all sources. Raises ConfigError with one sentence."""
    environ = os.environ if environ is None else environ
    from_file = _config_yaml(root / "config.yaml")
    dotenv = (
        {k: v for k, v in dotenv_values(root / ".env").items() if v is not None} if (root / ".env").exists() else {}
    )
    # Proxies are commonly set in lower case, too (curl reads only that form of http_proxy).
    lower = {name.upper(): environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in environ}
    merged = {**from_file, **dotenv, **lower, **environ}
    values: dict[str, Any] = {"practice_only": from_file.get("test") == "true", "space_id": merged.get("SPACE_ID", "")}
    given: set[str] = set()
    for item in fields(Settings):
        text = merged.get(item.metadata["env"], "") if item.metadata else ""
        if text.strip():
            values[item.name] = item.metadata["parse"](item.metadata["env"], text)
            given.add(item.metadata["env"])
    return _completed(Settings(**values, given=frozenset(given)), from_file)


def _completed(settings: Settings, from_file: Mapping[str, str]) -> Settings:
    """Defaults that depend on other settings, and the checks between them."""
    data_dir = settings.data_dir
    if settings.space_id and not os.access(data_dir if data_dir.exists() else data_dir.parent, os.W_OK):
        data_dir = Path.home() / "data"  # a Space without paid storage has no writable /data
    database_url = (
        settings.database_url or f"sqlite:///{from_file.get('sqlite_path') or data_dir.absolute() / 'opus.db'}"
    )
    proxies = settings.trusted_proxies or (_networks("TRUSTED_PROXIES", "hf") if settings.space_id else ())
    if settings.jwt_secret and len(settings.jwt_secret.encode()) < 32:
        raise ConfigError("JWT_SECRET must be 32 bytes or longer; leave it away and one is made for you.")
    if settings.upstream_ca_bundle and not Path(settings.upstream_ca_bundle).is_file():
        raise ConfigError("UPSTREAM_CA_BUNDLE must name a file with certificates; there is none at that path.")
    if settings.web_concurrency > 1 and not settings.redis_url:
        raise ConfigError("WEB_CONCURRENCY above 1 needs REDIS_URL, because workers must share their state.")
    changes = {"data_dir": data_dir, "database_url": database_url, "trusted_proxies": proxies}
    return Settings(**{**{f.name: getattr(settings, f.name) for f in fields(Settings)}, **changes})


def _config_yaml(path: Path) -> dict[str, str]:
    """The keys of older documents, as environment names: database.*, server.*, debug, test."""
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} cannot be read: {str(error).splitlines()[0]}.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} must hold a mapping such as 'server: {{port: 7860}}'.")
    server, database = content.get("server") or {}, content.get("database") or {}
    if not isinstance(server, dict) or not isinstance(database, dict):
        raise ConfigError(f"{path.name}: 'server' and 'database' must be mappings.")
    found = {"HOST": server.get("host"), "PORT": server.get("port"), "DEBUG_MODE": content.get("debug")}
    found |= {"test": content.get("test")} | _yaml_database(path, database)
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in found.items()
        if value is not None
    }


def _yaml_database(path: Path, database: Mapping[str, Any]) -> dict[str, Any]:
    kind = database.get("type", "sqlite")
    if kind == "sqlite":
        sqlite = (database.get("sqlite") or {}).get("path")
        return {"sqlite_path": str((path.parent / str(sqlite)).absolute()) if sqlite else None}
    if kind not in {"mysql", "postgresql"}:
        raise ConfigError(f"{path.name}: database.type must be sqlite, mysql or postgresql, not {kind!r}.")
    server = database.get(kind) or {}
    if isinstance(server, str):
        return {"DATABASE_URL": server}
    scheme, port = ("mysql+pymysql", 3306) if kind == "mysql" else ("postgresql", 5432)
    login = f"{quote(str(server.get('user', '')), safe='')}:{quote(str(server.get('password', '')), safe='')}"
    where = f"{server.get('host', 'localhost')}:{server.get('port', port)}/{server.get('database', 'opus_api')}"
    charset = f"?charset={server['charset']}" if kind == "mysql" and server.get("charset") else ""
    return {"DATABASE_URL": f"{scheme}://{login}@{where}{charset}"}
