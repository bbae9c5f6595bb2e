"""`python wsgi.py` sets everything up and serves; gunicorn and flask import `app` from here."""

import gc

gc.disable()  # while everything is loaded: nothing of it is garbage, and looking would take a fifth of the time

from gevent import monkey

monkey.patch_all()  # the same world for commands as under gunicorn, which has done this before

import atexit
import os
import sys

from opus_api.config import ConfigError

if __name__ == "__main__":
    from opus_api import startup

    startup.main()
else:
    from opus_api import create_app

    is_command = "FLASK_RUN_FROM_CLI" in os.environ  # which `flask` sets
    try:
        app = create_app(commands=is_command)
    except ConfigError as error:
        sys.exit(str(error))
    atexit.register(app.extensions["recorder"].stop)  # for `flask run`; gunicorn's workers end before
    if not is_command:  # which takes all of it apart at its end, in order
        gc.freeze()  # still nothing of it is garbage: the next look would begin with it
    gc.enable()
