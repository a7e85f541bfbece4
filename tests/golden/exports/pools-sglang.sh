#!/bin/sh
# SGLang servers for this plan; flags as of SGLang 0.5
# --context-length 1280: the workload's longest request has 1,200 tokens; longer ones are refused. The model's own context is 40,960.
# Run each part on its host: NAME-0 is the first host of group NAME.
# Route round_robin: python3 -m sglang_router.launch_router --policy round_robin --worker-urls http://new-0:8000 http://new-0:8001 http://old-0:8000

# ---- on new-0 ----

# qwen3-32b-0, replica 0
CUDA_VISIBLE_DEVICES=0,1 python3 -m sglang.launch_server \
    --model-path Qwen/Qwen3-32B \
    --tp-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --context-length 1280 \
    --max-running-requests 1024 \
    --chunked-prefill-size -1 \
    --max-prefill-tokens 16384 \
    --mem-fraction-static 0.88 \
    --page-size 1 \
    --host 0.0.0.0 \
    --port 8000 &

# qwen3-32b-0, replica 1
CUDA_VISIBLE_DEVICES=2,3 python3 -m sglang.launch_server \
    --model-path Qwen/Qwen3-32B \
    --tp-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --context-length 1280 \
    --max-running-requests 1024 \
    --chunked-prefill-size -1 \
    --max-prefill-tokens 16384 \
    --mem-fraction-static 0.88 \
    --page-size 1 \
    --host 0.0.0.0 \
    --port 8001 &

# ---- on old-0 ----

# qwen3-32b-1, replica 0
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python3 -m sglang.launch_server \
    --model-path Qwen/Qwen3-32B \
    --tp-size 4 \
    --pp-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --context-length 1280 \
    --max-running-requests 2048 \
    --chunked-prefill-size -1 \
    --max-prefill-tokens 16384 \
    --mem-fraction-static 0.88 \
    --page-size 1 \
    --host 0.0.0.0 \
    --port 8000 &

wait
