"""The stage engine: a retriever is a list of stages, each takes documents and gives documents."""
