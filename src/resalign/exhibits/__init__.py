"""Exhibits of a paper, one file each: the file's name is the exhibit's.

Each module declares TITLE, KIND (``table``, ``figure`` or ``macros``) and READS (frames of the rule measure), and has
``make(inputs)``. ATTACKED: it needs an attack. RULED: it needs a safety metric with thresholds. ABLATION: it also
reads that ablation, or sweeps called like itself; ABLATION_ALONE = False where it can do without. SERIES: it shows what
these others show, and reads their ablations where they are declared. THEORY: frames under theory/. A module imports
nothing heavy at its top: the Snakefile reads what it needs.
"""
