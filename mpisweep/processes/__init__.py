"""Starting processes, communicating with them, and ending them."""
