"""The model map: names and globs that clients say, and what they stand for."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from opus_api.extensions import db
from opus_api.models import ModelRule
from opus_api.services import values
from opus_api.wire.errors import NotFound, Phrase


def every() -> Sequence[ModelRule]:
    """In the order in which they were made."""
    return db.session.scalars(select(ModelRule).order_by(ModelRule.id)).all()


def put(pattern: str, target: str) -> ModelRule:
    """Make the rule, or give it another target. Raises FieldError."""
    pattern = values.text("pattern", pattern, limit=200, required=True)
    target = values.text("target", target, limit=200, required=True)
    rule = _find(pattern)
    if rule is None:
        rule = ModelRule(pattern=pattern)
        db.session.add(rule)
    rule.target = target
    db.session.commit()
    return rule


def remove(pattern: str) -> None:
    """Raises NotFound."""
    rule = _find(pattern)
    if rule is None:
        raise NotFound(Phrase("There is no rule for %(pattern)r.", pattern=pattern))
    db.session.delete(rule)
    db.session.commit()


def as_json(rule: ModelRule) -> dict[str, Any]:
    return {"pattern": rule.pattern, "target": rule.target}


def _find(pattern: str) -> ModelRule | None:
    return db.session.scalar(select(ModelRule).where(ModelRule.pattern == pattern))
