"""A network on a logical clock: flows share links fairly, and nothing changes between two events.

`flows` shares links among flows, max-min fair; `world` runs flows that wait for each other. It stands between closed
forms, which know no sharing, and packets, which take hours.
"""
