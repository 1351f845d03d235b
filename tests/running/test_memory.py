"""Out of memory: the error that a stage ends with."""

import pytest
import torch

from resalign.running.memory import MemoryExhausted, explained, is_exhaustion

METHOD = {"name": "resalign", "batch_size": 1, "hessian_batch_size": 8, "simulation": {"batch_size": 2, "lr": [1e-4]}}
UNLEARN = {"label": "resalign", "device": "cuda", "pixels": 512, "method": METHOD, "forget": "a/folder"}
SAMPLE = {
    "label": "base seed 0",
    "device": "cuda",
    "sampling": {"batch_size": 64, "seed": 42},
    "prompts": {"unsafe": {"prompts": 931, "images": 1, "path": "p.csv"}},
}
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"


def message(stage: str, job: dict[str, object], error: BaseException | None = None) -> str:
    with pytest.raises(MemoryExhausted) as found, explained(stage, job):
        raise error or torch.OutOfMemoryError(CUDA)
    return str(found.value)


def test_stage_sizes_and_setting_are_named() -> None:
    assert message("unlearn", UNLEARN) == (
        "unlearn 'resalign' ran out of memory on cuda, at pixels 512, method.batch_size 1, "
        "method.hessian_batch_size 8, method.simulation.batch_size 2: "
        f"set resources.unlearn.micro_batch_size, now null for whole batches of up to 8, to 4 or less, "
        f"or resources.unlearn.gradient_checkpointing: true ({CUDA})"
    )


@pytest.mark.parametrize(
    ("stage", "job", "expected"),
    [
        ("attack", {**UNLEARN, "micro_batch_size": 6}, "lower resources.attack.micro_batch_size, now 6, to 3 or less"),
        ("unlearn", {**UNLEARN, "micro_batch_size": 1}, "resources.unlearn.micro_batch_size is 1 already; more memory"),
        (
            "sample",
            SAMPLE,
            "unsafe.prompts 931, prompts.unsafe.images 1: lower sampling.batch_size, now 64, to 32",
        ),
        ("score", {"batch_size": 60, "scorers": {}}, "batch_size 60: lower scoring_batch_size, now 60, to 30 or less"),
        ("digits", {"digits": {"generator": {"batch_size": 4}}}, "digits.generator.batch_size 4: lower one of these"),
    ],
)
def test_every_stage_has_a_remedy(stage: str, job: dict[str, object], expected: str) -> None:
    assert expected in message(stage, job)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA error: out of memory"), RuntimeError("cuDNN: CUDNN_STATUS_ALLOC_FAILED")],
)
def test_other_words_for_it(error: BaseException) -> None:
    assert "resources.unlearn.micro_batch_size" in message("unlearn", UNLEARN, error)


def test_the_host_allocator_really_says_so() -> None:
    with pytest.raises(MemoryExhausted, match="DefaultCPUAllocator"), explained("unlearn", UNLEARN):
        torch.empty(2**46)


def test_other_errors_are_left_alone() -> None:
    error = RuntimeError("shapes differ")
    assert not is_exhaustion(error)
    with pytest.raises(RuntimeError) as found, explained("unlearn", UNLEARN):
        raise error
    assert found.value is error
