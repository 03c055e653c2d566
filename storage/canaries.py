"""The first vector of the canary text for each model, kept beside all other vectors."""

from storage.database import Database
from storage.ports import Vector
from storage.tables import vectors


class DatabaseCanaries:
    """Canaries of everybody who works on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def first(self, key: str, vector: Vector) -> Vector:
        """Return the vector that is kept under a key, float32[width]; if there is none, keep this one."""
        with self._database.reading() as session:
            known = vectors.find(session, [key])
        if key not in known:
            with self._database.writing() as uow:
                vectors.keep(uow.session, "", {key: vector})
                known = vectors.find(uow.session, [key])  # another process may have been first
        return known[key]
