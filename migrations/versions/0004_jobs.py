"""What jobs did.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "job_runs",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("last_run", Time, nullable=True),
        sa.Column("last_outcome", sa.String(length=255), nullable=True),
        sa.Column("next_run", Time, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_job_runs"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=100), nullable=False),
        sa.Column("until", Time, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "probe_series",
        sa.Column("account_id", Key, nullable=False),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("since", Time, nullable=False),
        sa.Column("made", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], ondelete="CASCADE", name="fk_probe_series_account_id_accounts"
        ),
        sa.PrimaryKeyConstraint("account_id", name="pk_probe_series"),
    )


def downgrade() -> None:
    for table in ("probe_series", "leases", "job_runs"):
        op.drop_table(table)
