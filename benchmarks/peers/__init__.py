"""Other tools that run many trials, each as its own documentation has it, and what measures them."""
