"""What the paper's tables and figures are made from: measured frames, comparisons, published numbers."""
