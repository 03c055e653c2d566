"""Texts in, vectors out: without a namespace, a bucket or a collection."""
