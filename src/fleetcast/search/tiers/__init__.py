"""Where and how deep a familial model answers: on the device, at the edge, in the cloud, or on several in turn.

`family` cuts a trunk into parts, `parts` times each part on each tier in the serving world, `legs` adds what is sent
between tiers, `choice` finds the best cascade, and `planner` answers a scenario.
"""
