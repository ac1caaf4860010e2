"""What a device is.

probe     all of it: what is there, what a cascade can use of it, and the draft of a profile
profile   what is known of a kind of device, from devices/*.toml
doctor/   what makes installations fail, each with the command that mends it
engines   which run here, on which devices; trial asks each and runs a tiny model there
cpu, nvidia   parts of a machine; Jetsons are NVIDIA's
energy    counters of energy, where the system has them; benchmarks read them
finding   one thing that is there, or why not, or what mends it; how system files are read
"""
