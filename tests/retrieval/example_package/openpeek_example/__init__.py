"""A package of somebody else: what a plugin for OpenPeek looks like."""
