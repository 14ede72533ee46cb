"""How processes are started, spoken to and ended."""
