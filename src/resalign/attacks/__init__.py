"""Fine-tuning attacks, one file each: the file's name is the attack's name in a configuration.

Each module has a frozen ``Config`` with ``steps`` and ``checkpoints``, and ``attack(loaded, data, config, run, save)``;
see :mod:`resalign.contracts`. An attack that does not begin with the unlearned weights also has
``start(config, unlearned, original)``, which returns the weights to load. Attacks by gradient steps take settings and
loop from :mod:`resalign.attacks._fine_tuning`.
"""
