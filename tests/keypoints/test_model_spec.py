"""ModelSpec: its JSON form, what it computes, and its place in the files of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitpose
from vitpose.errors import CheckpointError, InputError, UnknownNameError
from vitpose.files.hub import resolve
from vitpose.geometry.heatmaps import Decoding
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.model.checkpoint import read_spec
from vitpose.model.config import VitPoseConfig
from vitpose.model.preprocessor_config import PreprocessorConfig
from vitpose.training.recipe_tables import ModelRecipe
from vitpose.training.start import make_network

CHANGED = ModelSpec(
    dataset=DatasetSpec.load("mpii"),
    input_size=vitpose.Size(width=48, height=64),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.25),
    blur_sigma=0.8,
    border="reflect",
    max_step=None,
)
SPECS = [ModelSpec(dataset=DatasetSpec.load("coco")), CHANGED]


@pytest.mark.parametrize("spec", SPECS)
def test_json_round_trip(spec: ModelSpec) -> None:
    stored = json.dumps(spec.to_dict())
    assert ModelSpec.from_dict(json.loads(stored)) == spec
    without = json.loads(json.dumps(spec.to_dict(with_dataset=False)))
    assert "dataset" not in without
    assert ModelSpec.from_dict(without, dataset=spec.dataset) == spec


def test_defaults_are_those_of_the_published_models() -> None:
    spec = SPECS[0]
    assert (spec.input_size, spec.decoding) == (vitpose.Size(width=192, height=256), Decoding("dark"))
    scale, offset = spec.scale_and_offset
    np.testing.assert_allclose(255 * scale + offset, (1 - np.array(spec.mean)) / spec.std, rtol=1e-6)
    np.testing.assert_array_equal(spec.mirror, spec.dataset.skeleton.mirror)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": (0.0, 1.0, 1.0)}, "the model's spec: std.0 is 0.0; input should be greater than"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "mean.0 is nan"),
        ({"input_size": vitpose.Size(width=1, height=64)}, r"input_size.width is 1"),
        ({"max_step": -1.0}, "max_step is -1.0"),
        ({"blur_sigma": 0.0}, "blur_sigma is 0.0"),
    ],
)
def test_invalid_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SPECS[0], **changes)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown border 'zeros'; did you mean zero"):
        replace(SPECS[0], border="zeros")
    with pytest.raises(InputError, match="the model's spec: unknown key 'stdd'; did you mean std"):
        ModelSpec.from_dict({**SPECS[0].to_dict(), "stdd": 1})
    with pytest.raises(InputError, match="mean"):
        ModelSpec.from_dict({**SPECS[0].to_dict(), "mean": [0.5, 0.5]})


def test_the_skeleton_can_be_replaced_by_one_of_the_same_length() -> None:
    spec, renamed = SPECS[0], vitpose.Skeleton("mine", tuple(f"k{index}" for index in range(17)))
    assert spec.with_skeleton(renamed).dataset == replace(spec.dataset, skeleton=renamed)
    message = "skeleton 'mpii' has 16 keypoints, the model's, 'coco', has 17; pass the skeleton"
    with pytest.raises(CheckpointError, match=message):
        spec.with_skeleton(vitpose.Skeleton.load("mpii"))
    with pytest.raises(InputError, match="the skeleton 'mine' has no flip_pairs, so a flip test would"):
        _ = spec.with_skeleton(renamed).mirror


@pytest.mark.parametrize("spec", SPECS)
def test_preprocessor_config_declares_the_same(spec: ModelSpec) -> None:
    file = PreprocessorConfig.from_spec(spec)
    assert PreprocessorConfig.from_dict(json.loads(file.to_json_string())).to_spec(spec.dataset) == spec


@pytest.mark.parametrize(
    "settings",
    [{"do_rescale": False}, {"do_normalize": False}, {"rescale_factor": 0.5, "image_std": (3.0, 2.0, 1.0)}],
)
def test_rescaling_and_normalisation_become_mean_and_std(settings: dict[str, Any]) -> None:
    processor = vitpose.VitPoseImageProcessor(**settings)
    pixels = np.linspace(0, 255, 12).reshape(2, 2, 3)
    expected = pixels * (processor.rescale_factor if processor.do_rescale else 1)
    if processor.do_normalize:
        expected = (expected - processor.image_mean) / processor.image_std
    scale, offset = processor.to_spec(DatasetSpec.load("coco")).scale_and_offset
    np.testing.assert_allclose(pixels * scale + offset, expected, rtol=1e-5, atol=1e-5)


def load(checkpoint: Path, folder: Path) -> None:
    vitpose.load(checkpoint, None, device="cpu")


def load_the_first(checkpoint: Path, folder: Path) -> None:
    vitpose.load(checkpoint, None, dataset=0, device="cpu")


def export(checkpoint: Path, folder: Path) -> None:
    vitpose.export(checkpoint, "torch-export", folder / "a.pt2")


def start_training(checkpoint: Path, folder: Path) -> None:
    make_network(ModelRecipe(start=str(checkpoint), width=48, height=64))


class TestCheckpoints:
    """The spec of a checkpoint is in `config.json`; of one without it, in `preprocessor_config.json`."""

    @pytest.fixture
    def spec(self, checkpoint: Path) -> ModelSpec:
        files = resolve(checkpoint)
        return read_spec(files, VitPoseConfig.from_dict(files.config))

    @pytest.fixture
    def saved(self, checkpoint: Path, spec: ModelSpec, tmp_path: Path) -> Path:
        network = vitpose.VitPoseForPoseEstimation.from_pretrained(checkpoint)
        network.config = network.config.with_spec(spec)
        network.save_pretrained(tmp_path)
        return tmp_path

    def test_is_read_from_a_checkpoint_of_transformers(self, spec: ModelSpec) -> None:
        assert (spec.dataset.warp, spec.dataset.decode, spec.dataset.shift_heatmap) == (
            "plain", "quarter", True,
        )  # fmt: skip
        assert (spec.input_size, spec.mean) == (vitpose.Size(width=48, height=64), (0.4, 0.5, 0.6))

    def test_is_stored_in_the_configuration(self, saved: Path, spec: ModelSpec) -> None:
        assert vitpose.load(saved, None, device="cpu").estimator.spec == spec
        assert VitPoseConfig.from_pretrained(saved).spec == spec
        written = PreprocessorConfig.from_pretrained(saved)
        assert written == PreprocessorConfig.from_spec(spec)

    def test_the_file_of_transformers_is_then_not_read(self, saved: Path, spec: ModelSpec) -> None:
        (saved / "preprocessor_config.json").write_text("{")
        assert vitpose.load(saved, None, device="cpu").estimator.spec == spec
        (saved / "preprocessor_config.json").unlink()
        assert vitpose.load(saved, None, device="cpu").estimator.spec == spec

    def test_an_invalid_one_is_refused(self, saved: Path) -> None:
        table = json.loads((saved / "config.json").read_text())
        table["vitpose_spec"]["std"] = [0, 1, 1]
        (saved / "config.json").write_text(json.dumps(table))
        with pytest.raises(CheckpointError, match=r"config.json of .* vitpose_spec: std.0 is 0"):
            vitpose.load(saved, None, device="cpu")

    @pytest.mark.parametrize("use", [load, load_the_first, export, start_training])
    def test_each_file_is_opened_once(
        self, use: Callable[..., Any], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []
        real = Path.open

        def count(path: Path, *args: Any, **options: Any) -> Any:
            opened.append(path.name)
            return real(path, *args, **options)

        monkeypatch.setattr(Path, "open", count)
        use(checkpoint, tmp_path)
        files = ["config.json"] if use is start_training else ["config.json", "preprocessor_config.json"]
        assert sorted(name for name in opened if name.endswith(".json")) == files
