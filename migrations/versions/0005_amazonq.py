"""Sign-in flows of Amazon Q, and who renews an account's tokens.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)
Secret = sa.Text()
NullableJSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    with op.batch_alter_table("accounts") as accounts:
        accounts.add_column(sa.Column("token_refresh_at", Time, nullable=True))
        accounts.add_column(sa.Column("lease_owner", sa.String(length=40), nullable=True))
        accounts.add_column(sa.Column("lease_until", Time, nullable=True))
        accounts.add_column(sa.Column("quota", NullableJSON, nullable=True))
    op.create_table(
        "sign_ins",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("flow_id", sa.String(length=40), nullable=False),
        sa.Column("user_id", Key, nullable=True),
        sa.Column("account_id", Key, nullable=True),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("message", sa.String(length=255), nullable=True),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("oidc", sa.JSON(), nullable=False),
        sa.Column("proxy", Secret, nullable=True),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_secret", Secret, nullable=False),
        sa.Column("device_code", Secret, nullable=False),
        sa.Column("user_code", sa.String(length=40), nullable=False),
        sa.Column("verification_uri", sa.String(length=500), nullable=False),
        sa.Column("verification_uri_complete", sa.String(length=500), nullable=False),
        sa.Column("interval", sa.Float(), nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("poll_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE", name="fk_sign_ins_user_id_users"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], ondelete="CASCADE", name="fk_sign_ins_account_id_accounts"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_sign_ins"),
        sa.UniqueConstraint("flow_id", name="uq_sign_ins_flow_id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("sign_ins")
    with op.batch_alter_table("accounts") as accounts:
        for name in ("quota", "lease_until", "lease_owner", "token_refresh_at"):
            accounts.drop_column(name)
