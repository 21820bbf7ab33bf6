"""The engines that run exported files, compared with torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

import vitpose
from vitpose.engines import check_engine, open_engine
from vitpose.engines.metadata import KEY
from vitpose.engines.openvino import shared_core
from vitpose.engines.protocol import Engine
from vitpose.engines.torch import has_bf16_units
from vitpose.errors import CheckpointError, InputError, MissingDependencyError, UnknownNameError

Export = Callable[[str], Path]
RUNS = [
    ("onnx", "auto", "float32"),
    ("onnx", "openvino", "float32"),
    ("openvino", "auto", "float32"),
    ("torch-export", "auto", "float32"),
    # The only one of these runtimes with a choice of dtype.
    pytest.param(
        "openvino", "auto", "bfloat16",
        marks=pytest.mark.skipif(not has_bf16_units(), reason="this processor has no bfloat16 units"),
    ),
]  # fmt: skip
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Tolerance relative to the maximum of torch's float32 heatmaps."""
FORMATS = ["onnx", "openvino", "torch-export"]


def crops(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 48, 3), np.uint8)


def torch_engine(checkpoint: Path) -> Engine:
    return vitpose.load(checkpoint, None, device="cpu", dtype="float32").estimator.engine


def copied(path: Path, folder: Path) -> Path:
    for file in path.parent.glob(f"{path.stem}.*"):
        if file.suffix in (path.suffix, ".bin"):
            shutil.copy(file, folder)
    return folder / path.name


def check_in_threads(engine: Engine) -> None:
    """Check that calls in four threads return the same as sequential calls."""
    batches = [crops(1 + seed % 3, seed) for seed in range(64)]
    expected = [engine.heatmaps(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engine.heatmaps, batches))
    for parallel, sequential in zip(found, expected, strict=True):
        np.testing.assert_allclose(parallel, sequential, atol=1e-5 * np.abs(sequential).max(), rtol=0)


@pytest.mark.parametrize(("to", "engine", "dtype"), RUNS)
class TestEveryEngine:
    def test_heatmaps_equal_torchs_for_any_number_of_crops(
        self, to: str, engine: str, dtype: str, checkpoint: Path, exported: Export
    ) -> None:
        runner, reference = (
            open_engine(exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export"),
            torch_engine(checkpoint),
        )
        assert isinstance(runner, Engine)
        for count in (1, 5, 2):
            expected = reference.heatmaps(crops(count))
            np.testing.assert_allclose(
                runner.heatmaps(crops(count)),
                expected,
                atol=TOLERANCE[dtype] * np.abs(expected).max(),
                rtol=0,
            )
        found = runner.heatmaps(crops(5))
        assert found.dtype == np.float32
        assert np.mean(found.view(np.uint32) & 0xFFFF == 0) < 0.2  # not rounded to bfloat16
        empty = runner.heatmaps(crops(0))
        assert (empty.shape, empty.dtype) == ((0, 17, 16, 12), np.float32)

    def test_a_result_is_not_overwritten_by_the_next_call(
        self, to: str, engine: str, dtype: str, exported: Export
    ) -> None:
        """Mirrored views of crops are accepted too."""
        runner = open_engine(exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export")
        first = runner.heatmaps(crops(2))
        kept = first.copy()
        runner.heatmaps(crops(2)[:, :, ::-1])
        np.testing.assert_array_equal(first, kept)

    def test_calls_in_several_threads(self, to: str, engine: str, dtype: str, exported: Export) -> None:
        check_in_threads(
            open_engine(exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export")
        )

    def test_the_file_is_all_that_loading_requires(
        self, to: str, engine: str, dtype: str, checkpoint: Path, exported: Export, tmp_path: Path
    ) -> None:
        pipe = vitpose.load(
            copied(exported(to), tmp_path),
            None,
            engine=engine,
            device="cpu",
            dtype=dtype,
            trust=to == "torch-export",
        )
        reference = vitpose.load(checkpoint, None, device="cpu", dtype="float32")
        assert pipe.estimator.spec == reference.estimator.spec
        assert pipe.estimator.skeleton == reference.estimator.skeleton
        image = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
        boxes = [[5, 5, 60, 80], [30.5, 10, 100, 85]]
        found, expected = (pipeline(image, boxes, flip_test=True) for pipeline in (pipe, reference))
        np.testing.assert_allclose(found.scores, expected.scores, rtol=TOLERANCE[dtype])
        # A random network has several peaks of almost equal height; the rounding of bfloat16 decides between them.
        if dtype == "float32":
            np.testing.assert_allclose(found.xy, expected.xy, atol=0.01)

    def test_description(self, to: str, engine: str, dtype: str, exported: Export) -> None:
        description = open_engine(
            exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export"
        ).description
        runtimes = {"openvino": "OpenVINO", "torch-export": "torch.export", "onnx": "ONNX Runtime"}
        assert description == f"{runtimes[engine if engine != 'auto' else to]}, cpu, {dtype}"


def test_calls_of_the_torch_engine_in_several_threads(checkpoint: Path) -> None:
    check_in_threads(torch_engine(checkpoint))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_checkpoint_is_converted(engine: str, checkpoint: Path) -> None:
    pipe = vitpose.load(checkpoint, None, engine=engine, device="cpu", dtype="float32")
    expected = torch_engine(checkpoint).heatmaps(crops(3))
    np.testing.assert_allclose(
        pipe.estimator.engine.heatmaps(crops(3)), expected, atol=1e-4 * np.abs(expected).max()
    )


def test_onnx_files_do_not_require_torch(exported: Export, tmp_path: Path) -> None:
    """From the file to drawn images, also on the command line, with importing torch made an error."""
    vitpose.save_image(tmp_path / "a.jpg", np.full((60, 50, 3), 90, np.uint8))
    code = f"""
import sys
for name in ("torch", "torchao", "transformers", "onnx", "onnxscript", "huggingface_hub", "safetensors"):
    sys.modules[name] = None
import vitpose
for engine in ("onnxruntime", "openvino"):
    pipe = vitpose.load({str(exported("onnx"))!r}, "whole-image", engine=engine, device="cpu")
    print(pipe({str(tmp_path / "a.jpg")!r}, flip_test=True).xy.shape)
from vitpose.cli import app
app(["predict", {str(tmp_path / "a.jpg")!r}, "--model", {str(exported("onnx"))!r}, "--detector", "whole-image",
     "--out", {str(tmp_path / "out")!r}])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:2] == ["(1, 17, 2)"] * 2
    assert (tmp_path / "out" / "a.jpg").is_file()


class TestUnsupportedCombinations:
    def test_engines(self, exported: Export, checkpoint: Path) -> None:
        with pytest.raises(UnknownNameError, match="unknown engine 'openvno'; did you mean openvino"):
            vitpose.load(checkpoint, None, engine="openvno")
        with pytest.raises(
            InputError,
            match=r"engine 'torch' does not run .*small.onnx, only onnxruntime, openvino can; use one",
        ):
            open_engine(exported("onnx"), "torch")
        with pytest.raises(InputError, match="engine 'tensorrt' does not run a checkpoint, only torch"):
            check_engine("tensorrt")

    @pytest.mark.parametrize("to", ["onnx", "torch-export"])
    def test_the_dtype_must_be_that_of_the_file(self, to: str, exported: Export) -> None:
        assert open_engine(exported(to), dtype="float32", device="cpu", trust=to == "torch-export")
        with pytest.raises(
            InputError, match=r"small.* runs in float32, not in bfloat16; leave dtype at 'auto'"
        ):
            open_engine(exported(to), dtype="bfloat16", device="cpu", trust=to == "torch-export")

    def test_dtypes_of_openvino(self, exported: Export) -> None:
        with pytest.raises(UnknownNameError, match="unknown dtype of OpenVINO 'float64'"):
            open_engine(exported("openvino"), dtype="float64")

    def test_devices(self, exported: Export) -> None:
        with pytest.raises(
            InputError, match=r"device 'cuda' is not available in OpenVINO .*, only .*cpu; use one"
        ):
            open_engine(exported("openvino"), device="cuda")
        with pytest.raises(InputError, match="unknown device 'tpu' for ONNX Runtime"):
            open_engine(exported("onnx"), device="tpu")

    def test_options_of_checkpoints(self, exported: Export, checkpoint: Path) -> None:
        with pytest.raises(
            InputError, match=r"dataset 2 is for checkpoints, but .*small.onnx is an exported"
        ):
            vitpose.load(exported("onnx"), None, dataset=2)
        with pytest.raises(InputError, match="quantization_config is for checkpoints"):
            vitpose.load(exported("onnx"), None, quantization_config="int8")
        with pytest.raises(InputError, match="quantization_config is for engine 'torch', not for 'openvino'"):
            vitpose.load(checkpoint, None, engine="openvino", quantization_config="int8")

    def test_skeletons(self, exported: Export) -> None:
        assert vitpose.load(exported("onnx"), None, skeleton="ap10k").estimator.skeleton.name == "ap10k"
        with pytest.raises(
            CheckpointError, match=r"the skeleton 'mpii' has 16 keypoints, the model's, 'coco', has 17"
        ):
            vitpose.load(exported("onnx"), None, skeleton="mpii")


@pytest.mark.parametrize("to", FORMATS)
class TestInvalidFiles:
    def test_missing(self, to: str, exported: Export, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"there is no file .*none"):
            vitpose.load(tmp_path / f"none{exported(to).suffix}", None, trust=to == "torch-export")

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.95])
    def test_truncated(self, to: str, share: float, exported: Export, tmp_path: Path) -> None:
        path = copied(exported(to), tmp_path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match=r"small.* (cannot be loaded|is not a complete program)"):
            vitpose.load(path, None, trust=to == "torch-export")

    def test_not_a_model(self, to: str, exported: Export, tmp_path: Path) -> None:
        path = tmp_path / f"text{exported(to).suffix}"
        path.write_text("hello")
        with pytest.raises(CheckpointError, match=r"text.* (cannot be loaded|is not a complete program)"):
            vitpose.load(path, None, trust=to == "torch-export")

    def test_without_metadata(self, to: str, exported: Export, tmp_path: Path) -> None:
        path = with_metadata(copied(exported(to), tmp_path), None)
        with pytest.raises(
            CheckpointError, match=r"has no metadata: its entry 'vitpose' with .* again with 'vitpose export'"
        ):
            vitpose.load(path, None, trust=to == "torch-export")

    def test_metadata_of_another_network(self, to: str, exported: Export, tmp_path: Path) -> None:
        table = json.loads(
            open_engine(exported(to), device="cpu", trust=to == "torch-export").metadata.to_json()
        )
        table["spec"]["input_size"] = {"height": 128, "width": 96}
        path = with_metadata(copied(exported(to), tmp_path), json.dumps(table))
        with pytest.raises(
            CheckpointError,
            match=r"has the input pixel_values \S+ x 3 x 64 x 48 and .* describes pixel_values b x 3 x 128 x 96",
        ):
            vitpose.load(path, None, trust=to == "torch-export")


def with_metadata(path: Path, text: str | None) -> Path:
    """Replace the metadata of a file in place."""
    if path.suffix == ".onnx":
        model = onnx.load(path)
        del model.metadata_props[:]
        if text:
            onnx.helper.set_model_props(model, {KEY: text})
        onnx.save(model, path)
    elif path.suffix == ".xml":
        model = shared_core().read_model(path)
        model.set_rt_info(text or "", [KEY])
        openvino.save_model(model, path, compress_to_fp16=False)
    else:
        rewrite(path, lambda name, data: (text or "").encode() if name.endswith("vitpose.json") else data)
    return path


def rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, change(name, data))
    return path


def test_truncated_or_missing_weights_of_openvino(exported: Export, tmp_path: Path) -> None:
    path = copied(exported("openvino"), tmp_path)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    message = r"It is damaged, or small.bin beside it is not the file written with it; export the model again"
    with pytest.raises(CheckpointError, match=message):
        vitpose.load(path, None)
    weights.unlink()
    with pytest.raises(CheckpointError, match=message):
        vitpose.load(path, None)


@pytest.mark.parametrize(
    ("to", "engine", "package", "install"),
    [
        ("onnx", "auto", "onnxruntime", r"'vitpose\[onnx\]'"),
        ("openvino", "auto", "openvino", r"'vitpose\[openvino\]'"),
        ("torch-export", "auto", "torch", "vitpose$"),
    ],
)
def test_a_missing_package_is_named(
    to: str, engine: str, package: str, install: str, exported: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(to)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"'{package}' is required .*pip install {install}"):
        open_engine(path, engine, trust=to == "torch-export")


class TestChecksBeforeAConversion:
    """Errors are raised before the work, and name the model: the user does not know the temporary file."""

    @pytest.mark.parametrize(
        ("engine", "package", "message"),
        [
            ("onnxruntime", "onnx", "'onnx' is required to convert nowhere for engine 'onnxruntime'"),
            ("openvino", "onnxscript", "'onnxscript' is required to convert nowhere for engine 'openvino'"),
            ("onnxruntime", "onnxruntime", "'onnxruntime' is required to run nowhere"),
            ("openvino", "openvino", "'openvino' is required to run nowhere with engine 'openvino'"),
        ],
    )
    def test_a_missing_package(
        self, engine: str, package: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingDependencyError, match=message):
            vitpose.load("nowhere", None, engine=engine)

    @pytest.mark.parametrize(
        ("engine", "options", "message"),
        [
            ("onnxruntime", {"dtype": "bfloat16"}, "nowhere runs in float32, not in bfloat16"),
            ("onnxruntime", {"device": "tpu"}, "unknown device 'tpu' for ONNX Runtime"),
            ("openvino", {"dtype": "float64"}, "unknown dtype of OpenVINO 'float64'"),
            ("openvino", {"device": "cuda"}, "device 'cuda' is not available in OpenVINO on this machine"),
        ],
    )
    def test_dtype_and_device(self, engine: str, options: dict[str, str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            vitpose.load("nowhere", None, engine=engine, **options)


def test_openvino_sends_no_telemetry() -> None:
    """The import would send it; the module that does so is not even loaded."""
    code = (
        "import sys\nfrom vitpose.engines.openvino import require_unreported\n"
        "require_unreported('openvino', 'openvino', 'here')\nprint('openvino_telemetry' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_signals_are_handled_after_openvino_engines_are_deleted(exported: Export) -> None:
    """Each core of OpenVINO replaces the alternate signal stack; deleting two cores leaves a freed one."""
    code = f"""
import faulthandler, os, signal
from vitpose.engines import open_engine
faulthandler.enable()  # installs an alternate signal stack
signal.signal(signal.SIGINT, lambda *_: print("handled"))
first = open_engine({str(exported("openvino"))!r}, device="cpu")
second = open_engine({str(exported("openvino"))!r}, device="cpu")
del first
del second
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
