"""Losses, as functions of a network's weights by name and of a fixed batch."""
