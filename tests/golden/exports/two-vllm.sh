#!/bin/sh
# vLLM servers for this plan; flags as of vLLM 0.6 to 0.14
# --max-model-len 1280: the workload's longest request has 1,200 tokens; longer ones are refused. The model's own context is 131,072.
# Route least_loaded: put a proxy in front that picks the replica with fewest requests (nginx: least_conn). Servers: localhost:8000 localhost:8001

# llama-3-1-70b, replica 0
CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve meta-llama/Llama-3.1-70B \
    --tensor-parallel-size 4 \
    --quantization fp8 \
    --kv-cache-dtype fp8 \
    --max-model-len 1280 \
    --max-num-seqs 256 \
    --max-num-batched-tokens 2048 \
    --enable-chunked-prefill \
    --gpu-memory-utilization 0.9 \
    --block-size 16 \
    --port 8000 &

# llama-3-1-70b, replica 1
CUDA_VISIBLE_DEVICES=4,5,6,7 vllm serve meta-llama/Llama-3.1-70B \
    --tensor-parallel-size 4 \
    --quantization fp8 \
    --kv-cache-dtype fp8 \
    --max-model-len 1280 \
    --max-num-seqs 256 \
    --max-num-batched-tokens 2048 \
    --enable-chunked-prefill \
    --gpu-memory-utilization 0.9 \
    --block-size 16 \
    --port 8001 &

wait
