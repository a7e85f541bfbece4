"""Running a constellation on agents: an orchestrator hands tasks to processes on many devices, over WebSockets.

`messages` is what they say, `orchestrator` one side of it and `agent` the other; `run` decides what goes where, `books`
shows it to the policy; `planner` edits while tasks run; `allowed` is what an agent will run, `worker` the process that
runs it.
"""
