from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import vitpose.files.settings
from vitpose.errors import CheckpointError, InputError, OutputError
from vitpose.model.config import VitPoseConfig
from vitpose.processing.image_processor import VitPoseImageProcessor

KINDS = pytest.mark.parametrize(
    "settings", [VitPoseConfig.preset("small"), VitPoseImageProcessor(warp="plain")]
)
Settings = VitPoseConfig | VitPoseImageProcessor


@KINDS
def test_json_string_and_file_contain_the_dictionary(settings: Settings, tmp_path: Path) -> None:
    assert json.loads(settings.to_json_string()) == json.loads(json.dumps(settings.to_dict()))
    settings.to_json_file(tmp_path / "any.json")
    assert type(settings).from_json_file(tmp_path / "any.json") == settings
    assert type(settings).from_pretrained(tmp_path / "any.json") == settings
    assert settings.save_pretrained(tmp_path / "new") == [str(tmp_path / "new" / settings.FILE)]
    assert type(settings).from_pretrained(tmp_path / "new") == settings
    assert type(settings).from_pretrained(tmp_path, subfolder="new") == settings


@KINDS
def test_copies_and_pickles_are_equal(settings: Settings) -> None:
    for copied in (copy.copy(settings), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert copied == settings
        assert copied.to_json_string() == settings.to_json_string()


def test_to_diff_dict_has_the_differences_to_the_defaults() -> None:
    config = VitPoseConfig(use_simple_decoder=False)
    assert config.to_diff_dict() == {"model_type": "vitpose", "use_simple_decoder": False}
    processor = VitPoseImageProcessor(warp="plain")
    assert processor.to_diff_dict() == {"image_processor_type": "VitPoseImageProcessor", "warp": "plain"}


@KINDS
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", "is a list; a .* must be a JSON object"),
        (b"{", "any.json is not valid JSON"),
        (b'{"size": "\xff"}', "any.json is not valid JSON"),
        (b'{"size": NaN}', "any.json is not valid JSON: NaN is not a JSON number"),
        (b"[" * 200_000, "any.json is not valid JSON: it is nested too deeply"),
        (b'{"size": ' + b"9" * 5000 + b"}", "any.json is not valid JSON"),
    ],
)
def test_damaged_files_raise(settings: Settings, text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "any.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=message):
        type(settings).from_json_file(tmp_path / "any.json")


def test_missing_files_and_directories_raise(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none.json cannot be read: .*; check the path"):
        VitPoseConfig.from_json_file(tmp_path / "none.json")
    for name in ("n" * 5000, "~no-such-user/config.json", "null\0.json"):
        with pytest.raises(CheckpointError, match=r"cannot be a path: .*"):
            VitPoseConfig.from_json_file(name)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        VitPoseConfig().to_json_file(tmp_path / "taken" / "config.json")


@KINDS
def test_files_are_uploaded(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[dict[str, Any]] = []

    def take(folder: str, repo_id: str, **options: Any) -> str:
        uploads.append({"repo": repo_id, "files": [file.name for file in Path(folder).iterdir()], **options})
        return "https://hub/commit"

    monkeypatch.setattr(vitpose.files.settings, "upload_folder", take)
    assert settings.push_to_hub("me/pose", private=True) == "https://hub/commit"
    settings.save_pretrained(tmp_path / "pose", push_to_hub=True, commit_message="new")
    assert [upload["repo"] for upload in uploads] == ["me/pose", "pose"]
    assert uploads[0]["files"] == [settings.FILE]
    assert (uploads[0]["private"], uploads[1]["commit_message"]) == (True, "new")
    with pytest.raises(InputError, match="repo_id without push_to_hub=True would have no effect; set it or"):
        settings.save_pretrained(tmp_path, repo_id="me/pose")
