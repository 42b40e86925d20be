"""Alembic's side of `database.Database.migrate`: the connection is handed in."""

from alembic import context

from wanimate.serve.tables import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
