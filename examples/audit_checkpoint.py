"""Audits a checkpoint that claims to have unlearned the digit seven: attacks it and judges what comes back.

    python examples/audit_checkpoint.py results/runs/unlearn/esd-<hash>/seed-0/weights.safetensors

Without an argument it unlearns the demo's model itself and audits that. Without a demo it does what unlearn_digits.py
does then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import resalign
from unlearn_digits import METHODS, PROMPTS, SAMPLING, digits


def main() -> None:
    """Audits, and prints every state with its verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, help="changed weights for the demo's model")
    parser.add_argument("--steps", type=int, default=50, help="steps of the attack")
    parser.add_argument("--stand-in", action="store_true", help="use the tiny random pipeline in any case")
    options = parser.parse_args()

    data = digits(stand_in=options.stand_in)
    if options.checkpoint:
        claimed = resalign.unlearn(data.pipeline, "imported", checkpoint=str(options.checkpoint), covers="some")
    else:
        settings = METHODS["graddiff"] | ({"steps": 2} if data.is_stand_in else {})
        claimed = resalign.unlearn(data.pipeline, "graddiff", forget=data.forget, retain=data.retain, **settings)

    found = resalign.audit(
        claimed,
        base=data.pipeline,
        train=data.train,
        heldout=data.heldout,
        attacks={"full": {"steps": 2 if data.is_stand_in else options.steps, "lr": 1e-3, "batch_size": 8}},
        prompts=PROMPTS[:2],
        scorers={"detector": {"scorer": "image_classification", "folder": str(data.detector)}},
        metrics={"ip": {"rules": [{"scorer": "detector", "quantities": ["seven"]}]}},
        images_per_prompt=4,
        **SAMPLING,
    )
    print(found.states.round(3).to_string(index=False))
    print(f"verdict: {found.verdict} (two prompts can show no rate to be small: take as many as you can)")


if __name__ == "__main__":
    main()
