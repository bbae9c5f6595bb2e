"""Guards, statistics and audit.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)
NullableJSON = sa.JSON(none_as_null=True)
NEVER_AGAIN = {"sqlite_autoincrement": True}


def upgrade() -> None:
    op.create_table(
        "ip_rules",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("cidr", sa.String(length=43), nullable=False),
        sa.Column("reason", sa.String(length=255), nullable=False),
        sa.Column("expires_at", Time, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ip_rules"),
        sa.UniqueConstraint("cidr", name="uq_ip_rules_cidr"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "changes",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("who", sa.String(length=80), nullable=False),
        sa.Column("what", sa.String(length=120), nullable=False),
        sa.Column("before", NullableJSON, nullable=True),
        sa.Column("after", NullableJSON, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
        **NEVER_AGAIN,
    )
    # Not in a batch, which would copy the table and lose that its ids are never given out again.
    op.add_column("api_keys", sa.Column("month", sa.String(length=7), nullable=True))
    op.add_column("api_keys", sa.Column("month_tokens", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("api_keys", "month_tokens")
    op.drop_column("api_keys", "month")
    op.drop_table("changes")
    op.drop_table("ip_rules")
