#!/bin/sh
# vLLM servers for this plan; flags as of vLLM 0.6 to 0.14
# A replica spans 2 hosts by vLLM's own processes; all of them need the model, and InfiniBand NDR 400 Gb/s, one port per device between them as the plan counts on.
# --max-model-len 1280: the workload's longest request has 1,200 tokens; longer ones are refused. The model's own context is 131,072.
# llama-3-1-405b runs at 1281 MHz and 500 W at most: the lines marked 'root' set it and need root on the host; a container cannot. They last until the host restarts or `nvidia-smi -rgc`.
# Run each part on its host: NAME-0 is the first host of group NAME.
# Route least_loaded: put a proxy in front that picks the replica with fewest requests (nginx: least_conn). Servers: h100-sxm-0:8000 h100-sxm-2:8000

# ---- on h100-sxm-0 ----

# llama-3-1-405b, replica 0
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
vllm serve meta-llama/Llama-3.1-405B \
    --tensor-parallel-size 8 \
    --pipeline-parallel-size 2 \
    --distributed-executor-backend mp \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --max-model-len 1280 \
    --max-num-seqs 512 \
    --max-num-batched-tokens 2048 \
    --enable-chunked-prefill \
    --gpu-memory-utilization 0.9 \
    --block-size 16 \
    --port 8000 \
    --nnodes 2 \
    --node-rank 0 \
    --master-addr h100-sxm-0 \
    --master-port 29501 &

# ---- on h100-sxm-1 ----

# llama-3-1-405b, replica 0
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
vllm serve meta-llama/Llama-3.1-405B \
    --tensor-parallel-size 8 \
    --pipeline-parallel-size 2 \
    --distributed-executor-backend mp \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --max-model-len 1280 \
    --max-num-seqs 512 \
    --max-num-batched-tokens 2048 \
    --enable-chunked-prefill \
    --gpu-memory-utilization 0.9 \
    --block-size 16 \
    --headless \
    --nnodes 2 \
    --node-rank 1 \
    --master-addr h100-sxm-0 \
    --master-port 29501 &

# ---- on h100-sxm-2 ----

# llama-3-1-405b, replica 1
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
vllm serve meta-llama/Llama-3.1-405B \
    --tensor-parallel-size 8 \
    --pipeline-parallel-size 2 \
    --distributed-executor-backend mp \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --max-model-len 1280 \
    --max-num-seqs 512 \
    --max-num-batched-tokens 2048 \
    --enable-chunked-prefill \
    --gpu-memory-utilization 0.9 \
    --block-size 16 \
    --port 8000 \
    --nnodes 2 \
    --node-rank 0 \
    --master-addr h100-sxm-2 \
    --master-port 29501 &

# ---- on h100-sxm-3 ----

# llama-3-1-405b, replica 1
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -lgc 1281,1281
# root: nvidia-smi -i 0,1,2,3,4,5,6,7 -pl 500
vllm serve meta-llama/Llama-3.1-405B \
    --tensor-parallel-size 8 \
    --pipeline-parallel-size 2 \
    --distributed-executor-backend mp \
    --dtype bfloat16 \
    --kv-cache-dtype auto \
    --max-model-len 1280 \
    --max-num-seqs 512 \
    --max-num-batched-tokens 2048 \
    --enable-chunked-prefill \
    --gpu-memory-utilization 0.9 \
    --block-size 16 \
    --headless \
    --nnodes 2 \
    --node-rank 1 \
    --master-addr h100-sxm-2 \
    --master-port 29501 &

wait
