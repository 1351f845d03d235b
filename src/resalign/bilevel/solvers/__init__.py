"""Solvers of (I + γH) x = g, one file each; the file's name is the solver's name in a configuration.

Each module has a frozen ``Config`` whose ``name`` is the file's and ``solve(system, config) -> Solution``.
The system has one tensor, all weights in a row, unless the module has ``NAMES = True``.
"""
