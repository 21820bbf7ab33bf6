"""From names to a pipeline, or to an exported file: the only file that knows every engine and every detector."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..detectors import check_selection, load_detector
from ..detectors.labels import OWN_LABELS, Labels
from ..engines import check_conversion, check_engine, check_trust, is_exported, open_engine
from ..engines.metadata import Metadata
from ..errors import CheckpointError, InputError, UnknownNameError, require
from ..files.hub import DEFAULT_MODEL, find_file
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

_PEOPLE = ("person",)

_OF_THE_DATASET = ("warp", "aspect", "decode", "shift_heatmap")
"""What a processor takes from the declaration of its dataset."""

Found = tuple["Engine", VitPoseImageProcessor, DatasetSpec]
"""What runs a network, how it wants its crops, and what it was trained on."""


def load(
    model: str | Path = DEFAULT_MODEL,
    detector: Any = "rtdetr",
    *,
    dataset: str | int | Sequence[str | int] | None = None,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    skeleton: str | Path | Skeleton | None = None,
    labels: Labels = OWN_LABELS,
    min_score: float | None = None,
    batch_size: int = 32,
    compile: bool = False,
    quantization_config: Any = None,
    trust: bool = False,
    **hub: Any,
) -> Pipeline:
    """Puts a model and a detector together.

    Args:
        model: A short name (`vitpose models` lists them), a folder, a hub repository, an original `.pth` file, or
            a file that `export` wrote (`.onnx`, `.xml`, `.pt2`, `.engine`).
        detector: What finds the boxes: "rtdetr", "rtdetr:NAME", "onnx:FILE", "boxes:FILE" (COCO detections or
            annotations), "whole-image" (one person an image), an object with `detect`, or None if
            boxes are always given.
        dataset: Of a ViTPose++ model, whose expert, head, skeleton and conventions to take: a name ("ap10k") or
            number; the first, COCO, without it. Several, such as ["coco", "ap10k"], find people and animals in
            one call: each box goes to the first dataset that has its class. Of a file with one head that
            does not say what it was trained on (an original `.pth`), the name says it.
        engine: What runs the network: "torch", "onnxruntime", "openvino", "tensorrt"; "auto" is what an exported
            file is made for, and torch for a checkpoint, which is converted for the others.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps"; with OpenVINO "cpu", "gpu", "npu".
        dtype: "auto" (bfloat16 on a GPU or CPU that has units for it, else float32; the same machine always takes the
            same) or the name of a type. Heatmaps are float32 in any case. What was chosen is in the engine's
            description.
        skeleton: Names and edges of the keypoints, where the checkpoint's own are not wanted.
        labels: Classes of the detector to find, by COCO's names; None or "all" is every class. "own" is those of the
            dataset ("person" where it names none), and all that a detector object finds.
        min_score: Boxes that score less are dropped, 0 to 1; default: that of the detector.
        batch_size: At most this many crops at a time.
        compile: Compile the network: the first batch of each size takes a minute, later ones are faster.
        quantization_config: How torch's weights are quantised; see `VitPoseForPoseEstimation.from_pretrained`.
        trust: Load a `.pt2` file, which runs any code that its maker put into it. All other files run none.
        **hub: revision, token, cache_dir, local_files_only, for the model.

    Raises:
        UnknownNameError: A name is not known.
        InputError: The model has no such dataset; engine, device and type do not go together; or labels or
            min_score are invalid, or given where no detector is asked (None, "whole-image").
        CheckpointError: Files are missing, damaged, or do not fit, or lack the dataset's head.
        MissingDependencyError: What runs the network is not installed.
    """
    _check_keywords(load, hub)
    check_selection(detector, labels, min_score)
    bones = None if skeleton is None else Skeleton.load(skeleton)
    runtime = check_engine(engine, model if is_exported(model) else None)
    if is_exported(model):
        given = {
            f"dataset {dataset!r}": dataset is not None,
            "quantization_config": quantization_config is not None,
            "compile": compile,
        }
        _refuse_of_checkpoints(model, [*(name for name, is_given in given.items() if is_given), *hub])
        exported = open_engine(model, runtime, device=device, dtype=dtype, trust=trust)
        parts: list[Found] = [(exported, exported.metadata.processor, exported.metadata.dataset_spec)]
    else:
        check_trust(model, trust)
        parts = _load_checkpoint(model, runtime, device, dtype, dataset, quantization_config, compile, **hub)
    if bones is not None and len(parts) > 1:
        raise InputError(f"the skeleton {bones.name!r} was given for several datasets; leave it out")
    estimators = {}
    for runner, processor, own in parts:
        own = _with_skeleton(own, bones, model)
        estimators[own.name] = Estimator(runner, processor, own.skeleton, batch_size, own)
    several = dataset is not None and not isinstance(dataset, str | int)
    estimator = MixedEstimator(estimators) if several else next(iter(estimators.values()))
    found = [label for own in estimators.values() if own.dataset_spec for label in own.dataset_spec.classes]
    classes = tuple(dict.fromkeys(found)) or _PEOPLE
    # The detector last: it may be a download, and whatever is misspelt has been said by now. It runs on the same
    # device, except that OpenVINO has names of its own ("gpu", "npu") for others than the CPU.
    place = "auto" if runtime == "openvino" and device != "cpu" else device
    finder = (
        None
        if detector is None
        else load_detector(detector, device=place, labels=labels, min_score=min_score, own=classes)
    )
    return Pipeline(finder, estimator)


def _check_keywords(function: Callable[..., Any], hub: dict[str, Any]) -> None:
    """Refuses keywords that neither a function nor the hub takes."""
    named = [
        parameter.name
        for parameter in signature(function).parameters.values()
        if parameter.kind is not Parameter.VAR_KEYWORD
    ]
    hubs = [
        parameter.name
        for parameter in signature(find_file).parameters.values()
        if parameter.kind is Parameter.KEYWORD_ONLY
    ]
    for name in hub:
        if name not in hubs:
            raise UnknownNameError(f"argument of vitpose.{function.__name__}", name, (*named, *hubs))


def _refuse_of_checkpoints(model: str | Path, given: Sequence[str]) -> None:
    """Refuses arguments that only a checkpoint has a use for."""
    if given:
        raise InputError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for checkpoints, and {model} is an exported "
            "file, which is as it was exported; leave that out, or export the checkpoint again"
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
    """Returns what runs each of the datasets."""
    _require_torch(model)
    from ..engines.accelerator import DeviceEngine
    from ..engines.side_by_side import one_thread_if_forked
    from ..engines.torch import TorchEngine, choose_dtype
    from ..model.pose import VitPoseForPoseEstimation
    from ..model.quantisation import quantise

    if runtime != "torch":
        _refuse_of_torch(runtime, quantization_config, compiled)
        check_conversion(model, runtime, device, dtype)
        return [
            _convert(part, model, runtime, device, dtype, hub) for part in _read_parts(model, dataset, hub)
        ]
    place = choose_device(device)
    wanted = choose_dtype(dtype, place)
    kind = TorchEngine if place.type == "cpu" else DeviceEngine
    found: list[Found] = []
    with one_thread_if_forked():  # conversions of weights are work for threads too
        for part in _read_parts(model, dataset, hub):
            network = VitPoseForPoseEstimation.from_checkpoint(part, dtype=wanted, device=place)
            processor = load_processor(model, network, **hub)
            if quantization_config is not None:
                quantise(network, quantization_config)
            engine = kind(network, *processor.scale_and_offset, compiled)
            found.append((engine, processor, network.config.heads[0]))
    return found


def _require_torch(model: str | Path) -> None:
    require("torch", None, f"to load the checkpoint {model}, not to run .onnx and .xml files")


def _refuse_of_torch(runtime: str, quantization_config: Any, compiled: bool) -> None:
    if quantization_config is not None:
        raise InputError(
            f"quantization_config is for engine 'torch', not for {runtime!r}; its int8 is made by "
            "'vitpose export --int8'"
        )
    if compiled:
        raise InputError(
            f"compile is for engine 'torch', not for {runtime!r}, which compiles by itself; leave it out"
        )


def _convert(
    part: Checkpoint, model: str | Path, runtime: str, device: str, dtype: str, hub: dict[str, Any]
) -> Found:
    """Returns another runtime that runs a checkpoint."""
    from ..exporters.conversion import write_onnx
    from ..model.pose import VitPoseForPoseEstimation

    network = VitPoseForPoseEstimation.from_checkpoint(part)
    processor, own = load_processor(model, network, **hub), network.config.heads[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, Metadata(str(model), "float32", processor, own.skeleton, own), path)
        return open_engine(path, runtime, device=device, dtype=dtype), processor, own


def _read_parts(
    model: str | Path, dataset: str | int | Sequence[str | int] | None, hub: dict[str, Any]
) -> list[Checkpoint]:
    """Returns one dense checkpoint for each dataset; they share the tensors that are the same."""
    from ..model.checkpoint import read_checkpoint

    if isinstance(dataset, str | int):
        return [read_checkpoint(model, dataset=dataset, **hub)]
    whole = read_checkpoint(model, **hub)
    if dataset is not None:
        return [whole.for_dataset(own) for own in dataset]
    several = whole.config.num_experts > 1 or len(whole.config.datasets) > 1
    return [whole.for_dataset(0) if several else whole]


def _with_skeleton(own: DatasetSpec, bones: Skeleton | None, model: str | Path) -> DatasetSpec:
    if bones is not None and len(bones) != len(own.skeleton):
        raise CheckpointError(
            f"the skeleton {bones.name!r} has {len(bones)} keypoints, the model {str(model)!r} has "
            f"{len(own.skeleton)}; pass the skeleton the model was trained on"
        )
    return own if bones is None else replace(own, skeleton=bones)


def load_network(
    model: str | Path, dtype: str, device: Any, dataset: str | int | None, **hub: Any
) -> VitPoseForPoseEstimation:
    """Returns the dense network of a dataset; of the first one without a name."""
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
    **hub: Any,
) -> Exported:
    """Writes a model as a file that other runtimes run, and that `load` needs nothing beside.

    The file takes any number of crops. It is run, and its maps compared with torch's, before it is written.

    Args:
        model: As in `load`, but no exported file.
        to: "onnx", "openvino", "torch-export" or "tensorrt".
        out: The file; without it the name of the model, and of the dataset if one is given, in this folder.
        dataset: Of which dataset of a ViTPose++ model, by name or number; the file is that of a dense one.
        skeleton: As in `load`.
        calibrate: Quantise to int8, with ranges measured on these people: annotations (FILE, or FILE=FOLDER with
            the folder of the images), or images of one person each (a folder, a glob).
        force: Replace the file if it is there.
        **hub: As in `load`.

    Raises:
        UnknownNameError: A name is not known.
        InputError: The file is there, has the wrong ending, or the format has no int8.
        CheckpointError: The model's files do not fit, or the exported one gives other maps than torch.
        MissingDependencyError: What writes the format is not installed.
        OutputError: The file cannot be written.
    """
    _check_keywords(export, hub)
    if is_exported(model):
        raise InputError(f"{model} is exported already; give the checkpoint that it was made of")
    _require_torch(model)
    from ..exporters.calibration import read_crops
    from ..exporters.export import Plan

    plan = Plan.make(to, out, str(model), calibrate is not None, force, dataset)
    network = load_network(model, "float32", "cpu" if to != "tensorrt" else "cuda", dataset, **hub)
    processor = load_processor(model, network, **hub)
    own = _with_skeleton(
        network.config.heads[0], None if skeleton is None else Skeleton.load(skeleton), model
    )
    crops = None if calibrate is None else read_crops(calibrate, processor)
    name = (
        Path(model).resolve().name if Path(model).exists() else str(model)
    )  # files carry no paths of this machine
    return plan.write(network, Metadata(name, "float32", processor, own.skeleton, own), crops)


def load_processor(model: str | Path, network: VitPoseForPoseEstimation, **hub: Any) -> VitPoseImageProcessor:
    """Returns the processor of a model; where there is none, that of its dataset for the network's size.

    Original files have none, nor has a folder that only the network was saved to. Where the checkpoint declares its
    datasets, warp, decoding and flip shift are those of the network's.

    Args:
        model: As in `load`.
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
            wanted = processor.with_dataset(first[0])
            keys = [key for key in _OF_THE_DATASET if getattr(processor, key) != getattr(wanted, key)]
            differing = ", ".join(
                f"{key} {getattr(processor, key)!r}, not {getattr(wanted, key)!r}" for key in keys
            )
            raise CheckpointError(
                f"{PROCESSOR_FILE} of {str(model)!r} has {differing} as the dataset {first[0].name!r} that "
                "config.json declares; correct one of the two files"
            )
    return processor.with_dataset(declared[0]) if declared else processor
