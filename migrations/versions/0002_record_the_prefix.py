"""Record on collections what stands before their documents when they are embedded.

Safe while the old code runs: it does not know the column, which may be empty. Collections made before keep it empty.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Move the schema forward."""
    op.add_column("collections", sa.Column("document_prefix", sa.Text(), nullable=True))
