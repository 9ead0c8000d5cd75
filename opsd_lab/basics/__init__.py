"""What knows nothing of language models: whole-file writes, limits on what is read, interrupts, checked options."""
