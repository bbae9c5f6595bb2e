"""The console's cookie: signed, short, and absent wherever programs call."""

from datetime import timedelta

from flask import Flask, Request, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

SESSION_COOKIES = ("__Host-opus", "opus")
LIFETIME = timedelta(days=7)  # of the cookie; the row in user_sessions decides

# Programs call here, with keys of their own; opening a session would only cost them time.
WITHOUT_SESSION = ("/v1/", "/chat/", "/models", "/messages", "/health", "/static/")


class ConsoleSessions(SecureCookieSessionInterface):
    """``__Host-opus`` over https, an ordinary ``opus`` over plain http, where browsers would refuse the other."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """None where there is no session: Flask then hands out one that cannot be written."""
        if request.path.startswith(WITHOUT_SESSION):
            return None
        return super().open_session(app, request)

    def get_cookie_name(self, app: Flask) -> str:
        over_https, over_http = SESSION_COOKIES
        return over_https if request.is_secure else over_http

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def get_cookie_httponly(self, app: Flask) -> bool:
        return True

    def get_cookie_samesite(self, app: Flask) -> str:
        return "Lax"

    def get_cookie_path(self, app: Flask) -> str:
        return "/"

    def get_cookie_domain(self, app: Flask) -> None:
        return None
