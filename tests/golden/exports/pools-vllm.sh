#!/bin/sh
# vLLM servers for this plan; flags as of vLLM 0.6 to 0.14
# Simulated with the engine profile sglang; set plan.engine = "vllm-1" to forecast vLLM.
# vLLM 1 mixes decode into iterations with whole prompts; the plan runs them apart.
# --max-model-len 1280: the workload's longest request has 1,200 tokens; longer ones are refused. The model's own context is 40,960.
# Run each part on its host: NAME-0 is the first host of group NAME.
# Route round_robin: put a proxy in front that takes the replicas in turn (nginx: upstream, its default). Servers: new-0:8000 new-0:8001 old-0:8000

# ---- on new-0 ----

# qwen3-32b-0, replica 0
CUDA_VISIBLE_DEVICES=0,1 vllm serve Qwen/Qwen3-32B \
    --tensor-parallel-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --max-model-len 1280 \
    --max-num-seqs 1024 \
    --max-num-batched-tokens 16384 \
    --no-enable-chunked-prefill \
    --port 8000 &

# qwen3-32b-0, replica 1
CUDA_VISIBLE_DEVICES=2,3 vllm serve Qwen/Qwen3-32B \
    --tensor-parallel-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --max-model-len 1280 \
    --max-num-seqs 1024 \
    --max-num-batched-tokens 16384 \
    --no-enable-chunked-prefill \
    --port 8001 &

# ---- on old-0 ----

# qwen3-32b-1, replica 0
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 vllm serve Qwen/Qwen3-32B \
    --tensor-parallel-size 4 \
    --pipeline-parallel-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --max-model-len 1280 \
    --max-num-seqs 2048 \
    --max-num-batched-tokens 16384 \
    --no-enable-chunked-prefill \
    --port 8000 &

wait
