"""The routes of collections."""
