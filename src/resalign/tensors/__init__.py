"""Seeds, weight files and arithmetic on named tensors; knows nothing of diffusion."""
