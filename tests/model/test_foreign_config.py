from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vitpose.errors import CheckpointError, InputError, UnknownNameError, VitPoseError
from vitpose.model.config import VitPoseConfig
from vitpose.model.pose import VitPoseForPoseEstimation

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


@pytest.fixture
def malicious(tmp_path: Path) -> tuple[Path, Path]:
    """A repository whose code writes a marker file when executed, and the path of that file."""
    repository, marker = tmp_path / "repository", tmp_path / "marker"
    repository.mkdir()
    (repository / "configuration_evil.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).write_text('code ran')\n"
        "from transformers import ResNetConfig\nclass EvilConfig(ResNetConfig):\n    model_type = 'evil'\n"
    )
    table = {"model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.EvilConfig"}}
    (repository / "config.json").write_text(json.dumps(table))
    return repository, marker


def load(table: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "vitpose", "num_labels": 3, **table}))
    VitPoseForPoseEstimation(VitPoseConfig.from_pretrained(folder))


def test_the_repository_would_run_its_code_if_it_were_trusted(
    malicious: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    repository, marker = malicious
    transformers.AutoConfig.from_pretrained(repository, trust_remote_code=True)
    assert marker.exists()


def test_exploit_configuration_that_trusts_remote_code(malicious: tuple[Path, Path], tmp_path: Path) -> None:
    repository, marker = malicious
    table = {"backbone": str(repository), "backbone_kwargs": {"trust_remote_code": True}}
    with pytest.raises(CheckpointError, match="unknown key of backbone_kwargs 'trust_remote_code'"):
        load(table, tmp_path / "model")
    assert not marker.exists()


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "quantization_config", "code_revision"])
def test_exploit_described_backbone_that_names_code(
    key: str, malicious: tuple[Path, Path], tmp_path: Path
) -> None:
    repository, marker = malicious
    named = {"AutoConfig": f"{repository}--configuration_evil.EvilConfig"}
    with pytest.raises(CheckpointError, match=f"backbone_config.{key} would let another library run code"):
        load({"backbone_config": {**RESNET, key: named}}, tmp_path / "model")
    assert not marker.exists()


def test_exploit_attention_kernels_of_a_repository() -> None:
    for key in ("attn_implementation", "experts_implementation"):
        with pytest.raises(InputError, match=f"backbone_config.{key} is 'evil/kernel', which may name code"):
            VitPoseConfig(backbone_config={**RESNET, key: "evil/kernel"})
        assert VitPoseConfig(backbone_config={**RESNET, key: "sdpa"}).backbone_config[key] == "sdpa"


def test_internal_and_empty_keys_are_dropped() -> None:
    table = {**RESNET, "_attn_implementation": "sdpa", "_name_or_path": "x", "quantization_config": None}
    assert VitPoseConfig(backbone_config=table).backbone_config == RESNET


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_hidden_layers": 10**7},
            "backbone_config.num_hidden_layers is out of range; the maximum is 256",
        ),
        ({"depths": [1, 10**7]}, "backbone_config.depths is out of range; the maximum is 256"),
        ({"hidden_sizes": [10**6]}, "backbone_config.hidden_sizes is out of range; the maximum is 16384"),
        ({"embed_dim": 10**6}, "backbone_config.embed_dim is out of range; the maximum is 16384"),
        ({"depths": [10**400]}, "backbone_config.depths is out of range; the maximum is 256"),
        ({"image_size": 10**9}, "backbone_config.image_size is out of range; the maximum is 1000000"),
        (
            {"text_config": {"layer_norm_eps": float("nan")}},
            "backbone_config.text_config.layer_norm_eps is out of",
        ),
        ({"depths": [1] * 5000}, "backbone_config.depths has 5000 entries; the maximum is 4096"),
        ({f"a{i}": 1 for i in range(5000)}, "backbone_config has 5004 keys; the maximum is 4096"),
        ({"hidden_act": "a" * 5000}, "backbone_config.hidden_act has 5000 characters; the maximum is 4096"),
        (
            {"hidden_act": object()},
            "backbone_config.hidden_act is a object; use numbers, strings, lists and dict",
        ),
        ({3: 4}, "backbone_config has the key 3; keys must be strings"),
    ],
)
def test_impossible_values_are_refused(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(VitPoseError, match=message):
        VitPoseConfig(backbone_config={**RESNET, **changes})


def test_only_known_keywords_reach_another_library() -> None:
    config = VitPoseConfig(backbone="resnet18", backbone_kwargs={"out_indices": (1,), "img_size": [64, 48]})
    assert config.backbone_kwargs == {"out_indices": [1], "img_size": [64, 48]}
    with pytest.raises(
        UnknownNameError, match="unknown key of backbone_kwargs 'out_indexes'; did you mean out_ind"
    ):
        VitPoseConfig(backbone="resnet18", backbone_kwargs={"out_indexes": [1]})
    with pytest.raises(InputError, match=r"backbone_kwargs.num_hidden_layers is out of range"):
        VitPoseConfig(backbone="resnet18", backbone_kwargs={"num_hidden_layers": 10**7})
