"""Bytes: in a folder, or in a bucket of an S3 server."""
