"""Networks that give raw numbers to single images, one file each: the file's name is the scorer's name.

Each module has a frozen ``Config`` and ``load(config, folder, device) -> Scorer``; ``folder`` is None for a network
that ships in a package. Raw numbers are kept for every image; thresholds are applied by metrics, when tables are made.
"""
