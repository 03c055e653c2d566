"""The routes of retrievers."""
