#!/bin/sh
# SGLang servers for this plan
# Simulated with the engine profile vllm-1; set plan.engine = "sglang" to forecast SGLang.
# Route least_loaded: python -m sglang_router.launch_router --policy power_of_two --worker-urls http://localhost:8000 http://localhost:8001

# llama-3-1-70b, replica 0
CUDA_VISIBLE_DEVICES=0,1,2,3 python -m sglang.launch_server \
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
CUDA_VISIBLE_DEVICES=4,5,6,7 python -m sglang.launch_server \
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
