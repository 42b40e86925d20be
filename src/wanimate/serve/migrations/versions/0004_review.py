"""review"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.String(length=64)


def upgrade() -> None:
    op.create_table(
        "shots",
        sa.Column("id", _ID, nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("root", _ID, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("touched", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("head", sa.String(length=64), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("root"),
    )
    op.create_index("shots_of_owner", "shots", ["owner", "changed"], unique=False)
    op.create_table(
        "shot_versions",
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("shot_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("ix_shot_versions_shot_id", "shot_versions", ["shot_id"], unique=False)
    op.create_table(
        "shot_comments",
        sa.Column("id", _ID, nullable=False),
        sa.Column("shot_id", _ID, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("parent", _ID, nullable=True),
        sa.Column("author", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("identity", sa.String(length=100), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("said", sa.JSON(), nullable=False),
        sa.Column("resolved", sa.BigInteger(), nullable=True),
        sa.Column("resolved_by", sa.String(length=100), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_shot_comments_shot_id", "shot_comments", ["shot_id"], unique=False)
    op.create_table(
        "shot_decisions",
        sa.Column("shot_id", _ID, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job_id", _ID, nullable=False),
        sa.Column("output", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("shot_id", "seq"),
    )
    op.create_index("ix_shot_decisions_output", "shot_decisions", ["output"], unique=False)
    op.create_table(
        "guest_links",
        sa.Column("id", _ID, nullable=False),
        sa.Column("shot_id", _ID, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("rights", sa.JSON(), nullable=False),
        sa.Column("made_by", sa.String(length=100), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index("ix_guest_links_shot_id", "guest_links", ["shot_id"], unique=False)
    op.create_index("ix_guest_links_expires", "guest_links", ["expires"], unique=False)
    op.create_table(
        "guest_sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("link_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_guest_sessions_link_id", "guest_sessions", ["link_id"], unique=False)
    op.create_index("ix_guest_sessions_expires", "guest_sessions", ["expires"], unique=False)


def downgrade() -> None:
    for name in ("guest_sessions", "guest_links", "shot_decisions", "shot_comments", "shot_versions", "shots"):
        op.drop_table(name)
