#!/bin/sh
# What is to be seen on a GPU, by one command of under 10 minutes: sh bench/gpu.sh FOLDER, or `make gpu`.
#
# Two outer steps of each of config/config.yaml's rows of ResAlign and 16 images, at 512 pixels and Stable Diffusion v1.4's
# size, with random weights; then the tests marked `cuda`. FOLDER/rates.csv is for config/rates.csv, what is printed for
# dev/LOG.md. Options behind the folder go to bench/sd_v1_4_size.py: `--gradient-checkpointing` on a GPU of little memory.
#
# The second step of resalign-full has a prior-preserving draw. Exact Hessian products took 75 GiB without one (dev/LOG.md
# 2026-11-26), each with a graph of its own; now they share one, which takes more memory and less time (not measured on a GPU).
# The row's are finite differences.
#
# Seconds, reckoned for one H100 by config/rates.csv and dev/LOG.md of 2026-11-26; an H200's memory is 1.4 times as fast:
#   pipeline of 4.3 GB, written once                                                              60
#   resalign, 35 to start and to save, 118 and 103 gradient passes of .43, 24 forward ones       131
#   resalign-full, 35, first step as measured, the second of 143 gradient passes                 143
#   16 images, 35 to start, .82 an image                                                          48
#   28 tests, one after the other                                                                 91
#   together                                                                                     473, 8 minutes
# A draw that is tried again takes up to 17 gradient passes more, 7 s, so the time is limited: 7.5 minutes for the steps and
# images, 2 for the tests. A row that is cut off shows what its first step took.
#
# Where no registry can be reached and Python has torch, torchvision, transformers, accelerate, peft, timm, pandas, pyarrow,
# scikit-learn and pytest, bring the wheels of the rest, 44 MB for Python 3.12 on x86-64. Here:
#   for n in annotated-types diffusers importlib-metadata nudenet onnxruntime open-clip-torch pydantic pydantic-core \
#       torch-fidelity typing-extensions typing-inspection; do
#     grep -oE "^$n==[^ ]+" envs/requirements.lock
#   done | xargs python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 -d wheels \
#       --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64
# There, with this folder:
#   python3 -m pip install --no-index --no-deps --target site wheels/*.whl
#   PYTHONPATH=$PWD/site sh bench/gpu.sh FOLDER
set -u
mkdir -p "${1:?which folder?}" && world=$(cd "$1" && pwd) && shift && cd "$(dirname "$0")/.." || exit
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
failed=0
python3 bench/sd_v1_4_size.py "$world" --device cuda --pixels 512 --threads 4 --rows resalign resalign-full \
    --outer-steps 2 --stages unlearn sample --minutes 7.5 "$@" || failed=1
# Other versions than the locked ones warn of other things.
timeout 120 python3 -m pytest -W default -m cuda tests/diffusion/test_cuda.py || failed=1
exit $failed
