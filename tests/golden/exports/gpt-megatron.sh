#!/bin/sh
# Megatron-LM for this plan; flags as of Megatron core 0.9 to 0.16
# DATA_ARGS are yours: --data-path, --tokenizer-type, --vocab-file, learning rate, checkpoints.
# The vocabulary of the plan is 51,200 rows, padded: see --make-vocab-size-divisible-by.
# --recompute-granularity selective: attention's scores, the default of --recompute-modules.
# The plan counts on InfiniBand HDR 200 Gb/s, one port per device between nodes of 8 a100-80g-sxm.
# Run it on each of the 128 nodes; HEAD is the address of one of them.

: "${HEAD:?set HEAD to the address of the first node}"

export CUDA_DEVICE_MAX_CONNECTIONS=1

torchrun \
    --nproc-per-node 8 \
    --nnodes 128 \
    --rdzv-backend c10d \
    --rdzv-id gpt \
    --rdzv-endpoint "$HEAD:29500" \
    pretrain_gpt.py \
    --tensor-model-parallel-size 8 \
    --pipeline-model-parallel-size 8 \
    --num-layers-per-virtual-pipeline-stage 4 \
    --sequence-parallel \
    --num-layers 96 \
    --hidden-size 12288 \
    --ffn-hidden-size 49152 \
    --num-attention-heads 96 \
    --position-embedding-type learned_absolute \
    --seq-length 2048 \
    --max-position-embeddings 2048 \
    --attention-backend unfused \
    --micro-batch-size 1 \
    --global-batch-size 1536 \
    --train-iters 1000 \
    --recompute-granularity selective \
    --use-distributed-optimizer \
    --bf16 \
    --overlap-grad-reduce \
    --overlap-param-gather \
    $DATA_ARGS
