"""Solvers of (I + gamma H) x = g, one file each; the file's name is the solver's name in a configuration.

Each module has a frozen ``Config`` and ``solve(matvec, rhs, config) -> Solution``; ``matvec(v)`` is (I + gamma H) v.
"""
