"""`tinysaver-edge serve`: have this machine answer a bundle's large model for devices."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath, Number, Threads, trusted_option
from tinysaver_edge.engines.batching import SIZES
from tinysaver_edge.engines.remote.model import Token
from tinysaver_edge.host.kserve_model import import_kserve
from tinysaver_edge.host.listening import LONGEST_DRAIN_S, MOST_REQUEST_MB, Listening, parse_bind
from tinysaver_edge.host.served import served_by
from tinysaver_edge.host.server import serve as run_serve

_FILE = LocalPath()


@click.command()
@click.argument("bundle", type=LocalPath())
@click.option("--bind", default="127.0.0.1:8001", show_default=True, metavar="HOST:PORT",
              help="Where gRPC listens.")  # fmt: skip
@click.option(
    "--http-port",
    type=click.IntRange(1, 65535),
    help="Port for HTTP, /v2/health and /metrics on the same address. [default: none]",
)
@click.option("--name", help="The model's name for clients. [default: as in the bundle]")
@click.option("--jpeg", is_flag=True, help="Take JPEG files in place of pixels. "
              "[default: as the bundle was calibrated]")  # fmt: skip
@click.option("--tls-cert", type=_FILE, help="PEM file of this host's certificate.")
@click.option("--tls-key", type=_FILE, help="PEM file of its private key.")
@click.option("--client-ca", type=_FILE, help="Let in only clients with a certificate of these.")
@click.option("--token-file", type=_FILE, help="File with a bearer token that clients must send.")
@click.option("--token-env", metavar="NAME", help="Environment variable that holds it.")
@click.option("--insecure", is_flag=True, help="Allow plain text where others can reach it.")
@click.option("--max-requests", type=click.IntRange(min=1), default=16, show_default=True,
              help="Requests taken in at once; beyond it they are refused.")  # fmt: skip
@click.option("--max-request-mb", type=Number(0, MOST_REQUEST_MB, min_open=True), default=32.0,
              show_default=True, help="Longer requests are refused.")  # fmt: skip
@click.option("--drain-s", type=Number(0, LONGEST_DRAIN_S), default=5.0, show_default=True,
              help="How long requests under way may take after SIGTERM.")  # fmt: skip
@click.option("--threads", type=Threads(), help="Processor threads for one inference.")
@click.option("--batch", type=click.Choice([str(size) for size in (1, *SIZES)]),
              help="Frames that are run at once at most, where so many wait. "
              "[default: what a few runs at the start show to be quickest]")  # fmt: skip
@trusted_option
def serve(
    bundle: Path,
    trusted: Path | None,
    bind: str,
    http_port: int | None,
    name: str | None,
    jpeg: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    token_file: Path | None,
    token_env: str | None,
    insecure: bool,
    max_requests: int,
    max_request_mb: float,
    drain_s: float,
    threads: int | None,
    batch: str | None,
) -> None:
    """Have this machine answer a bundle's large model for devices.

    For a bench or a small site; `tinysaver-edge deploy` writes what real fleets need. It listens
    on this machine alone unless --bind says otherwise, and then wants TLS.

    \b
        tinysaver-edge serve bundle/
        tinysaver-edge run bundle/ --source 0 --large grpc://127.0.0.1:8001/NAME
    """
    host, port = parse_bind(bind)
    token = None
    if token_file is not None or token_env is not None:
        token = Token(file=token_file, env=token_env)
    listening = Listening(
        host=host,
        grpc_port=port,
        http_port=http_port,
        certificate=tls_cert,
        key=tls_key,
        client_ca=client_ca,
        token=token,
        insecure=insecure,
        max_requests=max_requests,
        max_request_bytes=max(1, round(max_request_mb * (1 << 20))),
        drain_s=drain_s,
    )
    if tls_cert is None and not listening.is_loopback:
        terminal.warn([f"{bind}: frames and answers cross the network in plain text"])
    with Bundle.load(bundle, trusted=trusted) as opened:
        served = served_by(opened, name=name, jpeg=jpeg or None, threads=threads)
        import_kserve()  # before a next step is told
        if served.jpeg:
            terminal.say(f"{served.name} takes JPEG files in place of pixels")
        scheme = "grpc" if tls_cert is None else "grpcs"
        words = ("run", bundle, "--source", "0", "--large", f"{scheme}://{bind}/{served.name}")
        terminal.next_step(f"{terminal.command_line(*words)} on a device, once this is ready")
        at_once = None if batch is None else int(batch)
        run_serve(served, listening, told=terminal.say, at_once=at_once)
