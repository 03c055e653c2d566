"""HTTP, and nothing else: reads requests, asks the tables, writes replies in the contract's shapes."""
