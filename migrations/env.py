"""Alembic's entry: runs migrations on the connection that `cli.schema` hands over."""

from alembic import context

import storage.tables.api_keys
import storage.tables.batches
import storage.tables.buckets
import storage.tables.collections
import storage.tables.counters
import storage.tables.documents
import storage.tables.items
import storage.tables.namespaces
import storage.tables.objects
import storage.tables.organizations
import storage.tables.outbox
import storage.tables.retrievers
import storage.tables.tasks
import storage.tables.tombstones
import storage.tables.vectors
import storage.tables.workers  # noqa: F401 - importing a table registers it
from storage.database import Row

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Row.metadata,
    render_as_batch=True,  # SQLite cannot alter tables in place
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
