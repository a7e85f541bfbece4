"""A row of servers under a breaker: weeks at telemetry resolution.

`phases` says what a server draws and how long it takes in each phase at each clock, `row` runs servers under a power
policy, `kernel` is the hot loop.
"""
