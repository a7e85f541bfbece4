#!/bin/sh
# SGLang servers for this plan; flags as of SGLang 0.5
# Simulated with the engine profile vllm-1; set plan.engine = "sglang" to forecast SGLang.
# A replica spans 2 hosts; all of them need the model, and InfiniBand NDR 400 Gb/s, one port per device between them as the plan counts on.
# --context-length 1280: the workload's longest request has 1,200 tokens; longer ones are refused. The model's own context is 131,072.
# llama-3-1-405b runs at 1281 MHz and 500 W at most: the lines marked 'root' set it and need root on the host; a container cannot. They last until the host restarts or `nvidia-smi -rgc`.
# Run each part on its host: NAME-0 is the first host of group NAME.
# Route least_loaded: python3 -m sglang_router.launch_router --policy power_of_two --worker-urls http://h100-sxm-0:8000 http://h100-sxm-2:8000

# ---- on h100-sxm-0 ----

# llama-3-1-405b, replica 0
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
python3 -m sglang.launch_server \
    --model-path meta-llama/Llama-3.1-405B \
    --tp-size 8 \
    --pp-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --context-length 1280 \
    --max-running-requests 512 \
    --chunked-prefill-size 2048 \
    --enable-mixed-chunk \
    --host 0.0.0.0 \
    --port 8000 \
    --nnodes 2 \
    --node-rank 0 \
    --dist-init-addr h100-sxm-0:20000 &

# ---- on h100-sxm-1 ----

# llama-3-1-405b, replica 0
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
python3 -m sglang.launch_server \
    --model-path meta-llama/Llama-3.1-405B \
    --tp-size 8 \
    --pp-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --context-length 1280 \
    --max-running-requests 512 \
    --chunked-prefill-size 2048 \
    --enable-mixed-chunk \
    --host 0.0.0.0 \
    --port 8000 \
    --nnodes 2 \
    --node-rank 1 \
    --dist-init-addr h100-sxm-0:20000 &

# ---- on h100-sxm-2 ----

# llama-3-1-405b, replica 1
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
python3 -m sglang.launch_server \
    --model-path meta-llama/Llama-3.1-405B \
    --tp-size 8 \
    --pp-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --context-length 1280 \
    --max-running-requests 512 \
    --chunked-prefill-size 2048 \
    --enable-mixed-chunk \
    --host 0.0.0.0 \
    --port 8000 \
    --nnodes 2 \
    --node-rank 0 \
    --dist-init-addr h100-sxm-2:20000 &

# ---- on h100-sxm-3 ----

# llama-3-1-405b, replica 1
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
python3 -m sglang.launch_server \
    --model-path meta-llama/Llama-3.1-405B \
    --tp-size 8 \
    --pp-size 2 \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --context-length 1280 \
    --max-running-requests 512 \
    --chunked-prefill-size 2048 \
    --enable-mixed-chunk \
    --host 0.0.0.0 \
    --port 8000 \
    --nnodes 2 \
    --node-rank 1 \
    --dist-init-addr h100-sxm-2:20000 &

wait
