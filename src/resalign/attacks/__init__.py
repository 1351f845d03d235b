"""Fine-tuning attacks, one file each: the file's name is the attack's name in a configuration.

Each module has a frozen ``Config`` with ``steps`` and ``checkpoints``, and ``attack(models, data, config, run, save)``;
see :mod:`resalign.contracts`. One that begins elsewhere than with the unlearned weights also has
``start(config, unlearned, original)``, which makes the weights that the model is loaded with. What trains weights by
gradient steps has its settings and its loop from :mod:`resalign.attacks._fine_tuning`.
"""
