"""Opus API: a self-hosted, Claude-compatible gateway."""

from flask import Flask

from opus_api import config, crypto, database, logs
from opus_api.config import Settings


def create_app(settings: Settings | None = None, commands: bool = True) -> Flask:
    """The application, from its parts. Raises ConfigError with one sentence for the operator.

    ``commands``: with those of `flask` and the migrations, which a worker needs not.
    """
    settings = config.load() if settings is None else settings
    app = Flask(__name__, root_path=str(config.ROOT))
    app.extensions["settings"] = settings
    logs.configure(settings)
    _keyring(app, settings)
    _database(app, settings)
    _installation(app, settings)
    _services(app, settings)
    _sessions(app, settings)
    _blueprints(app, settings)
    _errors(app)
    if commands:
        _commands(app)
    return app


def _keyring(app: Flask, settings: Settings) -> None:
    app.extensions["keyring"] = crypto.keyring(settings)
    crypto.use(app.extensions["keyring"])


def _database(app: Flask, settings: Settings) -> None:
    from opus_api.extensions import db

    database.make_psycopg2_cooperative()
    database.make_folder(settings)
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database_url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = database.engine_options(settings.database_url)
    db.init_app(app)
    with app.app_context():
        database.prepare(db.engine)
        database.check(db.engine)


def _installation(app: Flask, settings: Settings) -> None:
    """What is derived from the installation's secret. Before the migrations there is none, and nobody can sign in."""
    from opus_api.extensions import db
    from opus_api.services.settings import installation

    with app.app_context():
        if not database.has_tables(db.engine):
            return
        owner = installation(db.session())
    app.extensions["installation"] = owner
    app.extensions["jwt_key"] = owner.jwt_key(settings.jwt_secret)
    app.secret_key = owner.session_key(settings.secret_key)


def _services(app: Flask, settings: Settings) -> None:
    from opus_api.extensions import db
    from opus_api.gateway.gateway import Gateway
    from opus_api.services import exchange_log
    from opus_api.services.accounts import Accounts
    from opus_api.services.contacts import Contacts
    from opus_api.services.exchange_log import ExchangeLog
    from opus_api.services.login_throttle import SHOWN_KEY, LoginThrottle
    from opus_api.services.oidc import Tokens
    from opus_api.services.request_log import Recorder
    from opus_api.services.sign_ins import SignIns
    from opus_api.services.snapshot import Snapshots
    from opus_api.state import engine as engine_of_state
    from opus_api.transport import Transport

    with app.app_context():
        engine = db.engine
    transport, snapshots = Transport(settings), Snapshots(engine)
    recorder = Recorder(engine, settings.data_dir / "spool")
    state, tokens = engine_of_state(settings.redis_url), Tokens(engine, transport)
    accounts = Accounts(settings, transport, engine, tokens)
    exchanges = ExchangeLog(exchange_log.root(settings))
    app.extensions["sign_ins"] = SignIns(settings, transport, engine, accounts)
    app.extensions["transport"] = transport
    app.extensions["state"] = state
    state.on_gap = snapshots.renew  # what keys have used is told anew
    app.extensions["snapshots"] = snapshots
    app.extensions["recorder"] = recorder
    app.extensions["accounts"] = accounts
    gateway = Gateway(settings, snapshots, recorder, transport, accounts.learn, state, tokens.renew, exchanges)
    snapshots.on_look = gateway.catalog  # what runs learns of it, too, when no request comes any more
    app.extensions["gateway"] = gateway
    app.extensions["contacts"] = Contacts(state)
    app.extensions["login_throttle"] = LoginThrottle(state)
    app.extensions["key_throttle"] = LoginThrottle(state, attempt=SHOWN_KEY)


def _sessions(app: Flask, settings: Settings) -> None:
    """Sign-in and CSRF for those routes that ask for them. Their extensions' init_app would hook into every request,
    so /v1 would pay for them; here guards call them instead."""
    from flask_wtf.csrf import generate_csrf

    from opus_api.extensions import login_manager
    from opus_api.web.client import TrustedProxies
    from opus_api.web.sessions import LIFETIME, ConsoleSessions

    app.session_interface = ConsoleSessions()
    app.config.update(PERMANENT_SESSION_LIFETIME=LIFETIME, SESSION_REFRESH_EACH_REQUEST=False, WTF_CSRF_TIME_LIMIT=None)
    app.login_manager = login_manager  # type: ignore[attr-defined]
    app.jinja_env.globals["csrf_token"] = generate_csrf
    if settings.trusted_proxies:
        app.wsgi_app = TrustedProxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]


def _blueprints(app: Flask, settings: Settings) -> None:
    from opus_api.web import (
        auth,
        console,
        cookies,
        cors,
        guards,
        headers,
        health,
        keys,
        logs,
        management,
        messages,
        openapi,
    )
    from opus_api.web.addresses import Address, RowId

    app.url_rule_class = Address
    app.url_map.converters["int"] = RowId
    for module in (health, messages, auth, cookies, keys, management, logs, openapi):
        app.register_blueprint(module.bp)
    console.register(app)
    app.before_request(guards.keep_out)
    headers.register(app)
    cors.register(app, settings)


def _errors(app: Flask) -> None:
    from opus_api.web import errors

    errors.register(app)


def _commands(app: Flask) -> None:
    from flask_migrate import Migrate

    from opus_api import cli
    from opus_api.extensions import db

    Migrate(app, db, directory=str(config.ROOT / "migrations"), render_as_batch=True)
    cli.register(app)
