"""Metrics, one file each: the file's name is the metric's name in a configuration.

Each module has a frozen ``Config``, whose ``needs()`` lists what it reads of which scorers (checked before any long
work), TITLE, BETTER, KIND, GROUP, RANGE where values have known bounds (least and largest; a rate has 0 and 1), and
exactly one of
``per_image(scores, config) -> Series`` (a number an image; KIND ``rate`` or ``mean``),
``per_attacked_image(scores, before, config) -> Series`` (the same, of an attack on prompts; ``before`` has the
scores of the same images with the plain prompts, row by row),
``of_set(scores, reference, config) -> float`` (one number for all images of one training seed; KIND ``set``),
``of_attack(history, base_history, config) -> float`` (one number of an attack's own record; KIND ``set``),
``of_unlearning(history, config) -> float`` (one number of unlearning's own record; KIND ``set``).
"""
