"""Networks that give raw numbers to single images, one file each: the file's name is the scorer's name.

Each module has a frozen ``Config`` and ``load(config, folder, device) -> Scorer``. ``folder`` is that of the asset that
the configuration's key ``folder`` names; None for a network that ships in a package; where a key ``head`` names another
asset, both folders by their keys. Where the configuration determines the numbers, ``quantities(config)``
names them, so that metrics are held against them before anything is loaded. Raw numbers are kept for every image;
metrics apply thresholds, for the tables.
"""
