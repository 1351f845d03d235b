"""A detector against people's labels: sampled images, error rates, corrected values."""
