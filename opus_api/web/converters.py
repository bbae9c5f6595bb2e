"""What the placeholders of routes match."""

from werkzeug.exceptions import NotFound
from werkzeug.routing import IntegerConverter

LARGEST_ID = 2**63 - 1  # that a column of a database holds


class RowId(IntegerConverter):
    """``<int:...>``, the id of a row."""

    def to_python(self, value: str) -> int:
        """Raises NotFound for what no column holds, so that no view hears of it. A refusal of the match would have
        other routes tried, which answer that they know other methods."""
        if len(value) > len(str(LARGEST_ID)) or int(value) > LARGEST_ID:
            raise NotFound
        return int(value)
