"""The remote engine: a model on another host, behind the Open Inference Protocol (KServe v2).

model       which hosts serve a model, and how they are asked: addresses, TLS, tokens
engine      the engine, over one or several hosts
endpoint    one host: what it serves, how it is
grpc, http  the two protocols
facts       what a host says, and what it is proven with
traffic     figures; when a host is left alone, and the budget of retries
diagnosis   what really stops a connection
"""

from tinysaver_edge.engines.remote.model import RemoteModel, Tls, Token, remote_model

__all__ = ["RemoteModel", "Tls", "Token", "remote_model"]
