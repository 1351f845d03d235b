"""Claims that were fixed before they were tested, and their verdicts."""
