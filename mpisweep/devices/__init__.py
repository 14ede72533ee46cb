"""Which devices a node has, and which of them each rank may use."""
