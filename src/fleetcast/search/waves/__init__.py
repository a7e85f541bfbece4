"""Several tasks and modules trained together: which run side by side, on how many devices, in waves."""
