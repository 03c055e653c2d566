"""The schema's history, forward only, for SQLite and PostgreSQL alike."""
