"""What others learn of a stream.

events      what happens, as values
logs        events as lines of text or JSON
metrics     counters, gauges, measured times: the contract and a tally in memory
prometheus  the same for Prometheus
monitor     serves /metrics, /healthz and /readyz; address says where
health      whether the stream is alive and ready
hosts       the hosts of the large model
promise     what is left of the certificate over the answers so far
"""
