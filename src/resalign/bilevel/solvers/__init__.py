"""Solvers of (I + γH) x = g, one file each; the file's name is the solver's name in a configuration.

Each module has a frozen ``Config`` whose ``name`` is the file's and ``solve(system, config) -> Solution``.
A hypergradient's system has one tensor, all its variables in a row; ``system.parts`` are their shapes.
"""
