"""The pictures and tables of docs/architecture.md, drawn from the source of the package."""
