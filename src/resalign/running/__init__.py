"""A stage's process: device, memory, saved state, records."""
