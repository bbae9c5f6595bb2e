"""The command line as an operator meets it, in this process."""

import json
from typing import Any

from click.testing import Result
from flask.testing import FlaskCliRunner

from opus_api.extensions import db


class Commands:
    def __init__(self, runner: FlaskCliRunner):
        self._runner = runner

    def run(self, *words: str, stdin: str | None = None) -> Result:
        result = self._runner.invoke(args=list(words), input=stdin)
        db.session.expire_all()
        return result

    def text(self, *words: str, stdin: str | None = None) -> str:
        """What a person reads; the command must succeed."""
        result = self.run(*words, stdin=stdin)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.removesuffix("\n")

    def json(self, *words: str, stdin: str | None = None) -> Any:
        return json.loads(self.text(*words, "--json", stdin=stdin))

    def error(self, *words: str, stdin: str | None = None) -> str:
        """The one line of a command that fails."""
        result = self.run(*words, stdin=stdin)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1
        return result.stderr.rstrip("\n")
