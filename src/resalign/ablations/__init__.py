"""What an ablation measures, and its table and figure."""
