"""What every answer tells a browser, whatever it is: never to guess its kind, to run or frame it, to say where one was.

Pages have headers of their own (``console.page_headers``); these fill in what a route has not said.
"""

from flask import Flask, request
from werkzeug.wrappers import Response

YEAR = 365 * 86_400  # seconds
NOTHING = "default-src 'none'; frame-ancestors 'none'"


def register(app: Flask) -> None:
    app.after_request(complete)


def complete(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", NOTHING)
    if request.is_secure:
        headers.setdefault("Strict-Transport-Security", f"max-age={YEAR}")
    return response
