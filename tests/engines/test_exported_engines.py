"""The engines that run exported files, with torch as the judge of what they give."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

import vitpose
from vitpose.engines import check_engine, open_engine
from vitpose.engines.metadata import KEY, Metadata
from vitpose.engines.openvino import shared_core
from vitpose.engines.protocol import Engine
from vitpose.engines.tensorrt import pack, unpack
from vitpose.engines.torch import has_bf16_units
from vitpose.errors import CheckpointError, InputError, MissingDependencyError, UnknownNameError

Export = Callable[[str], Path]
RUNS = [
    ("onnx", "auto", "float32"),
    ("onnx", "openvino", "float32"),
    ("openvino", "auto", "float32"),
    ("torch-export", "auto", "float32"),
    # The only runtime of these that chooses the type itself.
    pytest.param(
        "openvino", "auto", "bfloat16",
        marks=pytest.mark.skipif(not has_bf16_units(), reason="this processor has no bfloat16 units"),
    ),
]  # fmt: skip
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""How far from torch's float32 heatmaps, relative to their maximum."""
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


def check_in_threads(runner: Engine) -> None:
    """Makes sure that calls in four threads at a time give what calls in turn give."""
    work = [crops(1 + seed % 3, seed) for seed in range(64)]
    wanted = [runner.heatmaps(own) for own in work]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(runner.heatmaps, work))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max(), rtol=0)


@pytest.mark.parametrize(("to", "engine", "dtype"), RUNS)
class TestEveryEngine:
    def test_gives_what_torch_gives_for_any_number_of_crops(
        self, to: str, engine: str, dtype: str, checkpoint: Path, exported: Export
    ) -> None:
        runner, judge = (
            open_engine(exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export"),
            torch_engine(checkpoint),
        )
        assert isinstance(runner, Engine)
        for count in (1, 5, 2):
            wanted = judge.heatmaps(crops(count))
            np.testing.assert_allclose(
                runner.heatmaps(crops(count)), wanted, atol=TOLERANCE[dtype] * np.abs(wanted).max(), rtol=0
            )
        found = runner.heatmaps(crops(5))
        assert found.dtype == np.float32
        assert np.mean(found.view(np.uint32) & 0xFFFF == 0) < 0.2  # not rounded to bfloat16
        none = runner.heatmaps(crops(0))
        assert (none.shape, none.dtype) == ((0, 17, 16, 12), np.float32)

    def test_keeps_its_answers(self, to: str, engine: str, dtype: str, exported: Export) -> None:
        """No answer lies in memory that the next one is written to; mirrored views of crops are taken too."""
        runner = open_engine(exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export")
        first = runner.heatmaps(crops(2))
        kept = first.copy()
        runner.heatmaps(crops(2)[:, :, ::-1])
        np.testing.assert_array_equal(first, kept)

    def test_several_threads_get_each_their_own_answer(
        self, to: str, engine: str, dtype: str, exported: Export
    ) -> None:
        check_in_threads(
            open_engine(exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export")
        )

    def test_loads_by_its_file_alone(
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
        judge = vitpose.load(checkpoint, None, device="cpu", dtype="float32")
        assert pipe.estimator.processor == judge.estimator.processor
        assert pipe.estimator.skeleton == judge.estimator.skeleton
        image = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
        boxes = [[5, 5, 60, 80], [30.5, 10, 100, 85]]
        found, wanted = (own(image, boxes, flip_test=True) for own in (pipe, judge))
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=TOLERANCE[dtype])
        if (
            dtype == "float32"
        ):  # a random network has peaks of almost equal height, which rounding makes change places
            np.testing.assert_allclose(found.xy, wanted.xy, atol=0.01)

    def test_says_what_it_is(self, to: str, engine: str, dtype: str, exported: Export) -> None:
        description = open_engine(
            exported(to), engine, device="cpu", dtype=dtype, trust=to == "torch-export"
        ).description
        runtimes = {"openvino": "OpenVINO", "torch-export": "torch.export", "onnx": "ONNX Runtime"}
        assert description == f"{runtimes[engine if engine != 'auto' else to]}, cpu, {dtype}"


def test_several_threads_get_each_their_own_answer_of_torch(checkpoint: Path) -> None:
    check_in_threads(torch_engine(checkpoint))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_checkpoint_is_converted(engine: str, checkpoint: Path) -> None:
    pipe = vitpose.load(checkpoint, None, engine=engine, device="cpu", dtype="float32")
    wanted = torch_engine(checkpoint).heatmaps(crops(3))
    np.testing.assert_allclose(
        pipe.estimator.engine.heatmaps(crops(3)), wanted, atol=1e-4 * np.abs(wanted).max()
    )


def test_onnx_needs_no_torch(exported: Export, tmp_path: Path) -> None:
    """From the file to drawn images, on the command line too, where importing torch is an error."""
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


class TestWhatDoesNotGoTogether:
    def test_engines_by_name(self, exported: Export, checkpoint: Path) -> None:
        with pytest.raises(UnknownNameError, match="unknown engine 'openvno'; did you mean openvino"):
            vitpose.load(checkpoint, None, engine="openvno")
        with pytest.raises(
            InputError, match=r"engine 'torch' does not run .*small.onnx, but onnxruntime, openvino"
        ):
            open_engine(exported("onnx"), "torch")
        with pytest.raises(InputError, match="engine 'tensorrt' does not run a checkpoint, but torch"):
            check_engine("tensorrt")

    @pytest.mark.parametrize("to", ["onnx", "torch-export"])
    def test_the_type_is_the_files(self, to: str, exported: Export) -> None:
        assert open_engine(exported(to), dtype="float32", device="cpu", trust=to == "torch-export")
        with pytest.raises(
            InputError, match=r"small.* runs in float32, not in bfloat16; leave dtype at 'auto'"
        ):
            open_engine(exported(to), dtype="bfloat16", device="cpu", trust=to == "torch-export")

    def test_openvino_is_told_the_type(self, exported: Export) -> None:
        with pytest.raises(UnknownNameError, match="unknown dtype of OpenVINO 'float64'"):
            open_engine(exported("openvino"), dtype="float64")

    def test_devices(self, exported: Export) -> None:
        with pytest.raises(InputError, match=r"device 'cuda' cannot be used by OpenVINO here; it has .*cpu"):
            open_engine(exported("openvino"), device="cuda")
        with pytest.raises(InputError, match="device 'tpu' is not understood"):
            open_engine(exported("onnx"), device="tpu")

    def test_what_is_for_checkpoints(self, exported: Export, checkpoint: Path) -> None:
        with pytest.raises(
            InputError, match=r"dataset 2 is for checkpoints, and .*small.onnx is an exported"
        ):
            vitpose.load(exported("onnx"), None, dataset=2)
        with pytest.raises(InputError, match="quantization_config is for checkpoints"):
            vitpose.load(exported("onnx"), None, quantization_config="whatever it is")
        with pytest.raises(InputError, match="quantization_config is for engine 'torch', not for 'openvino'"):
            vitpose.load(checkpoint, None, engine="openvino", quantization_config="whatever it is")

    def test_another_skeleton(self, exported: Export) -> None:
        assert vitpose.load(exported("onnx"), None, skeleton="ap10k").estimator.skeleton.name == "ap10k"
        with pytest.raises(
            CheckpointError, match=r"the skeleton 'mpii' has 16 keypoints, the model .* has 17"
        ):
            vitpose.load(exported("onnx"), None, skeleton="mpii")


@pytest.mark.parametrize("to", FORMATS)
class TestBadFiles:
    def test_missing(self, to: str, exported: Export, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"there is no file .*none"):
            vitpose.load(tmp_path / f"none{exported(to).suffix}", None, trust=to == "torch-export")

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.95])
    def test_truncated(self, to: str, share: float, exported: Export, tmp_path: Path) -> None:
        path = copied(exported(to), tmp_path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match=r"small.* (cannot be loaded|is not a whole program)"):
            vitpose.load(path, None, trust=to == "torch-export")

    def test_something_else(self, to: str, exported: Export, tmp_path: Path) -> None:
        path = tmp_path / f"text{exported(to).suffix}"
        path.write_text("hello")
        with pytest.raises(CheckpointError, match=r"text.* (cannot be loaded|is not a whole program)"):
            vitpose.load(path, None, trust=to == "torch-export")

    def test_without_metadata(self, to: str, exported: Export, tmp_path: Path) -> None:
        path = with_metadata(copied(exported(to), tmp_path), None)
        with pytest.raises(
            CheckpointError, match=r"no entry 'vitpose' with the skeleton, .* 'vitpose export' writes"
        ):
            vitpose.load(path, None, trust=to == "torch-export")

    def test_metadata_of_another_network(self, to: str, exported: Export, tmp_path: Path) -> None:
        table = json.loads(
            open_engine(exported(to), device="cpu", trust=to == "torch-export").metadata.to_json()
        )
        table["processor"]["size"] = {"height": 128, "width": 96}
        path = with_metadata(copied(exported(to), tmp_path), json.dumps(table))
        with pytest.raises(
            CheckpointError,
            match=r"takes pixel_values \S+ x 3 x 64 x 48 and .* promises pixel_values b x 3 x 128 x 96",
        ):
            vitpose.load(path, None, trust=to == "torch-export")


def with_metadata(path: Path, text: str | None) -> Path:
    """Replaces the metadata of a file in place."""
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


def test_weights_of_openvino_that_are_cut_or_gone(exported: Export, tmp_path: Path) -> None:
    path = copied(exported("openvino"), tmp_path)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    message = r"It is damaged, or small.bin beside it is not the file it was written with"
    with pytest.raises(CheckpointError, match=message):
        vitpose.load(path, None)
    weights.unlink()
    with pytest.raises(CheckpointError, match=message):
        vitpose.load(path, None)


class TestMetadata:
    def sheet(self) -> Metadata:
        bones = vitpose.Skeleton("two", ("left_end", "right_end"), ((0, 1),), ((0, 1),), sigmas=(0.1, 0.2))
        processor = vitpose.VitPoseImageProcessor(
            size=vitpose.Size(width=48, height=64), warp="plain", max_step=None
        )
        return Metadata("m", "float32", processor, bones)

    def test_round_trip(self) -> None:
        assert Metadata.from_json(self.sheet().to_json(), "x") == self.sheet()
        for name in vitpose.Skeleton.available():
            bones = vitpose.Skeleton.load(name)
            assert vitpose.Skeleton.from_dict(bones.to_dict()) == bones

    def test_the_data_set_travels_in_the_file(self) -> None:
        own = vitpose.DatasetSpec.load("aic")
        sheet = replace(self.sheet(), dataset=own)
        assert Metadata.from_json(sheet.to_json(), "x").dataset_spec == own
        assert self.sheet().dataset_spec.skeleton == self.sheet().skeleton

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format": 2}, "'vitpose' of x cannot be used: it is of format 2, this vitpose reads 1; update"),
            ({"format": True}, "cannot be used: it: .*format.*True"),
            ({"skeleton": None}, "cannot be used: it: skeleton is missing; 'vitpose export' writes"),
            ({"sceleton": {}}, "cannot be used: it: unknown key 'sceleton'; did you mean skeleton"),
            (
                {"skeleton": {"name": "a", "keypoints": ["b"], "edgez": []}},
                "unknown key 'edgez'; did you mean edges",
            ),
            ({"skeleton": {"name": "a", "keypoints": []}}, "keypoints"),
            ({"dataset": {"name": "a"}}, r"dataset\.skeleton is missing"),
            ({"dataset": {"name": "a", "skeleton": "/etc/passwd"}}, r"dataset\.skeleton is '/etc/passwd'"),
            ({"dataset": 5}, r"dataset\b.* 5"),
            ({"processor": {"warp": "upd"}}, "cannot be used: unknown warp 'upd'"),
            ({"processor": 3}, "processor.* 3"),
            ({"processor": {"size": {"height": 32000, "width": 32000}}}, "32000"),
            ({"processor": {"image_std": [0, 1, 1]}}, "image_std"),
            ({"processor": {"max_step": "x"}}, "max_step"),
            (
                {"precision": "int4"},
                "precision.*'int4'.*float32",
            ),
            ({"precision": 32}, "precision is 32"),
            ({"model": 7}, "model is 7; input should be a valid string"),
            ({"model": "m" * 1001}, "string should have at most 1000 characters"),
        ],
    )
    def test_what_is_wrong_with_it(self, change: dict[str, object], message: str) -> None:
        table = {**json.loads(self.sheet().to_json()), **change}
        table = {name: value for name, value in table.items() if value is not None}
        with pytest.raises(CheckpointError, match=message):
            Metadata.from_json(json.dumps(table), "x")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "it is not valid JSON"),
            ("[1]", r"it: \[1\]"),
            ('{"format": NaN}', "NaN is not a JSON number"),
            ("[" * 200_000, "it is nested too deeply"),
            (f'{{"format": {"1" * 5000}}}', "it is not valid JSON: .*digits"),
            (" " * 2**20 + "{}", "it has 1048578 bytes; a file of this kind may have 1048576 at most"),
        ],
    )
    def test_what_is_no_table(self, text: str, message: str) -> None:
        with pytest.raises(CheckpointError, match=rf"the entry 'vitpose' of x cannot be used: .*{message}"):
            Metadata.from_json(text, "x")

    @pytest.mark.parametrize(
        ("taken", "given", "message"),
        [
            (["b", 3, 64, 48], ["b", 2, 16, 12], None),
            ([-1, 3, 64, 48], [-1, 2, 16, 12], None),
            ([1, 3, 64, 48], [1, 2, 16, 12], "takes pixel_values 1 x 3 x 64 x 48 .* any number of crops"),
            (["b", 3, 64, 48], [10**9, 2, 16, 12], "any number of crops"),
            (["b", 3, 64, 48], ["b", 2, "h", 12], "heatmaps of a fixed size, 48x64 at most"),
            (["b", 3, 64, 48], ["b", 2, 65, 12], "heatmaps of a fixed size, 48x64 at most"),
            (["b", 3, 64, 48], ["b", 3, 16, 12], "but its metadata promises"),
            (["b", 3, 64, 48], ["b"], "but its metadata promises"),
        ],
    )
    def test_shapes(self, taken: list[object], given: list[object], message: str | None) -> None:
        shapes = [("pixel_values", taken)], [("heatmaps", given)]
        if message is None:
            assert self.sheet().check_shapes(*shapes, "x") == (2, 16, 12)
        else:
            with pytest.raises(CheckpointError, match=message):
                self.sheet().check_shapes(*shapes, "x")

    def test_in_front_of_a_plan(self, tmp_path: Path) -> None:
        """Of TensorRT only this can be tested without a GPU."""
        path = tmp_path / "x.engine"
        path.write_bytes(pack(self.sheet(), b"plan"))
        assert unpack(path) == (self.sheet(), b"plan")
        with pytest.raises(InputError, match=r"x.engine runs in float32, not in int8"):
            open_engine(path, dtype="int8")
        path.write_bytes(b"plan")
        with pytest.raises(CheckpointError, match=r"x.engine does not say how it is to be used"):
            open_engine(path)
        with pytest.raises(CheckpointError, match=r"there is no file .*y.engine"):
            open_engine(tmp_path / "y.engine")


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
    with pytest.raises(MissingDependencyError, match=rf"'{package}' is needed .*pip install {install}"):
        open_engine(path, engine, trust=to == "torch-export")


class TestBeforeACheckpointIsConverted:
    """What cannot be is said at once, and of the model: nobody knows the file that would be made of it."""

    @pytest.mark.parametrize(
        ("engine", "package", "message"),
        [
            ("onnxruntime", "onnx", "'onnx' is needed to convert nowhere for engine 'onnxruntime'"),
            ("openvino", "onnxscript", "'onnxscript' is needed to convert nowhere for engine 'openvino'"),
            ("onnxruntime", "onnxruntime", "'onnxruntime' is needed to run nowhere"),
            ("openvino", "openvino", "'openvino' is needed to run nowhere with engine 'openvino'"),
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
            ("onnxruntime", {"device": "tpu"}, "device 'tpu' is not understood"),
            ("openvino", {"dtype": "float64"}, "unknown dtype of OpenVINO 'float64'"),
            ("openvino", {"device": "cuda"}, "device 'cuda' cannot be used by OpenVINO here"),
        ],
    )
    def test_type_and_device(self, engine: str, options: dict[str, str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            vitpose.load("nowhere", None, engine=engine, **options)


@pytest.mark.parametrize(
    ("package", "install"), [("tensorrt", r"'vitpose\[tensorrt\]'"), ("torch", "vitpose$")]
)
def test_what_tensorrt_needs_is_named(
    package: str, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "x.engine"
    path.write_bytes(pack(TestMetadata().sheet(), b"plan"))
    with pytest.raises(
        MissingDependencyError, match=rf"'{package}' is needed to run .*pip install {install}"
    ):
        open_engine(path)


def test_openvino_reports_to_nobody() -> None:
    """Its import would send a report of use; the module that sends it is not even loaded."""
    code = (
        "import sys\nfrom vitpose.engines.openvino import require_unreported\n"
        "require_unreported('openvino', 'openvino', 'here')\nprint('openvino_telemetry' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_signals_are_handled_after_openvino_engines_are_gone(exported: Export) -> None:
    """Each core of OpenVINO moves the stack of signal handlers; two that go in turn leave it nowhere."""
    code = f"""
import faulthandler, os, signal
from vitpose.engines import open_engine
faulthandler.enable()  # gives handlers a stack of their own
signal.signal(signal.SIGINT, lambda *_: print("handled"))
first = open_engine({str(exported("openvino"))!r}, device="cpu")
second = open_engine({str(exported("openvino"))!r}, device="cpu")
del first
del second
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
