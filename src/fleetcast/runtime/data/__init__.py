"""Moving data from instruments to compute: over open protocols, with libraries that others keep well.

`push` is the instrument's end (it only opens connections), `gateway` spools and forwards what comes, `vault` keeps it
and lets nobody change it, `mount` reads it where it lies, `mover` copies it over several connections. Uploads are tus
1.0, reads are HTTP ranges, stores are obstore's, file systems are fsspec's. `cost.data` forecasts what each of them
takes.
"""
