"""A method's own settings, searched: by random search, Optuna, and populations that are trained together."""
