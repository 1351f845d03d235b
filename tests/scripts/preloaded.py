"""What the server of :mod:`tests.scripts.stage_process` loads before it forks: seconds that each attempt would pay."""

import gc
import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import diffusers
import open_clip
import pandas
import torch
import transformers

import resalign.running.stage
from resalign.config.closure import import_closure

LOADED = (
    diffusers.StableDiffusionPipeline,
    diffusers.AutoencoderKL,
    diffusers.UNet2DConditionModel,
    open_clip.create_model_and_transforms,
    pandas.DataFrame,
    torch.optim.AdamW,
    transformers.CLIPTextModel,
    resalign.running.stage.run_stage,
    import_closure(*(f"scripts/{stage}.py" for stage in ("attack", "digits", "sample", "score", "unlearn"))),
)
# Else each fork's first collection touches, and so copies, everything that lies here.
gc.collect()
gc.freeze()
