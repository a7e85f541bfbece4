"""Serving the engine over HTTP as OpenAI's API does: completions, chats, models, and metrics for Prometheus.

`asks` reads requests, `worker` runs the engine in a thread of its own, `answers` writes what comes out, `app` is the
life of a request, `guard` and `limits` say who may ask and how much, `server` starts and ends it all.
"""
