"""From raw scores to tidy frames: estimates with their intervals."""
