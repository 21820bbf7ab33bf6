"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import runpy
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from jaxtyping import _import_hook

from .drawn_samples import draw_samples

# No deadlines: the machines are shared. In CI the same examples each time; elsewhere new ones are looked for.
settings.register_profile("here", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")

# Several workers share the cores: one thread each is fastest. It must be said before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _run_module(loader: Any, module: ModuleType) -> None:
    """Reads the code of a module of vitpose with its shapes to check, and runs it.

    jaxtyping does both under the name that its compiled files have. What the module imports then has that name too, so
    every library is compiled anew in every process: 15 s of torch, transformers and Lightning.
    """
    checked = partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", checked):
        code = loader.get_code(module.__name__)
    exec(code, vars(module))


_import_hook._JaxtypingLoader.exec_module = _run_module

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs beside the checkout; a test that asks for it is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real photographs are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def opencv_rounding() -> float:
    """The grey levels by which OpenCV's warp may differ from exact bilinear sampling.

    Before version 5 it rounds positions to 1/32 pixel, that is by up to 1/64 pixel along each axis, and a pixel may
    differ from its neighbour by 255 levels.
    """
    import cv2

    return 2 * 255 / 64 if int(cv2.__version__.split(".")[0]) < 5 else 0.0


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of annotated images in the datasets' own forms: the published samples, or else drawn ones."""
    published = SHARED_DATA / "samples"
    return published if published.is_dir() else draw_samples(tmp_path_factory.mktemp("samples"))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out the files that have `transformers` for a judge where it is not installed."""
    if collection_path.suffix != ".py" or importlib.util.find_spec("transformers") is not None:
        return None
    imports = r"^(import|from) transformers\b"
    return bool(re.search(imports, collection_path.read_text(encoding="utf-8"), re.MULTILINE)) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared_data)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random network of COCO's keypoints, whose maps and crops are read in no default way."""
    import torch

    import vitpose

    torch.manual_seed(3)
    backbone = vitpose.VitPoseBackboneConfig(
        image_size=(64, 48), hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    config = vitpose.VitPoseConfig.for_skeleton(vitpose.Skeleton.load("coco"), backbone_config=backbone)
    network = vitpose.VitPoseForPoseEstimation(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("networks") / "small"
    network.save_pretrained(folder)
    processor = vitpose.VitPoseImageProcessor(
        size=vitpose.Size(width=48, height=64), warp="plain", decode="quarter", shift_heatmap=True,
        image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.25),
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the tiny network as a file of a format; each is made once. Tests that change a file copy it."""
    import vitpose

    folder, done = tmp_path_factory.mktemp("exported"), {}
    endings = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}

    def export(to: str) -> Path:
        if to not in done:
            done[to] = vitpose.export(checkpoint, to, folder / f"small{endings[to]}").path
        return done[to]

    return export


class Program:
    """`vitpose` with some words, in a process of its own that needs no time to start.

    It is forked from one in which torch and Lightning are imported. Signals, exit codes and what is said are those of
    any process; what importing does is tested elsewhere.
    """

    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(
        ["vitpose.cli.train", "vitpose.training.loop", "vitpose.inference.loading", "pyarrow.parquet"]
    )

    def __init__(self, words: list[str], folder: Path, said: Path, largest: int | None = None) -> None:
        self._out, self._errors = said / "out.txt", said / "errors.txt"
        for file in (self._out, self._errors):
            file.touch()
        options = {
            "words": words,
            "folder": str(folder),
            "out": self._out,
            "errors": self._errors,
            "largest": largest,
        }
        path = Path(__file__).with_name("as_program.py")
        self._process = self.forks.Process(target=runpy.run_path, args=(str(path), options, "__main__"))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Returns how it ended, or None if it has not within the time."""
        self._process.join(timeout_s)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._errors.read_text()


@pytest.fixture
def start_vitpose(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Program]]:
    """Starts `vitpose` with some words in the test's folder; it is killed if the test ends before it."""
    started = []

    def start(words: list[str], **options: Any) -> Program:
        started.append(Program(words, tmp_path, tmp_path_factory.mktemp("said"), **options))
        return started[-1]

    yield start
    for program in started:
        if program.poll() is None:
            program.send_signal(signal.SIGKILL)
            program.wait()
