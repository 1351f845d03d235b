"""Resilient safety-driven unlearning of text-to-image diffusion models, after ResAlign (Li et al., NeurIPS 2025)."""
