"""From names to a pipeline, or to an exported file: the only file that knows every engine and every detector."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .boxes import Size
from .detect import load_detector
from .device import choose_device
from .engine import check_engine, is_exported, open_engine
from .engine.metadata import Metadata
from .errors import CheckpointError, InputError
from .estimator import Estimator
from .hub import DEFAULT_MODEL
from .pipeline import Pipeline
from .processing import PROCESSOR_FILE, VitPoseImageProcessor
from .skeleton import Skeleton

if TYPE_CHECKING:
    from .deploy.export import Exported
    from .engine.protocol import Engine
    from .model.pose import VitPoseForPoseEstimation


def load(
    model: str | Path = DEFAULT_MODEL,
    detector: Any = "rtdetr",
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    skeleton: str | Path | Skeleton | None = None,
    dataset_index: int = 0,
    labels: Sequence[str] | None = ("person",),
    min_score: float | None = None,
    batch_size: int = 32,
    compile: bool = False,
    quantization_config: Any = None,
    **hub: Any,
) -> Pipeline:
    """Puts a model and a detector together.

    Args:
        model: A short name (`vitpose models` lists them), a folder, a hub repository, an original `.pth` file, or
            a file that `export` wrote (`.onnx`, `.xml`, `.pt2`, `.engine`).
        detector: What finds the boxes: "rtdetr", "rtdetr:NAME", "onnx:FILE", "boxes:FILE" (COCO detections or
            annotations), "whole-picture" (one person a picture), an object with `detect`, or None if
            boxes are always given.
        engine: What runs the network: "torch", "onnxruntime", "openvino", "tensorrt"; "auto" is what an exported
            file is made for, and torch for a checkpoint, which is converted for the others.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps"; with OpenVINO "cpu", "gpu", "npu".
        dtype: "auto" (bfloat16 on a GPU that has it, and on a CPU that has it and is measured to be faster with it,
            else float32) or the name of a type. What was chosen is in the engine's description.
        skeleton: Names and limbs of the keypoints, where the checkpoint's own are not wanted.
        dataset_index: Which expert of a ViTPose++ model; 0 is COCO. The head stays the one in the file: the
            released files of the hub have COCO's alone, which gives noise behind another expert.
        labels: Classes of the detector to take, by COCO's names; None takes all.
        min_score: Boxes that score less are dropped; the detector's own default without it.
        batch_size: At most this many crops at a time.
        compile: Compile the network: the first batch of each size takes a minute, later ones are faster.
        quantization_config: How torch's weights are quantised; see `VitPoseForPoseEstimation.from_pretrained`.
        **hub: revision, token, cache_dir, local_files_only, for the model.

    Raises:
        UnknownNameError: A name is not known.
        InputError: The model has no such expert, or no experts; or engine, device and type do not go together.
        CheckpointError: Files are missing, damaged, or do not fit.
        MissingDependencyError: What runs the network is not installed.
    """
    bones = None if skeleton is None else Skeleton.load(skeleton)
    runtime = check_engine(engine, model if is_exported(model) else None)
    runner: Engine
    if is_exported(model):
        refused = {
            f"dataset_index {dataset_index}": dataset_index,
            "quantization_config": quantization_config is not None,
            "compile": compile,
        }
        if given := [name for name, value in refused.items() if value]:
            raise InputError(
                f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for checkpoints, and {model} is an "
                "exported file; export it so"
            )
        runner = exported = open_engine(model, runtime, device=device, dtype=dtype)
        processor, own = exported.metadata.processor, exported.metadata.skeleton
    else:
        runner, processor, own = _load_checkpoint(
            model, runtime, device, dtype, dataset_index, quantization_config, compile, **hub
        )
    bones = bones or own
    _check_count(bones, len(own), model)
    # The detector last: it may be a download, and whatever is misspelt has been said by now. Names of devices are
    # torch's, which another runtime's are not.
    place = device if runtime == "torch" or device == "cpu" else "auto"
    finder = (
        None
        if detector is None
        else load_detector(detector, device=place, labels=labels, min_score=min_score)
    )
    return Pipeline(finder, Estimator(runner, processor, bones, batch_size))


def _load_checkpoint(
    model: str | Path,
    runtime: str,
    device: str,
    dtype: str,
    dataset_index: int,
    quantization_config: Any,
    compiled: bool,
    **hub: Any,
) -> tuple[Engine, VitPoseImageProcessor, Skeleton]:
    from .engine.device import DeviceEngine
    from .engine.torch import TorchEngine, choose_dtype
    from .model.quantisation import quantise

    if runtime == "torch":
        place = choose_device(device)
        network = load_network(model, choose_dtype(dtype, place), place, dataset_index, **hub)
        processor, bones = load_processor(model, network, **hub), network.config.skeleton
        if quantization_config is not None:
            quantise(network, quantization_config)
        kind = TorchEngine if place.type == "cpu" else DeviceEngine
        return kind(network, *processor.scale_and_offset, compiled), processor, bones
    if quantization_config is not None:
        raise InputError(
            f"quantization_config is for engine 'torch', not for {runtime!r}; its int8 is made by "
            "'vitpose export --int8'"
        )
    if compiled:
        raise InputError(
            f"compile is for engine 'torch', not for {runtime!r}, which compiles by itself; leave it out"
        )
    from .deploy.conversion import write_onnx

    network = load_network(model, "float32", "cpu", dataset_index, **hub)
    processor, bones = load_processor(model, network, **hub), network.config.skeleton
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(network, Metadata(str(model), "float32", processor, bones), path)
        return open_engine(path, runtime, device=device, dtype=dtype), processor, bones


def load_network(
    model: str | Path, dtype: str, device: Any, dataset_index: int, **hub: Any
) -> VitPoseForPoseEstimation:
    """Returns a dense network: of one with experts, the network that it is with that expert."""
    from .model.pose import VitPoseForPoseEstimation

    network = VitPoseForPoseEstimation.from_pretrained(model, dtype=dtype, device=device, **hub)
    if getattr(network.config.backbone_config, "num_experts", 1) > 1:
        return network.fold_expert(dataset_index)
    if dataset_index:
        raise InputError(
            f"dataset_index {dataset_index} was given, but {str(model)!r} has no experts; leave it out"
        )
    return network


def export(
    model: str | Path = DEFAULT_MODEL,
    to: str = "onnx",
    out: str | Path | None = None,
    *,
    skeleton: str | Path | Skeleton | None = None,
    dataset_index: int = 0,
    calibrate: str | Path | None = None,
    force: bool = False,
    **hub: Any,
) -> Exported:
    """Writes a model as a file that other runtimes run, and that `load` needs nothing beside.

    The file takes any number of crops. It is run, and its maps compared with torch's, before it is written.

    Args:
        model: As in `load`, but no exported file.
        to: "onnx", "openvino", "torch-export" or "tensorrt".
        out: The file; the model's name in this folder without it.
        skeleton: As in `load`.
        dataset_index: Which expert of a ViTPose++ model; the file is that of a dense one.
        calibrate: Quantise to int8, with ranges measured on these people: annotations (FILE, or FILE=FOLDER with
            the folder of the pictures), or pictures of one person each (a folder, a glob).
        force: Replace the file if it is there.
        **hub: As in `load`.

    Raises:
        UnknownNameError: A name is not known.
        InputError: The file is there, has the wrong ending, or the format has no int8.
        CheckpointError: The model's files do not fit, or the exported one gives other maps than torch.
        MissingDependencyError: What writes the format is not installed.
        OutputError: The file cannot be written.
    """
    from .deploy.calibration import read_crops
    from .deploy.export import Plan

    if is_exported(model):
        raise InputError(f"{model} is exported already; give the checkpoint that it was made of")
    plan = Plan.make(to, out, str(model), calibrate is not None, force)
    network = load_network(model, "float32", "cpu" if to != "tensorrt" else "cuda", dataset_index, **hub)
    processor = load_processor(model, network, **hub)
    bones = network.config.skeleton if skeleton is None else Skeleton.load(skeleton)
    _check_count(bones, len(network.config.id2label), model)
    crops = None if calibrate is None else read_crops(calibrate, processor)
    name = Path(model).name if Path(model).exists() else str(model)  # files carry no paths of this machine
    return plan.write(network, Metadata(name, "float32", processor, bones), crops)


def _check_count(bones: Skeleton, count: int, model: str | Path) -> None:
    if len(bones) != count:
        raise CheckpointError(
            f"the skeleton {bones.name!r} has {len(bones)} keypoints, the model {str(model)!r} has "
            f"{count}; pass the skeleton the model was trained on"
        )


def load_processor(model: str | Path, network: VitPoseForPoseEstimation, **hub: Any) -> VitPoseImageProcessor:
    """Returns the processor of a model; where there is none, COCO's for the network's size.

    Original files have none, nor has a folder that only the network was saved to.

    Args:
        model: As in `load`.
        network: The network that was loaded from it.
        **hub: As in `load`.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    from .model.checkpoint import is_original

    folder = Path(model).expanduser()
    bare = is_original(model) or (folder.is_dir() and not (folder / PROCESSOR_FILE).is_file())
    if not bare:
        return VitPoseImageProcessor.from_pretrained(model, **hub)
    height, width = network.config.backbone_config.image_size
    return VitPoseImageProcessor(size=Size(width=width, height=height))
