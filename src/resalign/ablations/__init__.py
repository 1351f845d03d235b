"""Ablations: their measured values, and their table and figure."""
