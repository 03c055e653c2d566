"""The composition root: settings, wiring, and the commands. Nothing imports from here."""
