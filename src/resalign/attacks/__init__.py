"""Fine-tuning attacks, one file each: the file's name is the attack's name in a configuration.

Each module has a frozen ``Config`` with ``steps`` and ``checkpoints``, and ``attack(models, data, config, run, save)``;
see :mod:`resalign.contracts`. What trains weights by gradient steps has its settings and its loop from
:mod:`resalign.fine_tuning`.
"""
