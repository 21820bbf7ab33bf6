"""Loads pipelines by name: the only module that knows every engine and every detector."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..detectors import DetectFunction, Detector, check_selection, load_detector
from ..detectors.labels import Labels
from ..engines import check_conversion, check_engine, check_trust, is_exported, open_engine
from ..engines.metadata import Metadata
from ..errors import InputError, require
from ..files.hub import ModelFiles, resolve
from ..files.registry import DEFAULT_DETECTOR, DEFAULT_MODEL
from ..hardware.devices import choose_device
from ..keypoints.model_spec import ModelSpec
from ..keypoints.skeleton import Skeleton
from .estimator import Estimator, MixedEstimator
from .pipeline import Pipeline

if TYPE_CHECKING:
    from ..engines.protocol import Engine
    from ..model.checkpoint import Checkpoint

_DEFAULT_CLASSES = ("person",)
"""Classes to detect for a dataset that declares none."""


def load(
    model: str | Path = DEFAULT_MODEL,
    detector: str | Path | Detector | DetectFunction | None = DEFAULT_DETECTOR,
    *,
    dataset: str | int | Sequence[str | int] | None = None,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    skeleton: str | Path | Skeleton | None = None,
    labels: Labels = None,
    min_score: float | None = None,
    batch_size: int = 32,
    compile: bool = False,
    quantization_config: Any = None,
    trust: bool = False,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Pipeline:
    """Loads a model and a detector as a pipeline.

    Args:
        model: A short name (`vitpose models` lists them), a directory, a hub repository, an original `.pth` file, or
            a file that `export` wrote (`.onnx`, `.xml`, `.pt2`, `.engine`).
        detector: Detects the boxes: a short name ("person", "rtdetr", "rtmdet-nano"; `vitpose models` lists them),
            "rtdetr:NAME", "onnx:FILE", "boxes:FILE" (COCO detections or annotations), "whole-image" (one person per
            image), or None if boxes are always given. Or a detector of your own: any function from an RGB image
            (h w 3) to its boxes, n x 4 (xyxy, px), an empty list or `supervision.Detections`; or an object with
            `detect`, see `vitpose.detectors.Detector`.
        dataset: Dataset of a ViTPose++ model, by name ("ap10k") or index, which selects expert, head, skeleton and
            processing; default: the first one, COCO. Several, such as ["coco", "ap10k"], find people and animals in
            one call: each box goes to the first dataset that has its class. For a file with one head that does not
            record its dataset (an original `.pth`), the dataset it was trained on.
        engine: Runs the network: "torch", "onnxruntime", "openvino", "tensorrt"; "auto" is the runtime of an exported
            file, and torch for a checkpoint. Checkpoints are converted for the other runtimes.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps"; with OpenVINO "cpu", "gpu", "npu".
        dtype: "auto" (bfloat16 on a GPU or CPU with bfloat16 units, else float32; always the same on a machine) or
            the name of a type. Heatmaps are float32 in any case. The engine's description shows the choice.
        skeleton: Names and edges of the keypoints; default: those of the model.
        labels: Classes to detect, by the detector's names (COCO's); "dataset": those of the dataset ("person" if it
            names none); "all": every class. Default: "dataset", and "all" for a detector of your own.
        min_score: Boxes with a lower score are dropped, 0 to 1; default: that of the detector.
        batch_size: Maximum number of crops in a batch.
        compile: Compile the network: the first batch of each size takes a minute, later ones are faster.
        quantization_config: Quantisation of torch's weights; see `VitPoseForPoseEstimation.from_pretrained`.
        trust: Load a `.pt2` file, which can run arbitrary code. No other file can.
        subfolder: Subdirectory of the model's directory or repository with its files.
        revision: Branch, tag or commit of the model's hub repository.
        token: Access token of the hub; True: the stored one.
        cache_dir: Directory of downloaded models; default: the hub's cache.
        local_files_only: Do not download the model.

    Returns:
        The pipeline; one for several datasets returns `MixedPoses`.

    Raises:
        UnknownNameError: The model, detector, engine, device, type, skeleton or a label is unknown.
        InputError: The model has no such dataset; engine, device and type cannot be combined; labels or min_score
            are invalid, or passed without a detector to filter (None, "whole-image"); an argument for checkpoints
            is passed with an exported file; or a `.pt2` file is loaded without `trust`.
        CheckpointError: Files are missing, damaged or inconsistent, or lack the dataset's head.
        MissingDependencyError: The runtime or the detector's package is not installed.
    """
    check_selection(detector, labels, min_score)
    hub = _hub_arguments(subfolder, revision, token, cache_dir, local_files_only)
    chosen = None if skeleton is None else Skeleton.load(skeleton)
    runtime = check_engine(engine, model if is_exported(model) else None)
    if is_exported(model):
        given = {
            f"dataset {dataset!r}": dataset is not None,
            "quantization_config": quantization_config is not None,
            "compile": compile,
        }
        _refuse_checkpoint_arguments(model, [*(name for name, is_given in given.items() if is_given), *hub])
        exported = open_engine(model, runtime, device=device, dtype=dtype, trust=trust)
        parts: list[tuple[Engine, ModelSpec]] = [(exported, exported.metadata.spec)]
    else:
        check_trust(model, trust)
        require("torch", None, f"to load the checkpoint {model}; .onnx and .xml files run without it")
        parts = _load_checkpoint(model, runtime, device, dtype, dataset, quantization_config, compile, hub)
    if chosen is not None and len(parts) > 1:
        raise InputError(f"the skeleton {chosen.name!r} was passed for several datasets; omit it")
    estimators = {}
    for runner, spec in parts:
        spec = spec if chosen is None else spec.with_skeleton(chosen)
        estimators[spec.dataset.name] = Estimator(runner, spec, batch_size)
    several = dataset is not None and not isinstance(dataset, str | int)
    estimator = MixedEstimator(estimators) if several else next(iter(estimators.values()))
    # The detector last: it may be a download, and all other arguments have been checked by now.
    return Pipeline(
        _load_detector(detector, estimators.values(), runtime, device, labels, min_score), estimator
    )


def _load_detector(
    detector: str | Path | Detector | DetectFunction | None,
    estimators: Iterable[Estimator],
    runtime: str,
    device: str,
    labels: Labels,
    min_score: float | None,
) -> Detector | DetectFunction | None:
    """Returns the detector for the classes of the estimators' datasets, on the device of the network."""
    if detector is None:
        return None
    labels_of = (estimator.spec.dataset.classes for estimator in estimators)
    classes = tuple(dict.fromkeys(chain.from_iterable(labels_of))) or _DEFAULT_CLASSES
    # Only OpenVINO has the devices "gpu" and "npu".
    device = "auto" if runtime == "openvino" and device != "cpu" else device
    return load_detector(detector, device=device, labels=labels, min_score=min_score, dataset_labels=classes)


def _hub_arguments(
    subfolder: str,
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | Path | None,
    local_only: bool,
) -> dict[str, Any]:
    """Returns those arguments of `resolve` that are given."""
    given = {"subfolder": subfolder, "revision": revision, "token": token, "cache_dir": cache_dir}
    return {name: value for name, value in given.items() if value} | (
        {"local_files_only": True} if local_only else {}
    )


def _refuse_checkpoint_arguments(model: str | Path, given: Sequence[str]) -> None:
    """Raises for arguments that apply to checkpoints only."""
    if given:
        raise InputError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for checkpoints, but {model} is an exported "
            "file; omit the argument, or export the checkpoint again"
        )


def _load_checkpoint(
    model: str | Path,
    runtime: str,
    device: str,
    dtype: str,
    dataset: str | int | Sequence[str | int] | None,
    quantization_config: Any,
    compiled: bool,
    hub: dict[str, Any],
) -> list[tuple[Engine, ModelSpec]]:
    """Returns engine and spec for each of the datasets."""
    from ..engines.accelerator import DeviceEngine
    from ..engines.cpu_threads import one_thread_if_forked
    from ..engines.torch import TorchEngine, choose_dtype
    from ..model.checkpoint import read_parts, read_spec
    from ..model.pose import VitPoseForPoseEstimation
    from ..model.quantisation import quantise

    if runtime != "torch":
        _refuse_torch_arguments(runtime, quantization_config, compiled)
        check_conversion(model, runtime, device, dtype)
        files = resolve(model, **hub)
        return [_convert(part, files, runtime, device, dtype) for part in read_parts(files, dataset)]
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    files = resolve(model, **hub)
    kind = TorchEngine if torch_device.type == "cpu" else DeviceEngine
    found: list[tuple[Engine, ModelSpec]] = []
    with one_thread_if_forked():  # converting weights uses torch's threads too
        for part in read_parts(files, dataset):
            network = VitPoseForPoseEstimation.from_checkpoint(part, dtype=torch_dtype, device=torch_device)
            spec = read_spec(files, network.config)
            if quantization_config is not None:
                quantise(network, quantization_config)
            found.append((kind(network, spec, compiled), spec))
    return found


def _refuse_torch_arguments(runtime: str, quantization_config: Any, compiled: bool) -> None:
    if quantization_config is not None:
        raise InputError(
            f"quantization_config is for engine 'torch', not for {runtime!r}; write an int8 file with "
            "'vitpose export --int8'"
        )
    if compiled:
        raise InputError(
            f"compile is for engine 'torch', not for {runtime!r}, which always compiles; omit it"
        )


def _convert(
    part: Checkpoint, files: ModelFiles, runtime: str, device: str, dtype: str
) -> tuple[Engine, ModelSpec]:
    """Returns the engine of another runtime for a checkpoint, and its spec."""
    from ..exporters.conversion import write_onnx
    from ..model.checkpoint import read_spec
    from ..model.pose import VitPoseForPoseEstimation

    network = VitPoseForPoseEstimation.from_checkpoint(part)
    spec = read_spec(files, network.config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, Metadata(files.name, "float32", spec), path)
        return open_engine(path, runtime, device=device, dtype=dtype), spec
