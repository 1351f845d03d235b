"""Differentiating through fine-tuning: knows losses and tensors, nothing of diffusion."""
