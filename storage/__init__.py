"""Where things are kept: rows (the truth), bytes, vectors (derived from rows), and hints between processes."""
