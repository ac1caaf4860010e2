"""The other side of a remote large model: serve it here, or write what real servers need.

served        what is served of a bundle
server        KServe's Python server, started and stopped
kserve_model  the model behind it, asked in batches
listening     where it listens, who may ask, and how much
deploy        files for Triton, KServe, OpenVINO Model Server and Ray Serve
"""
