"""Unlearning methods, one file each: the file's name is the method's name in a configuration.

Each module has a frozen ``Config`` and ``unlearn(loaded, data, config, run) -> weights``, typed in
:mod:`resalign.contracts`.
"""
