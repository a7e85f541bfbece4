"""What is chosen offline: plans, capacity, clocks.

`parallelism.search` ranks plans of a scenario; `capacity` sizes fleets and loads; `frequency` trades clock for energy.
"""
