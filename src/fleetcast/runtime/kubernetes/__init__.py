"""Kubernetes: a scheduler that runs any policy of pods on a real cluster, and a double of its API server.

`scheduler` watches, asks the policy, binds and evicts; `double` is an API server for tests and trials.
"""
