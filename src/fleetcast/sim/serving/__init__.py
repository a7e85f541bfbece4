"""The serving world: requests meet replicas under continuous batching.

`setting` looks a scenario up, `completing` fills a plan, `world.simulate` runs it. The hot loop is `kernel`; `stepwise`
is one replica an iteration at a time with the policy objects themselves, and `reference` drives such replicas: the
world that the loop is held to.
"""
