"""What the placeholders of routes match."""

from typing import Any

from werkzeug.routing import IntegerConverter, Map

LARGEST_ID = 2**63 - 1  # that a column of a database holds


class RowId(IntegerConverter):
    """``<int:...>``, the id of a row. A larger number names none, so no view hears of it: the path is not found."""

    def __init__(self, map: Map, **named: Any):
        super().__init__(map, max=LARGEST_ID, **named)
