"""What a result depends on, by content: digests of models, functions, data and settings, and what differs between two."""
