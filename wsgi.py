"""`python wsgi.py` sets everything up and serves; gunicorn and flask import `app` from here."""

from gevent import monkey

monkey.patch_all()  # the same world for commands as under gunicorn, which has done this before

import atexit
import sys

from opus_api.config import ConfigError

if __name__ == "__main__":
    from opus_api import startup

    startup.main()
else:
    from opus_api import create_app

    try:
        app = create_app()
    except ConfigError as error:
        sys.exit(str(error))
    atexit.register(app.extensions["recorder"].stop)  # for `flask run`; gunicorn's workers end before
