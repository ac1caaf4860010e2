"""The remote engine: a model on another host, behind the Open Inference Protocol (KServe v2).

model, address  which hosts serve a model, and how they are asked
engine          the engine, over one or several hosts
endpoint        one host: what it serves, how it is
transport       what both protocols offer; grpc and http are the two
security        TLS and tokens
facts, samples  what a host says, and what it is proven with
breaker         when a host is left alone, and the budget of retries
diagnosis       what really stops a connection
traffic         figures
"""

from tinysaver_edge.engines.remote.model import RemoteModel, remote_model
from tinysaver_edge.engines.remote.security import Tls, Token

__all__ = ["RemoteModel", "Tls", "Token", "remote_model"]
