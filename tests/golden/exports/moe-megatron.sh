#!/bin/sh
# Megatron-LM for this plan; flags as of Megatron core 0.9 to 0.16
# DATA_ARGS are yours: --data-path, --tokenizer-type, --vocab-file, learning rate, checkpoints.
# The vocabulary of the plan is 32,000 rows, padded: see --make-vocab-size-divisible-by.
# The plan counts on InfiniBand NDR 400 Gb/s, one port per device between nodes of 8 h100-sxm.
# Run it on each of the 8 nodes; HEAD is the address of one of them.

: "${HEAD:?set HEAD to the address of the first node}"

export CUDA_DEVICE_MAX_CONNECTIONS=1

torchrun \
    --nproc-per-node 8 \
    --nnodes 8 \
    --rdzv-backend c10d \
    --rdzv-id moe \
    --rdzv-endpoint "$HEAD:29500" \
    pretrain_gpt.py \
    --tensor-model-parallel-size 4 \
    --pipeline-model-parallel-size 2 \
    --expert-model-parallel-size 8 \
    --sequence-parallel \
    --num-layers 32 \
    --hidden-size 4096 \
    --ffn-hidden-size 14336 \
    --num-attention-heads 32 \
    --group-query-attention \
    --num-query-groups 8 \
    --swiglu \
    --normalization RMSNorm \
    --disable-bias-linear \
    --untie-embeddings-and-output-weights \
    --position-embedding-type rope \
    --seq-length 4096 \
    --max-position-embeddings 32768 \
    --num-experts 8 \
    --moe-router-topk 2 \
    --moe-ffn-hidden-size 14336 \
    --moe-grouped-gemm \
    --moe-token-dispatcher-type alltoall \
    --attention-backend flash \
    --micro-batch-size 1 \
    --global-batch-size 256 \
    --train-iters 10 \
    --recompute-granularity full \
    --recompute-method uniform \
    --recompute-num-layers 1 \
    --use-distributed-optimizer \
    --bf16 \
    --overlap-grad-reduce \
    --overlap-param-gather \
    $DATA_ARGS
