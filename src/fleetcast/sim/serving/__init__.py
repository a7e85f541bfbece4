"""The serving world: requests meet replicas under continuous batching.

`setting` looks a scenario up, `complete` fills a plan, `simulate` runs it. The hot loop is `kernel`; `stepwise` is
the same world one iteration at a time with the policy objects themselves, the reference the loop is held to.
"""
