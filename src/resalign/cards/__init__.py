"""Cards of a model: how resilient it is, and what it is."""
