"""Authorities and certificates for tests, made by openssl; good ones and expired ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="no openssl: apt install openssl"
)

CONFIG = """
[ca]
default_ca = test
[test]
dir = {folder}
database = $dir/index.txt
new_certs_dir = $dir
serial = $dir/serial
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""


class Authority:
    """Signs certificates for a host's name."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        (folder / "openssl.cnf").write_text(CONFIG.format(folder=folder))
        self.ca = folder / "ca.pem"
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test authority",
            "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
        )  # fmt: skip

    def certificate(
        self, stem: str, name: str = "localhost", *, until: str = "20991231000000Z"
    ) -> tuple[Path, Path]:
        """Return certificate and key for a name; ``until`` in the past is an expired one."""
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName=DNS:{name}",
            "-keyout", f"{stem}.key", "-out", f"{stem}.csr",
        )  # fmt: skip
        self._openssl(
            "ca", "-config", "openssl.cnf", "-batch", "-notext", "-cert", "ca.pem",
            "-keyfile", "ca.key", "-startdate", "20200101000000Z", "-enddate", until,
            "-in", f"{stem}.csr", "-out", f"{stem}.pem",
        )  # fmt: skip
        (self.folder / "index.txt").write_text("")  # the same name may be signed again
        return self.folder / f"{stem}.pem", self.folder / f"{stem}.key"

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
