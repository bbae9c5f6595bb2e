"""Statistics by hour, refused requests, and the indexes that the log is read by.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BY_TIME = ("key_id", "account_id", "model", "status", "outcome")
# The time of a row becomes microseconds since 1970: text took a third of the table and its indexes.
MICROS = {
    "sqlite": "CAST(strftime('%s', time) AS INTEGER) * 1000000 + CAST(substr(time || '.000000', 21, 6) AS INTEGER)",
    "postgresql": "(extract(epoch FROM time) * 1000000)::bigint",
    "mysql": "CAST(UNIX_TIMESTAMP(time) * 1000000 AS SIGNED)",
}


def upgrade() -> None:
    op.create_table(
        "usage_hours",
        sa.Column("dimension", sa.String(length=8), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        *(
            sa.Column(counter, sa.BigInteger(), nullable=False)
            for counter in ("requests", "errors", "input_tokens", "output_tokens")
        ),
        sa.PrimaryKeyConstraint("dimension", "hour", "name"),
    )
    op.create_table(
        "latency_hours",
        sa.Column("dimension", sa.String(length=8), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("dimension", "hour", "name", "bucket"),
    )
    op.create_table(
        "refusals",
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("client_ip", sa.String(length=45), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "client_ip", "status"),
    )
    _time_in_micros()
    for column in BY_TIME:
        op.create_index(f"ix_request_logs_{column}_time", "request_logs", [column, "time"])


def _time_in_micros() -> None:
    op.drop_index("ix_request_logs_time", "request_logs")
    op.add_column("request_logs", sa.Column("micros", sa.BigInteger(), nullable=True))
    op.execute(f"UPDATE request_logs SET micros = {MICROS[op.get_bind().dialect.name]}")
    with op.batch_alter_table("request_logs", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_column("time")
        table.alter_column("micros", new_column_name="time", existing_type=sa.BigInteger(), nullable=False)
    op.create_index("ix_request_logs_time", "request_logs", ["time"])


def downgrade() -> None:
    for column in BY_TIME:
        op.drop_index(f"ix_request_logs_{column}_time", "request_logs")
    for table in ("refusals", "latency_hours", "usage_hours"):
        op.drop_table(table)
    op.execute("DELETE FROM request_logs")  # an older version could not read their times
    op.drop_index("ix_request_logs_time", "request_logs")
    with op.batch_alter_table("request_logs", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_column("time")
        table.add_column(sa.Column("time", sa.DateTime(timezone=True), nullable=False))
    op.create_index("ix_request_logs_time", "request_logs", ["time"])
