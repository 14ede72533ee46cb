"""How processes are started, spoken to and ended: fork servers, trial processes, and what the kernel knows."""
