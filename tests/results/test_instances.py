"""What `Poses` and `MixedPoses` have in common: selection by name, JSON, drawings of their image, notebooks."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageShow

import vitpose
from vitpose.errors import InputError, OutputError, SkeletonError, UnknownNameError
from vitpose.geometry.boxes import Size
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.drawing import draw
from vitpose.results.mixed_poses import MixedPoses
from vitpose.results.poses import Poses

COCO, AP10K = Skeleton.load("coco"), Skeleton.load("ap10k")
SIZE = Size(width=64, height=48)


def poses_of(n: int = 2, skeleton: Skeleton = COCO, path: str | None = "person.jpg") -> Poses:
    rng = np.random.default_rng(n)
    k = len(skeleton)
    return Poses(
        xy=rng.uniform(0, 48, (n, k, 2)).astype(np.float32),
        scores=rng.uniform(0, 1, (n, k)).astype(np.float32),
        boxes=np.array([[row, 2, row + 40, 42] for row in range(n)], np.float32).reshape(n, 4),
        box_scores=np.linspace(1, 0.5, n, dtype=np.float32),
        skeleton=skeleton,
        image_size=SIZE,
        path=path,
    )


def mixed_poses(path: str | None = "zoo.jpg") -> MixedPoses:
    groups = {"coco": poses_of(2, path=path), "ap10k": poses_of(1, AP10K, path)}
    return MixedPoses(groups, np.array([[0, 1], [1, 0], [0, 0]]), ("person", "dog", "person"))


def test_a_keypoint_by_name_has_position_and_score_in_each_instance() -> None:
    poses = poses_of()
    wrist = poses["left_wrist"]
    k = COCO.index("left_wrist")
    np.testing.assert_array_equal(wrist[:, :2], poses.xy[:, k])
    np.testing.assert_array_equal(wrist[:, 2], poses.scores[:, k])
    assert poses[:0]["nose"].shape == (0, 3)
    with pytest.raises(UnknownNameError, match="unknown keypoint 'left_hand'; did you"):
        poses["left_hand"]


def test_normalised_keypoints() -> None:
    poses = poses_of()
    np.testing.assert_allclose(poses.xyn * [64, 48], poses.xy, rtol=1e-6)
    message = r"image of these poses is unknown; set it: dataclasses.replace\(poses, image_size="
    with pytest.raises(InputError, match=message):
        _ = replace(poses, image_size=None).xyn


def test_selections_keep_the_image() -> None:
    for part in (poses_of()[0], poses_of()[:1], mixed_poses()[1], mixed_poses()[:2]):
        assert part.image_size == SIZE
        assert part.path in ("person.jpg", "zoo.jpg")
    assert Poses.empty(COCO, SIZE).image_size == SIZE


@pytest.mark.parametrize("tracked", [False, True])
def test_poses_from_their_dictionary(tracked: bool) -> None:
    xy = poses_of().xy.copy()
    xy[1, 3] = np.nan
    poses = replace(poses_of(), xy=xy, ids=np.array([7, -1]) if tracked else None)
    read = Poses.from_json(poses.to_json())
    for name, tolerance in (("xy", 0.006), ("scores", 6e-5), ("boxes", 0.006), ("box_scores", 6e-5)):
        np.testing.assert_allclose(getattr(read, name), getattr(poses, name), rtol=0, atol=tolerance)
    assert (read.skeleton, read.image_size, read.path) == (COCO, SIZE, "person.jpg")
    assert read.track_ids == poses.track_ids
    assert read.to_dict()["poses"][0]["keypoints"] == poses.to_dict()["poses"][0]["keypoints"]
    assert Poses.from_dict(poses.to_dict() | {"drawn": "person.jpg"}).path == "person.jpg"


def test_zero_poses_from_their_dictionary() -> None:
    unknown = replace(Poses.empty(COCO), path=None)
    assert "image" not in unknown.to_dict()
    assert "width" not in unknown.to_dict()
    read = Poses.from_dict(unknown.to_dict())
    assert (len(read), read.xy.shape, read.image_size, read.path) == (0, (0, 17, 2), None, None)


def test_a_skeleton_that_does_not_ship_is_passed(tmp_path: Path) -> None:
    custom = replace(COCO, name="custom")
    data = replace(poses_of(), skeleton=custom).to_dict()
    assert Poses.from_dict(data, skeleton=custom).skeleton == custom
    message = "unknown skeleton 'custom'; .*If the poses have another skeleton, pass it"
    with pytest.raises(UnknownNameError, match=message):
        Poses.from_dict(data)
    data["skeleton"] = str(tmp_path / "any.toml")  # a name in data selects no file
    with pytest.raises(UnknownNameError, match=message.replace("custom", ".*any.toml")):
        Poses.from_dict(data)
    with pytest.raises(SkeletonError, match=r"there is no file .*any\.toml"):
        Poses.from_dict(data, skeleton=data["skeleton"])


def test_invalid_dictionaries_raise() -> None:
    data = poses_of(1).to_dict()
    with pytest.raises(InputError, match=r"poses: unknown key 'sceleton'; did you mean skeleton"):
        Poses.from_dict({"sceleton": "coco", "poses": []})
    with pytest.raises(InputError, match=r"poses is not valid JSON"):
        Poses.from_json("{")
    keypoints = dict(data["poses"][0]["keypoints"])
    keypoints["tail"] = keypoints.pop("nose")
    wrong = {**data, "poses": [{**data["poses"][0], "keypoints": keypoints}]}
    with pytest.raises(
        InputError, match=r"poses.0.keypoints and the skeleton 'coco' differ in nose, tail; pass"
    ):
        Poses.from_dict(wrong)
    wrong = {**data, "poses": [{**data["poses"][0], "box_xyxy": [1, 2, 3]}]}
    with pytest.raises(
        InputError, match=r"poses.0.box_xyxy is \[1.0, 2.0, 3.0\]; it must be left, top, right"
    ):
        Poses.from_dict(wrong)


def test_mixed_poses_from_their_dictionary() -> None:
    mixed = mixed_poses()
    read = MixedPoses.from_json(mixed.to_json())
    assert read.to_dict()["poses"][1]["keypoints"] == mixed.to_dict()["poses"][1]["keypoints"]
    assert (read.datasets, read.labels) == (mixed.datasets, mixed.labels)
    np.testing.assert_allclose(read[1].xy, mixed[1].xy, atol=0.006)
    assert (read.path, read.image_size) == ("zoo.jpg", SIZE)
    custom = {"coco": COCO, "ap10k": replace(AP10K, name="custom")}
    assert MixedPoses.from_dict(mixed.to_dict(), custom)["ap10k"].skeleton.name == "custom"
    data = mixed.to_dict()
    data["poses"][0]["dataset"] = "coco1"
    with pytest.raises(UnknownNameError, match="unknown dataset of an instance 'coco1'; did you mean coco"):
        MixedPoses.from_dict(data)


def test_selecting_mixed_poses() -> None:
    mixed = mixed_poses()
    for index in (slice(None, None, -1), [2, 1, 0], np.array([2, 1, 0])):
        turned = mixed[index]
        assert turned.labels == mixed.labels[::-1]
        np.testing.assert_array_equal(turned.boxes, mixed.boxes[::-1])
        np.testing.assert_array_equal(turned[0].xy, mixed[2].xy)
    people = mixed[np.array([True, False, True])]
    assert (len(people), people.datasets, len(people["ap10k"])) == (2, ("coco", "coco"), 0)
    np.testing.assert_array_equal(people[0].xy, mixed[0].xy)
    with pytest.raises(IndexError):
        mixed[[3]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "person.png"
    Image.fromarray(np.full((48, 64, 3), 120, np.uint8)).save(path)
    return path


@pytest.mark.parametrize("make", [poses_of, mixed_poses])
def test_poses_draw_on_the_file_that_they_were_estimated_in(make: type, image: Path, tmp_path: Path) -> None:
    poses = make(path=str(image))
    expected = draw(image, poses, threshold=0.1, boxes=True)
    np.testing.assert_array_equal(poses.draw(threshold=0.1, boxes=True), expected)
    for other in (image, str(image), Image.open(image), vitpose.read_image(image), image.read_bytes()):
        np.testing.assert_array_equal(poses.draw(other, threshold=0.1, boxes=True), expected)
    poses.save(tmp_path / "drawn.png", threshold=0.1, boxes=True)
    np.testing.assert_array_equal(vitpose.read_image(tmp_path / "drawn.png"), expected)
    with pytest.raises(TypeError, match="unexpected keyword argument 'box'"):
        poses.draw(box=True)


def test_poses_of_an_array_ask_for_their_image() -> None:
    poses = poses_of(path=None)
    with pytest.raises(InputError, match=r"the image of these poses is unknown, .*: poses.draw\(image\)"):
        poses.draw()
    assert poses.draw(np.zeros((48, 64, 3), np.uint8)).shape == (48, 64, 3)


def test_estimated_poses_know_size_and_path_of_their_image(tmp_path: Path) -> None:
    path = Path(shutil.copy(vitpose.samples.person(), tmp_path))
    pipe = vitpose.load("vitpose-tiny", detector="whole-image", device="cpu")
    named, array = pipe([path, vitpose.read_image(path)])
    assert (named.path, named.image_size) == (str(path), Size(width=332, height=432))
    assert (array.path, array.image_size) == (None, Size(width=332, height=432))
    assert pipe(path, boxes=[]).image_size == Size(width=332, height=432)
    assert not any(
        isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[2] == 3
        for value in vars(named).values()
    )  # no pixels


def test_showing(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    class Viewer(ImageShow.Viewer):
        def show(self, image: Image.Image, **_: object) -> int:
            shown.append(np.array(image))
            return 1

    monkeypatch.setattr(ImageShow, "_viewers", [Viewer()])
    poses = poses_of(path=str(image))
    poses.show(boxes=True)
    np.testing.assert_array_equal(shown[0], poses.draw(boxes=True))
    monkeypatch.setattr(ImageShow, "_viewers", [])
    with pytest.raises(OutputError, match=r"no program that shows images was found; .* with save\(path\)"):
        poses.show()


def test_show_displays_in_a_notebook(image: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    code = (
        "from vitpose.results.poses import Poses; from vitpose.keypoints.skeleton import Skeleton\n"
        f"Poses.empty(Skeleton.load('coco')).show({str(image)!r})"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert any("image/png" in output.get("data", {}) for output in notebook.cells[0].outputs)


@pytest.mark.parametrize("make", [poses_of, mixed_poses])
def test_notebooks_show_the_drawing_of_a_file_or_else_a_table(make: type, image: Path) -> None:
    poses = make(path=str(image))
    png = poses._repr_png_()
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png))), poses.draw())
    assert poses._repr_html_() is None
    for unknown in (make(path=None), make(path="gone.jpg"), make(path="http://127.0.0.1/a.jpg")):
        assert unknown._repr_png_() is None
        assert unknown._repr_html_().count("<tr>") == len(unknown) + 1
        assert f"<p>{type(unknown).__name__}: " in unknown._repr_html_()
    image.write_bytes(b"changed")
    assert poses._repr_png_() is None


def test_drawings_in_notebooks_are_small(tmp_path: Path) -> None:
    Image.new("RGB", (2000, 1000)).save(tmp_path / "large.jpg")
    poses = replace(poses_of(path=str(tmp_path / "large.jpg")), image_size=Size(width=2000, height=1000))
    assert Image.open(io.BytesIO(poses._repr_png_())).size == (800, 400)


def test_names_in_tables_are_escaped() -> None:
    mixed = replace(mixed_poses(path=None), labels=("<b>", "dog", "person"))
    assert "0: &lt;b&gt; (coco)" in mixed._repr_html_()


def test_json_names_the_image() -> None:
    for poses in (poses_of(), mixed_poses()):
        data = json.loads(poses.to_json())
        assert (data["image"], data["width"], data["height"]) == (poses.path, 64, 48)
