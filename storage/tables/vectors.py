"""Vectors: every embedding ever paid for, by what was asked of the model.

This is the cache that makes a resubmitted bucket, a rebuilt index and another width cost no model call.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy import BigInteger, LargeBinary, String, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from storage.database import Row, now_ms
from storage.ports import Vector


class VectorRow(Row):
    """One embedding at the model's full width: little-endian float32, unit length."""

    __tablename__ = "vectors"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    organization_id: Mapped[str] = mapped_column(String(40))
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[int] = mapped_column(BigInteger, default=now_ms())


def find(session: Session, keys: Sequence[str]) -> dict[str, Vector]:
    """Return the vectors that are known among these keys."""
    found: dict[str, Vector] = {}
    for start in range(0, len(keys), 1_000):
        statement = select(VectorRow.key, VectorRow.data).where(VectorRow.key.in_(keys[start : start + 1_000]))
        found.update((key, np.frombuffer(data, dtype="<f4")) for key, data in session.execute(statement))
    return found


def keep(session: Session, organization_id: str, vectors: Mapping[str, Vector]) -> None:
    """Add vectors; a key that is known keeps what it has, so that results stay bit-equal."""
    if not vectors:
        return
    rows = [
        {"key": key, "organization_id": organization_id, "data": np.ascontiguousarray(vector, dtype="<f4").tobytes()}
        for key, vector in sorted(vectors.items())  # one order for all writers: no deadlocks
    ]
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    session.execute(insert(VectorRow).on_conflict_do_nothing(), rows)
