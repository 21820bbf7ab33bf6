"""The assertions of the modelling tests of `transformers` for ViTPose and its backbone, on the classes of vitpose.

They cover the tests of the two models, of every backbone and of every model, on networks of the same kind: tiny,
random, with both decoders, with and without experts. Tests that require `PreTrainedModel` are listed in
docs/guides/transformers.md.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitpose import VitPoseBackbone, VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation
from vitpose.errors import UnknownNameError

BATCH, LAYERS, WIDTH, HEADS, LABELS, SIDE = 3, 3, 32, 4, 2, 64
TOKENS = (SIDE // 16) ** 2

KINDS: dict[str, dict[str, Any]] = {
    "simple": {},
    "classic": {"use_simple_decoder": False},
    "experts": {"num_experts": 3},
}

Model = VitPoseForPoseEstimation | VitPoseBackbone


def backbone_config(**options: Any) -> VitPoseBackboneConfig:
    table = {
        "image_size": SIDE,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "part_features": 8,
    }
    return VitPoseBackboneConfig(**(table | options))


def build_network(simple: bool = True, **options: Any) -> VitPoseForPoseEstimation:
    return VitPoseForPoseEstimation(
        VitPoseConfig(
            backbone_config=backbone_config(**options), num_labels=LABELS, use_simple_decoder=simple
        )
    )


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(19)


@pytest.fixture(params=[*KINDS, "backbone", "backbone-experts"])
def model(request: pytest.FixtureRequest) -> Model:
    """A new model of each class."""
    options = {} if "experts" not in request.param else {"num_experts": 3}
    if "backbone" in request.param:
        return VitPoseBackbone(backbone_config(**options)).eval()
    return build_network(simple=request.param != "classic", **options).eval()


def inputs_of(model: Model, batch: int = BATCH) -> dict[str, Any]:
    inputs: dict[str, Any] = {"pixel_values": torch.randn(batch, 3, SIDE, SIDE)}
    experts = model.config.num_experts
    return inputs if experts == 1 else inputs | {"dataset_index": torch.arange(batch) % experts}


def main_output(model: Model, **inputs: Any) -> Tensor:
    output = model(**inputs, return_dict=True)
    return output.heatmaps if isinstance(model, VitPoseForPoseEstimation) else output.feature_maps[-1]


def configurations_of(model: Model) -> list[Any]:
    return [
        *{id(tensor): tensor for tensor in (model.config, getattr(model, "backbone", model).config)}.values()
    ]


# ------------------------------------------------------------------ the two models


def test_forward_signature(model: Model) -> None:
    names = list(inspect.signature(model.forward).parameters)
    assert names[:2] == ["pixel_values", "dataset_index"]


@torch.no_grad()
@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize("scale", [4, 2])
def test_heatmaps_are_patches_times_the_scale(simple: bool, scale: int) -> None:
    network = build_network(simple)
    network = VitPoseForPoseEstimation(network.config.changed({"scale_factor": scale})).eval()
    side = SIDE // 16 * (scale if simple else 4)
    assert network(torch.randn(BATCH, 3, SIDE, SIDE)).heatmaps.shape == (BATCH, LABELS, side, side)


@torch.no_grad()
def test_batching_equivalence(model: Model) -> None:
    inputs = inputs_of(model)
    whole = main_output(model, **inputs)
    for row in range(BATCH):
        alone = main_output(model, **{name: value[row : row + 1] for name, value in inputs.items()})
        torch.testing.assert_close(whole[row : row + 1], alone, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------ backbones


def test_backbone_configuration_is_saved_and_loaded(tmp_path: Path) -> None:
    config = backbone_config(out_features=["stage1", "stage3"])
    config.save_pretrained(tmp_path)
    assert VitPoseBackboneConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert VitPoseBackboneConfig.from_dict(config.to_dict()) == config


def test_backbone_channels() -> None:
    backbone = VitPoseBackbone(backbone_config(out_indices=[0, 2, 3]))
    assert backbone.channels == [WIDTH] * 3
    assert len(backbone.channels) == len(backbone.out_features) == len(backbone.out_indices)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"out_features": None}, {"out_indices": None}, {"out_indices": [-1]}])
def test_backbone_of_a_changed_configuration_gives_the_last_stage(changes: dict[str, Any]) -> None:
    config = backbone_config(out_features=["stem", "stage2"])
    backbone = VitPoseBackbone(config.changed(changes)).eval()
    assert backbone.out_features == [f"stage{LAYERS}"]
    assert backbone.out_indices == [LAYERS]
    assert len(backbone(**inputs_of(backbone)).feature_maps) == len(backbone.channels) == 1


def test_backbone_common_attributes() -> None:
    backbone = VitPoseBackbone(backbone_config(out_features=["stage1", "stage3"]))
    names = ["stem", *(f"stage{index}" for index in range(1, LAYERS + 1))]
    assert backbone.stage_names == backbone.config.stage_names == names
    assert backbone.num_features == [WIDTH] * len(names)
    assert backbone.out_feature_channels == dict.fromkeys(names, WIDTH)
    assert (backbone.out_features, backbone.out_indices) == (["stage1", "stage3"], [1, 3])


@torch.no_grad()
def test_backbone_outputs_can_be_chosen_afterwards() -> None:
    backbone = VitPoseBackbone(backbone_config()).eval()
    inputs = inputs_of(backbone)
    states = backbone(**inputs, output_hidden_states=True).hidden_states
    backbone.out_indices = (0, 2)
    assert backbone.out_features == backbone.config.out_features == ["stem", "stage2"]
    for found, index in zip(backbone(**inputs).feature_maps, (0, 2), strict=True):
        torch.testing.assert_close(found, backbone.last_norm(states[index]))
    backbone.out_features = ["stage1"]
    assert backbone.out_indices == backbone.config.out_indices == [1]
    with pytest.raises(UnknownNameError, match="unknown stage in out_features 'stage9'"):
        backbone.out_features = ["stage9"]


@torch.no_grad()
@pytest.mark.parametrize("experts", [1, 3])
def test_backbone_outputs(experts: int) -> None:
    backbone = VitPoseBackbone(backbone_config(out_features=["stem", "stage2"], num_experts=experts)).eval()
    inputs = inputs_of(backbone)
    output = backbone(**inputs)
    assert isinstance(output.feature_maps, tuple)
    assert [tuple(tensor.shape) for tensor in output.feature_maps] == [(BATCH, TOKENS, WIDTH)] * 2
    assert output.hidden_states is None
    assert output.attentions is None
    output = backbone(**inputs, output_hidden_states=True)
    assert [tuple(tensor.shape) for tensor in output.hidden_states] == [(BATCH, TOKENS, WIDTH)] * (LAYERS + 1)
    output = backbone(**inputs, output_attentions=True)
    assert [tuple(tensor.shape) for tensor in output.attentions] == [(BATCH, HEADS, TOKENS, TOKENS)] * LAYERS


# ------------------------------------------------------------------ every model: outputs


@torch.no_grad()
def test_determinism(model: Model) -> None:
    inputs = inputs_of(model)
    assert torch.equal(main_output(model, **inputs), main_output(model, **inputs))


@torch.no_grad()
@pytest.mark.parametrize("name", ["hidden_states", "attentions"])
def test_hidden_states_and_attentions_are_output(model: Model, name: str) -> None:
    inputs = inputs_of(model)
    shape = (BATCH, TOKENS, WIDTH) if name == "hidden_states" else (BATCH, HEADS, TOKENS, TOKENS)
    count = LAYERS + (name == "hidden_states")
    usual = len(model(**inputs))
    output = model(**inputs, **{f"output_{name}": True})
    assert [tuple(tensor.shape) for tensor in output[name]] == [shape] * count
    assert len(output) == usual + 1
    for config in configurations_of(model):
        setattr(config, f"output_{name}", True)
    again = model(**inputs)
    torch.testing.assert_close(again[name], output[name])
    other = {"hidden_states": "attentions", "attentions": "hidden_states"}[name]
    both = model(**inputs, **{f"output_{other}": True})
    torch.testing.assert_close(both[name], output[name])


def test_hidden_states_and_attentions_retain_gradients(model: Model) -> None:
    output = model(**inputs_of(model), output_hidden_states=True, output_attentions=True)
    watched = [output.hidden_states[0], output.attentions[0]]
    for tensor in watched:
        tensor.retain_grad()
    (output.heatmaps if "heatmaps" in output else output.feature_maps[-1]).flatten()[0].backward()
    for tensor in watched:
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 0


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True, "output_attentions": True}])
def test_tuples_and_dictionaries_agree(model: Model, options: dict[str, bool]) -> None:
    inputs = inputs_of(model)
    output, parts = model(**inputs, **options), model(**inputs, **options, return_dict=False)
    assert isinstance(output, dict)
    assert isinstance(parts, tuple)
    torch.testing.assert_close(output.to_tuple(), parts)
    torch.testing.assert_close(tuple(output.values()), parts)
    assert all(output[name] is value for name, value in output.items())


# ------------------------------------------------------------------ every model: attention, types, devices


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)], ids=str
)
@pytest.mark.parametrize("with_attentions", [False, True])
def test_eager_matches_sdpa(
    model: Model, dtype: torch.dtype, tolerance: float, with_attentions: bool
) -> None:
    model.to(dtype)
    inputs = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in inputs_of(model).items()
    }
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    fused = main_output(model, **inputs).float()
    plain = main_output(eager, **inputs, output_attentions=with_attentions).float()
    assert (fused - plain).abs().max() <= tolerance * plain.abs().max()
    assert not torch.equal(fused, torch.zeros_like(fused))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_weights_have_the_requested_dtype(model: Model, tmp_path: Path, dtype: torch.dtype) -> None:
    model.save_pretrained(tmp_path)
    for name in ("dtype", "torch_dtype"):
        for given in (dtype, str(dtype).removeprefix("torch.")):
            again = type(model).from_pretrained(tmp_path, **{name: given})
            assert {tensor.dtype for tensor in again.parameters()} == {dtype}
            assert again.dtype is dtype
    model.to(dtype).save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path, dtype="auto").dtype is dtype


def test_model_can_be_initialised_on_meta(model: Model) -> None:
    with torch.device("meta"):
        empty = type(model)(model.config)
    assert {tensor.device.type for tensor in empty.parameters()} == {"meta"}
    assert {name: tensor.shape for name, tensor in empty.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def test_model_loads_inside_a_device_context(model: Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with torch.device("cpu"):
        again = type(model).from_pretrained(tmp_path)
    assert {tensor.device.type for tensor in again.parameters()} == {"cpu"}


# ------------------------------------------------------------------ every model: weights


@torch.no_grad()
def test_save_load(model: Model, tmp_path: Path) -> None:
    inputs = inputs_of(model)
    wanted = main_output(model, **inputs)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert not again.training
    torch.testing.assert_close(main_output(again, **inputs), wanted)
    assert again.config == model.config
    again.save_pretrained(tmp_path / "twice")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / name).read_bytes()


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False])
def test_torch_save_load(model: Model, tmp_path: Path, whole: bool) -> None:
    inputs = inputs_of(model)
    torch.save(model if whole else model.state_dict(), tmp_path / "model.pt")
    found = torch.load(tmp_path / "model.pt", weights_only=not whole)
    again = found
    if not whole:
        again = type(model)(model.config).eval()
        again.load_state_dict(found)
    assert torch.equal(main_output(again, **inputs), main_output(model, **inputs))


@torch.no_grad()
def test_mismatched_shapes_are_reinitialised_if_allowed(tmp_path: Path) -> None:
    network = build_network()
    network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="different shape"):
        VitPoseForPoseEstimation.from_pretrained(tmp_path, num_labels=42)
    again = VitPoseForPoseEstimation.from_pretrained(tmp_path, num_labels=42, ignore_mismatched_sizes=True)
    assert again(**inputs_of(again)).heatmaps.shape[1] == 42
    assert all(
        torch.equal(tensor, again.backbone.state_dict()[name])
        for name, tensor in network.backbone.state_dict().items()
    )


def test_initialization_follows_the_configuration(model: Model) -> None:
    """With standard deviation 0 every weight is 0, or 1 for the scale of a norm, except in the decoder."""
    for config in configurations_of(model):
        config.initializer_range = 0.0
    fresh = type(model)(model.config)
    for name, tensor in fresh.named_parameters():
        drawn_separately = name.startswith("head.") or (tensor.ndim == 1 and "norm" not in name)
        if not drawn_separately:
            assert tensor.unique().tolist() in ([0.0], [1.0]), name
    for name, tensor in model.named_parameters():
        assert torch.isfinite(tensor).all(), name


def test_backbone_shares_the_configuration_of_the_model() -> None:
    network = build_network()
    assert network.backbone.config is network.config.backbone_config


# ------------------------------------------------------------------ every model: training


def step(model: Model, **inputs: Any) -> dict[str, Tensor]:
    model.zero_grad()
    main_output(model, **inputs).square().mean().backward()
    return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}


@pytest.mark.parametrize("reentrant", [None, True, False])
def test_training_with_gradient_checkpointing(model: Model, reentrant: bool | None) -> None:
    inputs = inputs_of(model)
    model.train()
    wanted = step(model, **inputs)
    options = () if reentrant is None else ({"use_reentrant": reentrant},)
    model.gradient_checkpointing_enable(*options)
    found = step(model, **inputs)
    assert found.keys() == wanted.keys() == dict(model.named_parameters()).keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_gradient_checkpointing_enable_disable(model: Model) -> None:
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_inputs_of_adapters_can_require_gradients(model: Model) -> None:
    """As `enable_input_require_grads` does for adapters with gradient checkpointing."""
    model.requires_grad_(False)
    handle = model.get_input_embeddings().register_forward_hook(lambda _, __, out: out.requires_grad_(True))
    assert main_output(model, **inputs_of(model)).requires_grad
    handle.remove()
    assert not main_output(model, **inputs_of(model)).requires_grad


@torch.no_grad()
def test_feed_forward_can_be_called_in_parts() -> None:
    """As chunking requires: each token is processed independently."""
    block = VitPoseBackbone(backbone_config()).blocks[0]
    tokens = torch.randn(2, TOKENS, WIDTH)
    parts = torch.cat([block.mlp(part, None) for part in tokens.split(3, dim=1)], dim=1)
    torch.testing.assert_close(parts, block.mlp(tokens, None))


# ------------------------------------------------------------------ every model: graphs


@pytest.mark.filterwarnings("ignore:.*get_attr:UserWarning")  # torch 2.6's, about the constant index
@torch.no_grad()
def test_torch_export(model: Model) -> None:
    inputs = inputs_of(model)
    if model.config.num_experts > 1:
        inputs["dataset_index"] = 1  # the routing of samples to experts cannot be part of a graph
    program = torch.export.export(model, (), inputs, strict=False)  # the default since torch 2.7
    found, wanted = program.module()(**inputs), model(**inputs)
    assert type(found) is type(wanted)
    torch.testing.assert_close(found.to_tuple(), wanted.to_tuple(), atol=1e-5, rtol=1e-4)


def test_number_of_parameters_is_that_of_the_modules(model: Model) -> None:
    assert model.num_parameters() == sum(tensor.numel() for tensor in nn.Module.parameters(model))
    model.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == 0
