"""`tinysaver-edge deploy`: write what each side needs to have the large model on a server."""

from __future__ import annotations

from pathlib import Path

import click

from tinysaver_edge.bundle.bundle import Bundle
from tinysaver_edge.cli import terminal
from tinysaver_edge.cli.options import LocalPath
from tinysaver_edge.errors import InputError
from tinysaver_edge.host.deploy import Target, write_device_bundle
from tinysaver_edge.host.deploy import deploy as write_deployment

DEVICE = "device"
"""The other side: what a device needs that has the large model answered by others."""


@click.command()
@click.argument("bundle", type=LocalPath())
@click.option(
    "--target",
    required=True,
    type=click.Choice([*(one.value for one in Target), DEVICE]),
    help="The server: NVIDIA Triton, KServe on Kubernetes, OpenVINO Model Server or Ray Serve. Or "
    "the device: the bundle without the large model's file.",
)
@click.option(
    "--out",
    required=True,
    type=LocalPath(),
    help="A new folder for the files; for a device perhaps a .zip.",
)
@click.option("--name", help="The model's name on the server. [default: as in the bundle]")
@click.option("--jpeg", is_flag=True, help="Devices send JPEG files in place of pixels. "
              "[default: as the bundle was calibrated]")  # fmt: skip
@click.option(
    "--python-backend",
    is_flag=True,
    help="Have Triton run an .onnx in its Python backend, where it lacks the one for ONNX Runtime.",
)
def deploy(
    bundle: Path, target: str, out: Path, name: str | None, jpeg: bool, python_backend: bool
) -> None:
    """Write what a real server needs to serve a bundle's large model, or what a device then needs.

    The README in the folder says how to start the server, how to see that it works, and what to
    type on a device.

    \b
        tinysaver-edge deploy bundle/ --target triton --out triton/
        tinysaver-edge deploy bundle/ --target device --out device-bundle/
    """
    if target == DEVICE:
        if name or jpeg or python_backend:
            raise InputError("--name, --jpeg and --python-backend are about servers")
        _deploy_device(bundle, out)
        return
    with Bundle.load(bundle) as opened:
        files = write_deployment(
            opened, Target(target), out, name=name, jpeg=jpeg or None, python_backend=python_backend
        )
    terminal.say(f"{len(files)} files in {out}")
    terminal.next_step(f"{out / 'README.md'} says how to start them, and what to type on a device")


def _deploy_device(bundle: Path, out: Path) -> None:
    with Bundle.load(bundle) as opened:
        lighter = write_device_bundle(opened, out)
    terminal.say(f"{out}: {lighter / 1e6:.2f} MB lighter, without the large model")
    run = terminal.command_line("run", out.name, "--source", "0")
    terminal.next_step(f"copy it to the device; there {run} --large grpcs://HOST:8001/MODEL")
