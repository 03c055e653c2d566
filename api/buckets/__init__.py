"""The routes of buckets."""
