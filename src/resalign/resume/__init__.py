"""Long work that survives: its state is saved while it runs, and the next attempt goes on from there."""
