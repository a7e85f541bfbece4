#!/bin/sh
# torchrun for this plan; flags as of PyTorch 2.x
# train.py stands for your script: it makes its device mesh from TP, PP, DP, CP and EP.
# Ranks next to each other belong to one tensor-parallel group: the innermost axis of the mesh is tensor.
# Run it on each of the 128 nodes; HEAD is the address of one of them.

: "${HEAD:?set HEAD to the address of the first node}"

export TP=8
export PP=8
export DP=16
export CP=1
export EP=1
export MICRO_BATCH=1
export INTERLEAVE=3
export ZERO=1
export GLOBAL_BATCH=1536
export SEQUENCE=2048
export RECOMPUTE=selective

torchrun \
    --nproc-per-node 8 \
    --nnodes 128 \
    --rdzv-backend c10d \
    --rdzv-id gpt \
    --rdzv-endpoint "$HEAD:29500" \
    train.py
