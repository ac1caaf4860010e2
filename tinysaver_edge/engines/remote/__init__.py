"""The remote engine: a model on another host, behind the Open Inference Protocol (KServe v2)."""

from tinysaver_edge.engines.remote.model import RemoteModel, remote_model
from tinysaver_edge.engines.remote.security import Tls, Token

__all__ = ["RemoteModel", "Tls", "Token", "remote_model"]
