"""Accounts that were deleted, kept for a while.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "deleted_accounts",
        sa.Column("id", Key, autoincrement=False, nullable=False),
        sa.Column("user_id", Key, nullable=True),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("deleted_at", Time, nullable=False),
        sa.Column("deleted_by", sa.String(length=80), nullable=False),
        sa.Column("kept", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], ondelete="SET NULL", name="fk_deleted_accounts_user_id_users"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deleted_accounts"),
    )
    op.create_index("ix_deleted_accounts_deleted_at", "deleted_accounts", ["deleted_at"])


def downgrade() -> None:
    op.drop_table("deleted_accounts")
