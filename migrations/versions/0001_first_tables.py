"""The first tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out here rather than taken from models.py, which goes on changing.
Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)
Secret = sa.Text()
NullableJSON = sa.JSON(none_as_null=True)

# Ids name accounts and keys in log rows that outlive them, so SQLite must not give an id out again.
NEVER_AGAIN = {"sqlite_autoincrement": True}


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("username", sa.String(length=80), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("must_change_password", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("user_id", Key, nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("last_seen", Time, nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("confirmed_at", Time, nullable=True),
        sa.Column("client_ip", sa.String(length=45), nullable=True),
        sa.Column("user_agent", sa.String(length=255), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE", name="fk_user_sessions_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_user_sessions"),
        sa.UniqueConstraint("token_hash", name="uq_user_sessions_token_hash"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "accounts",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("user_id", Key, nullable=True),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("provider", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("api_key", Secret, nullable=True),
        sa.Column("session_key", Secret, nullable=True),
        sa.Column("base_url", sa.String(length=500), nullable=True),
        sa.Column("proxy", Secret, nullable=True),
        sa.Column("models", NullableJSON, nullable=True),
        sa.Column("listed_models", NullableJSON, nullable=True),
        sa.Column("listed_at", Time, nullable=True),
        sa.Column("model_map", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("learned_options", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_concurrency", sa.Integer(), nullable=False),
        sa.Column("is_valid", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("state_reason", sa.String(length=255), nullable=True),
        sa.Column("state_until", Time, nullable=True),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("error_count", sa.Integer(), nullable=False),
        sa.Column("usage_count", sa.BigInteger(), nullable=False),
        sa.Column("last_used", Time, nullable=True),
        sa.Column("last_validated", Time, nullable=True),
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.Column("client_secret", Secret, nullable=True),
        sa.Column("refresh_token", Secret, nullable=True),
        sa.Column("access_token", Secret, nullable=True),
        sa.Column("token_expires_at", Time, nullable=True),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("oidc", NullableJSON, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE", name="fk_accounts_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("provider", "name", name="uq_accounts_provider_name"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "api_keys",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("hint", sa.String(length=4), nullable=False),
        sa.Column("expires_at", Time, nullable=True),
        sa.Column("revoked_at", Time, nullable=True),
        sa.Column("last_used", Time, nullable=True),
        sa.Column("override", sa.Boolean(), nullable=False),
        sa.Column("models", NullableJSON, nullable=True),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "model_rules",
        sa.Column("id", Key, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("pattern", sa.String(length=200), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_rules"),
        sa.UniqueConstraint("pattern", name="uq_model_rules_pattern"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "request_logs",
        sa.Column("id", Key, nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("time", Time, nullable=False),
        sa.Column("key_id", sa.BigInteger(), nullable=True),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("provider", sa.String(length=20), nullable=True),
        sa.Column("dialect", sa.String(length=12), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("upstream_model", sa.String(length=200), nullable=True),
        sa.Column("upstream_request_id", sa.String(length=100), nullable=True),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("error_type", sa.String(length=40), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_read_input_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_creation_input_tokens", sa.Integer(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("first_token_ms", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("client_ip", sa.String(length=45), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_request_logs"),
        sa.UniqueConstraint("request_id", name="uq_request_logs_request_id"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "settings",
        sa.Column("key", sa.String(length=60), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )
    op.create_index("ix_api_keys_name", "api_keys", ["name"])
    op.create_index("ix_request_logs_time", "request_logs", ["time"])
    op.create_index("ix_accounts_user_id", "accounts", ["user_id"])
    op.create_index("ix_user_sessions_expires_at", "user_sessions", ["expires_at"])
    op.create_index("ix_user_sessions_user_id", "user_sessions", ["user_id"])


def downgrade() -> None:
    for table in ("settings", "request_logs", "model_rules", "api_keys", "accounts", "user_sessions", "users"):
        op.drop_table(table)
