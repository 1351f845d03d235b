"""The package as a library: unlearn, attack, sample, evaluate and audit diffusers pipelines from Python.

The functions are attributes of :mod:`resalign` itself: ``import resalign; resalign.unlearn(...)``.
"""
