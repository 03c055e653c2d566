"""Other runtimes of the same model, to compare with."""
