"""The routes of namespaces."""
