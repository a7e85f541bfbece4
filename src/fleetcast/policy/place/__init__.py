"""Where things lie: `stages` of a pipeline on groups, `gangs` of devices on nodes, `pods` on nodes.

They see different things and cannot replace each other in one world, hence three folders.
"""
