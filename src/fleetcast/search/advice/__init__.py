"""Whether a model runs on a device, by which technique, at which speed, and why not otherwise.

`techniques` is the catalogue: what each needs, does and costs in quality; `advisor` tries all of them on a device.
"""
