"""The vocabulary of OpenPeek: names, rules and errors. Pure Python, no I/O, imports nothing of ours."""
