"""Latent diffusion models: loading, noise, batches, trained weights, sampling."""
