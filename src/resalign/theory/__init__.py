"""Proposition 1, the linear model and second-order accuracy, measured and shown."""
