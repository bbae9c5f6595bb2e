"""What was tried for a request, where more is to be told than its row says.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("request_logs", sa.Column("trace", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("request_logs", table_kwargs={"sqlite_autoincrement": True}) as table:
        table.drop_column("trace")
