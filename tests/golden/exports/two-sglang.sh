#!/bin/sh
# SGLang servers for this plan; flags as of SGLang 0.5
# Simulated with the engine profile vllm-1; set plan.engine = "sglang" to forecast SGLang.
# --context-length 1280: the workload's longest request has 1,200 tokens; longer ones are refused. The model's own context is 131,072.
# Route least_loaded: python3 -m sglang_router.launch_router --policy power_of_two --worker-urls http://localhost:8000 http://localhost:8001

# llama-3-1-70b, replica 0
CUDA_VISIBLE_DEVICES=0,1,2,3 python3 -m sglang.launch_server \
    --model-path meta-llama/Llama-3.1-70B \
    --tp-size 4 \
    --quantization fp8 \
    --kv-cache-dtype fp8_e4m3 \
    --context-length 1280 \
    --max-running-requests 256 \
    --chunked-prefill-size 2048 \
    --enable-mixed-chunk \
    --host 0.0.0.0 \
    --port 8000 &

# llama-3-1-70b, replica 1
CUDA_VISIBLE_DEVICES=4,5,6,7 python3 -m sglang.launch_server \
    --model-path meta-llama/Llama-3.1-70B \
    --tp-size 4 \
    --quantization fp8 \
    --kv-cache-dtype fp8_e4m3 \
    --context-length 1280 \
    --max-running-requests 256 \
    --chunked-prefill-size 2048 \
    --enable-mixed-chunk \
    --host 0.0.0.0 \
    --port 8001 &

wait
