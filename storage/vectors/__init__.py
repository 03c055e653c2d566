"""The vector index: derived from the rows, embedded (Edge) or on a server (Qdrant), behind one port."""
