"""Measurements of the platform. Each prints machine, date, command and medians; RESULTS.md keeps them."""
