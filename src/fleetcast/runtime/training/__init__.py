"""Training on the real clock: small language models of the Llama family, from text to a folder that the engine opens.

`forward` is the differentiable pass, `lm` the loop that trains with it, `tokens` text as ids, `folder` what is written.
`sharded` needs no torch: ranks of one process that share their states out by level.
"""
