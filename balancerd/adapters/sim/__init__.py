"""A simulated site in memory with its own clock: hosts, VMs, links, load, migrations, faults.

`scenario` is the file, `site` what it describes, `world` the thing that lives.
"""
