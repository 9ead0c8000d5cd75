"""What `opsd-lab` does, a file for each kind of command."""
