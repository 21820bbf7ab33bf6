from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vitpose.model.outputs import BackboneOutput, VitPoseEstimatorOutput
from vitpose.model.pose import VitPoseForPoseEstimation

Build = Callable[..., VitPoseForPoseEstimation]

HEATMAPS, LOSS = torch.arange(4.0).view(1, 1, 2, 2), torch.tensor(3.0)


@pytest.fixture
def output() -> VitPoseEstimatorOutput:
    return VitPoseEstimatorOutput(heatmaps=HEATMAPS, loss=LOSS)


# ------------------------------------------------------------------ a mapping


def test_output_is_a_mapping_of_the_present_results(output: VitPoseEstimatorOutput) -> None:
    assert isinstance(output, Mapping)
    assert list(output) == list(output.keys()) == ["loss", "heatmaps"]
    assert "heatmaps" in output
    assert "attentions" not in output
    assert output.attentions is None
    assert len(output) == 2
    assert output.get("attentions", 7) == 7
    assert dict(**output)["heatmaps"] is HEATMAPS
    assert [name for name, value in output.items() if value is HEATMAPS] == ["heatmaps"]
    assert (output[0], output[-1], output["loss"]) == (LOSS, HEATMAPS, LOSS)
    assert output.to_tuple() == (LOSS, HEATMAPS)


def test_output_is_made_of_a_mapping_or_of_pairs(output: VitPoseEstimatorOutput) -> None:
    """As torch's DataParallel and other wrappers rebuild it."""
    assert VitPoseEstimatorOutput(output) == output
    assert VitPoseEstimatorOutput((name, output[name]) for name in output) == output
    assert list(VitPoseEstimatorOutput({"heatmaps": HEATMAPS, "loss": None})) == ["heatmaps"]


def test_attributes_and_entries_agree(output: VitPoseEstimatorOutput) -> None:
    output.heatmaps = HEATMAPS + 1
    output.loss = None
    output.attentions = (LOSS,)
    assert torch.equal(output["heatmaps"], HEATMAPS + 1)
    assert list(output) == ["heatmaps", "attentions"]
    assert output.to_tuple()[1] == (LOSS,)


def test_unknown_names_are_refused(output: VitPoseEstimatorOutput) -> None:
    with pytest.raises(KeyError, match=r"this output has no 'maps'; it has .*'heatmaps'"):
        output["maps"]
    with pytest.raises(
        AttributeError, match="VitPoseEstimatorOutput has no 'maps'; there are loss, heatmaps, "
    ):
        output.maps  # noqa: B018
    with pytest.raises(
        AttributeError, match="VitPoseEstimatorOutput has no 'maps'; there are loss, heatmaps, "
    ):
        output.maps = LOSS
    with pytest.raises(TypeError, match="BackboneOutput has no 'heatmaps'; there are feature_maps, hidden"):
        BackboneOutput(heatmaps=HEATMAPS)


def test_output_is_copied_and_pickled(output: VitPoseEstimatorOutput) -> None:
    for again in (copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert type(again) is VitPoseEstimatorOutput
        assert torch.equal(again.heatmaps, HEATMAPS)
        assert again.attentions is None


# ------------------------------------------------------------------ a pytree


def test_output_is_flattened_and_rebuilt_as_a_tree() -> None:
    output = VitPoseEstimatorOutput(heatmaps=HEATMAPS, hidden_states=(LOSS, LOSS + 1))
    leaves, spec = pytree.tree_flatten(output)
    assert [leaf.item() if leaf.ndim == 0 else "heatmaps" for leaf in leaves] == ["heatmaps", 3.0, 4.0]
    again = pytree.tree_unflatten([leaf * 2 for leaf in leaves], spec)
    assert type(again) is VitPoseEstimatorOutput
    assert torch.equal(again.heatmaps, HEATMAPS * 2)
    assert again.hidden_states[1].item() == 8.0
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(output)[0]]
    assert paths == [".heatmaps", ".hidden_states[0]", ".hidden_states[1]"]


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True, "output_attentions": True}])
def test_model_is_exported_with_its_output(
    build: Build, pixels: Tensor, tmp_path: Path, options: dict[str, bool]
) -> None:
    model = build()
    program = torch.export.export(model, (pixels,), options, strict=False)  # the default since torch 2.7
    torch.export.save(program, tmp_path / "model.pt2")
    for module in (program.module(), torch.export.load(tmp_path / "model.pt2").module()):
        found, wanted = module(pixels, **options), model(pixels, **options)
        assert type(found) is VitPoseEstimatorOutput
        assert found.keys() == wanted.keys()
        torch.testing.assert_close(found.to_tuple(), wanted.to_tuple())


@torch.no_grad()
@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning"
)  # checks of sizes become constants, as intended
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")  # torch's
@pytest.mark.parametrize("experts", [1, 3])
def test_model_is_traced(build: Build, pixels: Tensor, experts: int, unchecked: None) -> None:
    model = build(num_experts=experts)
    index = () if experts == 1 else (torch.tensor([2, 0, 1]),)
    wanted = model(pixels, *index).heatmaps
    traced = torch.jit.trace(model, (pixels, *index), strict=False)
    torch.testing.assert_close(traced(pixels, *index)["heatmaps"], wanted)
    model.config.return_dict = False  # the tracer's strict mode rejects dictionaries
    (found,) = torch.jit.trace(model, (pixels, *index))(pixels, *index)
    torch.testing.assert_close(found, wanted)
