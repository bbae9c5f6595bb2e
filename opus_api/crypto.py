"""What protects secrets: the keyring that encrypts credentials, the hashes under which keys and tokens are stored."""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from opus_api.config import ConfigError, Settings
from opus_api.wire import ids


class Keyring:
    """Encrypts stored credentials. One per process, made from the settings."""

    def __init__(self, keys: list[bytes]):
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, text: str) -> str:
        return self._fernet.encrypt(text.encode()).decode()

    def decrypt(self, token: str) -> str:
        """Raises ConfigError when no key fits: the operator started with a wrong key."""
        try:
            return self._fernet.decrypt(token.encode()).decode()
        except InvalidToken:
            raise ConfigError(
                "The encryption key does not fit this database; start with the ENCRYPTION_KEYS, SECRET_KEY, JWT_SECRET "
                "or secret.key that it was made with."
            ) from None

    def rotate(self, token: str) -> str:
        """The same text under the primary key. Raises ConfigError when no key fits."""
        return self.encrypt(self.decrypt(token))


def derive(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"opus-api {purpose}".encode()).derive(secret)


def keyring(settings: Settings) -> Keyring:
    """ENCRYPTION_KEYS, else from SECRET_KEY or JWT_SECRET, else from DATA_DIR/secret.key. Raises ConfigError.

    With ENCRYPTION_KEYS, the key that was used before them is still read with, so that one can move to them.
    """
    if settings.encryption_keys:
        secret = (settings.secret_key or settings.jwt_secret).encode() or _present_secret(settings)
        former = [base64.urlsafe_b64encode(derive(secret, "credentials"))] if secret else []
        try:
            return Keyring([*(key.encode() for key in settings.encryption_keys), *former])
        except ValueError:
            raise ConfigError(
                "ENCRYPTION_KEYS must hold Fernet keys: 32 bytes in url-safe base64, separated by commas."
            ) from None
    secret = (settings.secret_key or settings.jwt_secret).encode() or _secret_file(settings)
    return Keyring([base64.urlsafe_b64encode(derive(secret, "credentials"))])


def _secret_file(settings: Settings) -> bytes:
    path = settings.data_dir / "secret.key"
    try:
        if path.exists():
            return _read_secret(path)
        if not settings.on_sqlite:
            raise ConfigError(
                "With an external database the encryption key must outlive this machine; set this in its environment: "
                f"ENCRYPTION_KEYS={Fernet.generate_key().decode()}"
            )
        return _make_secret_file(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be used ({error.strerror}); make DATA_DIR writable for this user.") from None


def _present_secret(settings: Settings) -> bytes:
    path = settings.data_dir / "secret.key"
    return _read_secret(path) if path.exists() else b""


def _read_secret(path: Path) -> bytes:
    secret = path.read_bytes().strip()
    if len(secret) < 32:
        raise ConfigError(f"{path} is damaged; put back the one that this installation was made with, or remove it.")
    return secret


def _make_secret_file(path: Path) -> bytes:
    """Whole or not at all: a disk that fills up must not leave a key that everybody can guess."""
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_urlsafe(48).encode()
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret + b"\n")
        os.link(part, path)
    except FileExistsError:  # another process was faster
        return _read_secret(path)
    finally:
        part.unlink(missing_ok=True)
    return secret


_current: Keyring | None = None


def use(ring: Keyring) -> None:
    """Make this the keyring of the process; create_app calls it before the first query."""
    global _current  # noqa: PLW0603 - column types have no other way to reach it
    _current = ring


def current() -> Keyring:
    if _current is None:
        raise RuntimeError("crypto.use() was not called")
    return _current


API_KEY_PREFIX = "sk-opus-"


def new_api_key() -> str:
    return API_KEY_PREFIX + ids.random_base62(43)


def keyed_hash(pepper: bytes, text: str) -> str:
    """Under which an API key is stored (HMAC-SHA256, hex)."""
    return hmac.digest(pepper, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def token_hash(token: str) -> str:
    """Under which a session token is stored. The token is 256 random bits, so a plain hash suffices."""
    return hashlib.sha256(token.encode()).hexdigest()
