"""What comes next: `requests` ranks those that wait for a model, `tasks` those of a graph.

They see different things and cannot replace each other in one world, hence two folders.
"""
