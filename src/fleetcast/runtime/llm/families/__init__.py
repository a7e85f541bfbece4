"""The families of models that run, a file each; `shape` reads a config.json by them."""
