"""Loads pipelines and exports models by name: the only module that knows every engine and every detector."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..detectors import DetectFunction, Detector, check_selection, load_detector
from ..detectors.labels import Labels
from ..engines import check_conversion, check_engine, check_trust, is_exported, open_engine
from ..engines.metadata import Metadata
from ..errors import CheckpointError, InputError, require
from ..files.registry import DEFAULT_DETECTOR, DEFAULT_MODEL
from ..geometry.boxes import Size
from ..hardware.devices import choose_device
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.skeleton import Skeleton
from ..processing.image_processor import PROCESSOR_FILE, VitPoseImageProcessor
from .estimator import Estimator, MixedEstimator
from .pipeline import Pipeline

if TYPE_CHECKING:
    from ..engines.protocol import Engine
    from ..exporters.export import Exported
    from ..model.checkpoint import Checkpoint
    from ..model.pose import VitPoseForPoseEstimation

_DEFAULT_CLASSES = ("person",)
"""Classes to detect for a dataset that declares none."""

_DATASET_KEYS = ("warp", "aspect", "decode", "shift_heatmap")
"""Settings that a processor takes from the declaration of its dataset."""

Found = tuple["Engine", VitPoseImageProcessor, DatasetSpec]
"""The engine of a network, its processor, and the dataset it was trained on."""


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
        detector: Detects the boxes: a short name ("rtdetr", "rtmdet-nano", "yolox-nano"; `vitpose models` lists them),
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
        parts: list[Found] = [(exported, exported.metadata.processor, exported.metadata.dataset_spec)]
    else:
        check_trust(model, trust)
        parts = _load_checkpoint(model, runtime, device, dtype, dataset, quantization_config, compile, **hub)
    if chosen is not None and len(parts) > 1:
        raise InputError(f"the skeleton {chosen.name!r} was passed for several datasets; omit it")
    estimators = {}
    for runner, processor, spec in parts:
        spec = _with_skeleton(spec, chosen, model)
        estimators[spec.name] = Estimator(runner, processor, spec.skeleton, batch_size, spec)
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
    specs = [estimator.dataset_spec for estimator in estimators if estimator.dataset_spec is not None]
    classes = tuple(dict.fromkeys(label for spec in specs for label in spec.classes)) or _DEFAULT_CLASSES
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
    """Returns those arguments of `find_file` that are given."""
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
    **hub: Any,
) -> list[Found]:
    """Returns engine, processor and dataset for each of the datasets."""
    _require_torch(model)
    from ..engines.accelerator import DeviceEngine
    from ..engines.side_by_side import one_thread_if_forked
    from ..engines.torch import TorchEngine, choose_dtype
    from ..model.pose import VitPoseForPoseEstimation
    from ..model.quantisation import quantise

    if runtime != "torch":
        _refuse_torch_arguments(runtime, quantization_config, compiled)
        check_conversion(model, runtime, device, dtype)
        return [
            _convert(part, model, runtime, device, dtype, hub) for part in _read_parts(model, dataset, hub)
        ]
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    kind = TorchEngine if torch_device.type == "cpu" else DeviceEngine
    found: list[Found] = []
    with one_thread_if_forked():  # converting weights uses torch's threads too
        for part in _read_parts(model, dataset, hub):
            network = VitPoseForPoseEstimation.from_checkpoint(part, dtype=torch_dtype, device=torch_device)
            processor = load_processor(model, network, **hub)
            if quantization_config is not None:
                quantise(network, quantization_config)
            engine = kind(network, *processor.scale_and_offset, compiled)
            found.append((engine, processor, network.config.heads[0]))
    return found


def _require_torch(model: str | Path) -> None:
    require("torch", None, f"to load the checkpoint {model}; .onnx and .xml files run without it")


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
    part: Checkpoint, model: str | Path, runtime: str, device: str, dtype: str, hub: dict[str, Any]
) -> Found:
    """Returns the engine of another runtime for a checkpoint, with its processor and dataset."""
    from ..exporters.conversion import write_onnx
    from ..model.pose import VitPoseForPoseEstimation

    network = VitPoseForPoseEstimation.from_checkpoint(part)
    processor, spec = load_processor(model, network, **hub), network.config.heads[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, Metadata(str(model), "float32", processor, spec.skeleton, spec), path)
        return open_engine(path, runtime, device=device, dtype=dtype), processor, spec


def _read_parts(
    model: str | Path, dataset: str | int | Sequence[str | int] | None, hub: dict[str, Any]
) -> list[Checkpoint]:
    """Returns one dense checkpoint for each dataset; they share their equal tensors."""
    from ..model.checkpoint import read_checkpoint

    if isinstance(dataset, str | int):
        return [read_checkpoint(model, dataset=dataset, **hub)]
    whole = read_checkpoint(model, **hub)
    if dataset is not None:
        return [whole.for_dataset(name) for name in dataset]
    several = whole.config.num_experts > 1 or len(whole.config.datasets) > 1
    return [whole.for_dataset(0) if several else whole]


def _with_skeleton(spec: DatasetSpec, skeleton: Skeleton | None, model: str | Path) -> DatasetSpec:
    if skeleton is None:
        return spec
    if len(skeleton) != len(spec.skeleton):
        raise CheckpointError(
            f"the skeleton {skeleton.name!r} has {len(skeleton)} keypoints, the model {str(model)!r} has "
            f"{len(spec.skeleton)}; pass the skeleton the model was trained on"
        )
    return replace(spec, skeleton=skeleton)


def load_network(
    model: str | Path, dtype: str, device: Any, dataset: str | int | None, **hub: Any
) -> VitPoseForPoseEstimation:
    """Returns the dense network of a dataset.

    Args:
        model: As in `load`, but not an exported file.
        dtype: Type of the parameters, by name.
        device: Device of the parameters, by name or as a torch.device.
        dataset: Dataset by name or index; default: the first one.
        **hub: As in `load`.

    Raises:
        UnknownNameError: The model or dataset is unknown.
        InputError: The model has no such dataset.
        CheckpointError: Files are missing, damaged or inconsistent, or lack the dataset's head.
        MissingDependencyError: torch is not installed.
    """
    _require_torch(model)
    from ..model.pose import VitPoseForPoseEstimation

    (part,) = _read_parts(model, dataset, hub)
    return VitPoseForPoseEstimation.from_checkpoint(part, dtype=dtype, device=device)


def export(
    model: str | Path = DEFAULT_MODEL,
    to: str = "onnx",
    out: str | Path | None = None,
    *,
    dataset: str | int | None = None,
    skeleton: str | Path | Skeleton | None = None,
    calibrate: str | Path | None = None,
    force: bool = False,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Exported:
    """Writes a model as a self-contained file for another runtime, which `load` opens.

    The file takes batches of any size. Before it is written, it is run and its heatmaps are compared with torch's.

    Args:
        model: As in `load`, but not an exported file.
        to: "onnx", "openvino", "torch-export" or "tensorrt".
        out: Path of the file; default: the name of the model, with the dataset if one is given, in the working
            directory.
        dataset: Dataset of a ViTPose++ model, by name or index; the file holds its dense network. Default: the first.
        skeleton: As in `load`.
        calibrate: Quantise to int8, with ranges measured on these people: annotations (FILE, or FILE=DIRECTORY with
            the directory of the images), or images of one person each (a directory, a glob). Default: no
            quantisation.
        force: Replace an existing file.
        subfolder: As in `load`.
        revision: As in `load`.
        token: As in `load`.
        cache_dir: As in `load`.
        local_files_only: As in `load`.

    Returns:
        The file that was written, with its deviation from torch.

    Raises:
        UnknownNameError: The model, dataset, skeleton or format is unknown.
        InputError: The file exists or has the wrong suffix, the format has no int8, or `model` is an exported file.
        CheckpointError: The model's files are inconsistent, or the heatmaps of the exported file differ from torch's.
        MissingDependencyError: The package that writes the format is not installed.
        OutputError: The file cannot be written.
    """
    hub = _hub_arguments(subfolder, revision, token, cache_dir, local_files_only)
    if is_exported(model):
        raise InputError(f"{model} is already exported; pass the checkpoint it was exported from")
    _require_torch(model)
    from ..exporters.calibration import read_crops
    from ..exporters.export import Plan

    plan = Plan.make(to, out, str(model), calibrate is not None, force, dataset)
    network = load_network(model, "float32", "cpu" if to != "tensorrt" else "cuda", dataset, **hub)
    processor = load_processor(model, network, **hub)
    chosen = None if skeleton is None else Skeleton.load(skeleton)
    spec = _with_skeleton(network.config.heads[0], chosen, model)
    crops = None if calibrate is None else read_crops(calibrate, processor)
    # The file records the name of a local model, but no path of this machine.
    name = Path(model).resolve().name if Path(model).exists() else str(model)
    return plan.write(network, Metadata(name, "float32", processor, spec.skeleton, spec), crops)


def load_processor(model: str | Path, network: VitPoseForPoseEstimation, **hub: Any) -> VitPoseImageProcessor:
    """Returns the processor of a model, or the default one of its dataset and input size if it has none.

    Original files have no processor, nor does a directory that only the network was saved to. If the checkpoint
    declares its datasets, warp, decoding and flip shift are those of the network's dataset.

    Args:
        model: As in `load`, but not an exported file.
        network: The network that was loaded from it.
        **hub: As in `load`.

    Raises:
        CheckpointError: The file is missing or damaged, or contradicts the declared dataset.
    """
    from ..model.config import VitPoseConfig
    from ..model.original import is_original

    declared = network.config.datasets
    folder = Path(model).expanduser()
    if is_original(model) or (folder.is_dir() and not (folder / PROCESSOR_FILE).is_file()):
        height, width = network.config.backbone_config.image_size
        processor = VitPoseImageProcessor(size=Size(width=width, height=height))
    else:
        processor = VitPoseImageProcessor.from_pretrained(model, **hub)
        first = VitPoseConfig.from_pretrained(model, **hub).datasets[:1]
        if first and processor != processor.with_dataset(first[0]):
            expected = processor.with_dataset(first[0])
            keys = [key for key in _DATASET_KEYS if getattr(processor, key) != getattr(expected, key)]
            differing = ", ".join(
                f"{key} {getattr(processor, key)!r}, not {getattr(expected, key)!r}" for key in keys
            )
            raise CheckpointError(
                f"{PROCESSOR_FILE} of {str(model)!r} has {differing} as the dataset {first[0].name!r} that "
                "config.json declares; correct one of the two files"
            )
    return processor.with_dataset(declared[0]) if declared else processor
