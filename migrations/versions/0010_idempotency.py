"""Answers of calls that are done once, kept for a day.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import LONGTEXT

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)
LongText = sa.Text().with_variant(LONGTEXT(), "mysql")


def upgrade() -> None:
    op.create_table(
        "done_calls",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reply", LongText, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_done_calls"),
        sa.UniqueConstraint("name", name="uq_done_calls_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_done_calls_created_at", "done_calls", ["created_at"])


def downgrade() -> None:
    op.drop_table("done_calls")
