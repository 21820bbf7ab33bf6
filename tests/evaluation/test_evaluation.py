from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import vitpose
from vitpose.engines.fake import FakeEngine
from vitpose.errors import InputError, UnknownNameError
from vitpose.evaluation import draw_worst, evaluate_model, evaluate_predictions
from vitpose.geometry.boxes import Size
from vitpose.inference.estimator import Estimator
from vitpose.inference.pipeline import Pipeline
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.skeleton import Skeleton
from vitpose.processing.image_processor import VitPoseImageProcessor

pytest.importorskip("pycocotools")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BONES = Skeleton(
    "three", ("top", "left_end", "right_end"), ((0, 1), (0, 2)), ((1, 2),), sigmas=(0.1, 0.1, 0.1)
)
CELLS = np.array([[24.0, 10.0], [12.0, 40.0], [36.0, 40.0]])
BOX = [50.0, 10.0, 60.0, 80.0]  # the crop's aspect, so the crop is 1.25 as large around (80, 50)
TRUTH = CELLS * np.array([75, 100]) / [47, 63] + [80 - 37.5, 50 - 50]


@pytest.fixture
def pipe() -> Pipeline:
    engine = FakeEngine(CELLS, Size(width=48, height=64))
    return Pipeline(None, Estimator(engine, VitPoseImageProcessor(), BONES))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (160, 100)).save(folder / name)
    return folder


def annotated(*away: float) -> dict[str, Any]:
    """One person an image, whose points lie so many pixels to the right of what the engine finds."""
    people = []
    for index, pixels in enumerate(away):
        points = np.concatenate([TRUTH + np.array([pixels, 0]), np.full((3, 1), 2)], axis=1)
        people.append(
            {"id": index + 1, "image_id": index + 1, "category_id": 1, "bbox": BOX, "area": 2500.0, "iscrowd": 0,
             "keypoints": points.ravel().tolist()}
        )  # fmt: skip
    return {
        "images": [
            {"id": index + 1, "file_name": f"{name}.png", "width": 160, "height": 100}
            for index, name in zip(range(len(away)), "abcd", strict=False)
        ],
        "annotations": people,
        "categories": [{"id": 1, "keypoints": list(BONES.keypoints)}],
    }


def test_a_model_is_measured(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    path, steps = write(annotated(0, 8)), []
    report = evaluate_model(
        pipe, path, images, skeleton=BONES, metrics=["coco", "pck", "epe", "nme", "auc"], length="80",
        thresholds=[0.05, 0.2], advance=lambda *step: steps.append(step),
    )  # fmt: skip
    assert steps == [(1, 2), (2, 2)]
    assert report.numbers["pck"] == {"PCK@0.05": 0.5, "PCK@0.2": 1.0}
    assert report.numbers["epe"]["EPE px"] == pytest.approx(4, abs=0.1)
    assert report.numbers["nme"]["NME"] == pytest.approx(0.05, abs=0.002)
    assert 0.5 < report.numbers["auc"]["AUC"] < 1
    assert report.numbers["coco"]["AP50"] == pytest.approx(1)
    assert report.by_keypoint["PCK@0.05"] == dict.fromkeys(BONES.keypoints, 0.5)
    assert report.counts == {"images": 2, "people": 2, "predictions": 2, "people with a prediction": 2}
    assert report.pairs.oks[1] < report.pairs.oks[0]


def test_saved_predictions_give_the_same(
    pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(annotated(0, 8))
    report = evaluate_model(pipe, path, images, skeleton=BONES, metrics=["coco", "epe"])
    report.save_results(tmp_path / "predictions.json")
    again = evaluate_predictions(tmp_path / "predictions.json", path, skeleton=BONES, metrics=["coco", "epe"])
    assert again.numbers == report.numbers


def test_fault_a_pose_is_as_large_as_its_keypoints_and_not_as_its_box(
    pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    """As pycocotools takes results without `bbox`, which the original's are: nobody is found in a large box."""
    content = annotated(0, 0)
    content["annotations"][1]["area"] = 10_000.0
    detections = [
        {"image_id": image, "category_id": 1, "bbox": box, "score": score}
        for image, box, score in ((1, BOX, 0.6), (2, BOX, 0.6), (1, [10, 10, 120, 160], 0.9))
    ]
    path, boxes = write(content), write(detections, "boxes.json")
    report = evaluate_model(pipe, path, images, boxes=boxes, skeleton=BONES, metrics=["coco"])
    report.save_results(tmp_path / "predictions.json")
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert not any("bbox" in row for row in rows)
    assert rows[1]["box_xywh"] == [10, 10, 120, 160]
    truth = COCO()
    for person in content["annotations"]:
        person["num_keypoints"] = 3
    truth.dataset = content
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(str(tmp_path / "predictions.json")), "keypoints")
    judge.params.kpt_oks_sigmas = np.array(BONES.sigmas)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert list(report.numbers["coco"].values()) == pytest.approx(list(judge.stats))
    assert report.numbers["coco"]["AP large"] == pytest.approx(1)
    assert report.numbers["coco"]["AP medium"] < 1


@pytest.mark.parametrize("name", ["coco", "aic", None])
def test_a_report_says_which_boxes_were_used(
    name: str | None, pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    own = None
    if name is not None:
        rules = replace(DatasetSpec.load(name).evaluation, metrics=("epe",))
        own = DatasetSpec(name=name, skeleton=BONES, evaluation=rules)
    path = write(annotated(0, 8))
    boxes = write([{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9}], "boxes.json")
    options: dict[str, Any] = {"dataset": own, "metrics": ["epe"]}
    in_truth = evaluate_model(pipe, path, images, **options)
    in_file = evaluate_model(pipe, path, images, boxes=boxes, skeleton=BONES, **options)
    in_truth.save_results(tmp_path / "predictions.json")
    saved = evaluate_predictions(tmp_path / "predictions.json", path, **options)
    assert [one.boxes.kind for one in (in_truth, in_file, saved)] == ["ground truth", "file", "predictions"]
    found = [one.to_dict()["boxes"] for one in (in_truth, in_file, saved)]
    published = {"coco": "a detector's boxes", "aic": "ground truth", None: None}[name]
    assert {one["published"] for one in found} == {published}
    expected = {"coco": [False, None, None], "aic": [True, False, None], None: [None, None, None]}[name]
    assert [one["comparable_with_published"] for one in found] == expected
    assert found[1]["path"] == str(boxes)
    texts = {
        "coco": "ground truth; the published figures of coco are in a detector's boxes, and not comparable",
        "aic": "ground truth; the published figures of aic are in ground truth too",
        None: "ground truth",
    }
    screen = io.StringIO()
    in_truth.print(Console(file=screen, width=150))
    assert f"boxes: {texts[name]}" in screen.getvalue()
    assert str(in_file.boxes).startswith(f"boxes: {boxes}")
    assert "as the predictions were made, which their file does not say" in str(saved.boxes)


def test_repeated_poses_in_ground_truth_boxes_go_where_the_original_leaves_them_out(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    """AIC and AP-10K; two boxes of one person give one pose there, and two elsewhere."""
    content = annotated(0)
    content["annotations"].append({**content["annotations"][0], "id": 7, "bbox": [50.5, 10, 60, 80]})
    path, counts = write(content), {}
    for name in ("aic", "ap10k", "apt36k", "ochuman", "coco", "mpii"):
        rules = replace(DatasetSpec.load(name).evaluation, uncounted=(), metrics=("coco",))
        own = DatasetSpec(name=name, skeleton=BONES, evaluation=rules)
        report = evaluate_model(pipe, path, images, dataset=own, skeleton=BONES)
        counts[name] = report.counts["predictions"]
        assert report.settings["max_oks"] == (0.9 if counts[name] == 1 else 1.0)
    assert counts == {"aic": 1, "ap10k": 1, "apt36k": 1, "ochuman": 1, "coco": 2, "mpii": 2}
    kept = evaluate_model(pipe, path, images, dataset=own, skeleton=BONES, max_oks=1.0)
    assert kept.counts["predictions"] == 2


def test_keeping_all_poses_needs_no_sigmas(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    plain = Skeleton("plain", BONES.keypoints)
    bare = Pipeline(None, Estimator(pipe.estimator.engine, pipe.estimator.processor, plain))
    report = evaluate_model(bare, write(annotated(0)), images, max_oks=1.0, metrics=["epe"])
    assert report.counts["predictions"] == 1


def test_what_fails_is_named_and_counts_as_missed(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    content = annotated(0, 0, 0, 0)
    content["annotations"][1]["bbox"] = [500, 0, 10, 10]
    content["annotations"][3].update(image_id=1, bbox=[10, 10, 0, 5])
    content["images"][0]["width"] = 170
    report = evaluate_model(pipe, write(content), images, metrics=["pck", "epe"], length="80")
    assert list(report.problems.images) == ["c.png"]
    assert "c.png" in report.problems.images["c.png"]
    assert report.problems.names == {
        "boxes wholly outside their image": ["b.png, box [500.0, 0.0, 10.0, 10.0]"],
        "boxes without area": ["a.png, box [10.0, 10.0, 0.0, 5.0]"],
        "images of another size than the file says": ["a.png: 160x100, not 170x100"],
    }
    assert report.numbers["pck"]["PCK@0.2"] == 0.25
    assert report.basis["epe"] == "3 points of 12; the others' people have no prediction"
    assert report.counts["people with a prediction"] == 1


def test_detections_are_taken_as_they_are(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    """A box over the border is not cut; two alike give one pose; a weak one, and others, are left out."""
    outside = [-30.0, -40.0, 60.0, 80.0]
    row = {"image_id": 1, "category_id": 1}
    detections = [
        {**row, "bbox": outside, "score": 0.9},
        {**row, "bbox": [-29.9, -40.0, 60.0, 80.0], "score": 0.8},
        {**row, "bbox": BOX, "score": 0.05},
        {**row, "image_id": 9, "bbox": BOX, "score": 0.9},
        {**row, "category_id": 18, "bbox": BOX, "score": 0.9},
        {**row, "iscrowd": 1},
        {**row, "bbox": [0, 0, -5, 5], "score": 0.9},
    ]
    path, boxes = write(annotated(0)), write(detections, "boxes.json")
    report = evaluate_model(pipe, path, images, boxes=boxes, min_score=0.1, skeleton=BONES, metrics=["coco"])
    (only,) = report.results
    assert only.xywh == tuple(outside)
    assert only.points[:, :2] == pytest.approx(TRUTH - np.array([80, 50]), abs=0.1)
    assert only.score == pytest.approx(0.9 * only.points[:, 2].mean(), abs=1e-4)
    (fault,) = report.problems.names.pop("boxes that cannot be read")
    assert "boxes.json, row 6: bbox [0, 0, -5, 5] must be four finite numbers" in fault
    assert report.problems.names == {
        "boxes for an image that is not annotated": ["row 3, image 9"],
        "boxes of a category that is not annotated": ["row 4, dog"],
    }
    everything = evaluate_model(
        pipe, path, images, boxes=boxes, max_oks=1.0, skeleton=BONES, metrics=["coco"]
    )
    assert everything.counts["predictions"] == 3


def test_detections_of_which_none_fits_are_refused(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    row = {"image_id": 1, "category_id": 0, "bbox": BOX, "score": 0.9}
    boxes = write([row, {**row, "bbox": 5}], "boxes.json")
    kinds = "boxes that cannot be read: 1; boxes of a category that is not annotated: 1"
    with pytest.raises(
        InputError, match=rf"boxes.json: none of its 2 rows can be used .*file.json \({kinds}\)"
    ):
        evaluate_model(pipe, write(annotated(0)), images, boxes=boxes)
    none = evaluate_model(pipe, write(annotated(0)), images, boxes=write([], "boxes.json"))
    assert none.counts["predictions"] == 0


def test_pckh_and_people_who_cannot_be_measured(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    content = annotated(8, 8)
    content["annotations"][0]["head_bbox"] = [0, 0, 30, 40]  # 30 px: 8 px are less than half of it
    report = evaluate_model(pipe, write(content), images, metrics=["pckh"])
    assert report.numbers["pckh"] == {"PCKh@0.1": 0, "PCKh@0.5": 1}
    (kind,) = report.problems.names
    assert kind.startswith("people of whom the length 'head' cannot be measured")
    assert report.problems.names[kind] == ["b.png, annotation 2"]


def test_points_of_another_skeleton(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    content = annotated(0, 8)
    content["categories"][0]["keypoints"] = ["right_end", "middle", "left_end"]
    for one in content["annotations"]:
        one["keypoints"] = [*one["keypoints"][6:], 80, 50, 2, *one["keypoints"][3:6]]
    own = Skeleton("other", ("right_end", "middle", "left_end"), sigmas=(0.1, 0.1, 0.1))
    report = evaluate_model(pipe, write(content), images, skeleton=own, metrics=["coco", "epe"])
    assert report.compared == ("right_end", "left_end")
    assert (report.unpredicted, report.unannotated) == (("middle",), ("top",))
    assert report.numbers["epe"]["EPE px"] == pytest.approx(4, abs=0.1)
    assert report.numbers["coco"]["AP50"] == pytest.approx(1)


def test_metrics_fit_the_file(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    assert set(evaluate_model(pipe, write(annotated(0)), images).numbers) == {"pck"}
    assert set(evaluate_model(pipe, write(annotated(0)), images, skeleton=BONES).numbers) == {"coco"}


def test_report_as_table_and_json(
    pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    content = annotated(0, 0, 0)
    content["categories"][0]["keypoints"][1] = "left_top"
    report = evaluate_model(pipe, write(content), images, metrics=["epe"], flip_test=True)
    screen = io.StringIO()
    report.print(Console(file=screen, width=100))
    for words in (
        "3 images",
        "EPE px",
        "not predicted: left_top",
        "not annotated: left_end",
        "images that failed",
    ):
        assert words in screen.getvalue()
    report.save(tmp_path / "out/report.json")
    saved = json.loads((tmp_path / "out/report.json").read_text())
    assert saved == report.to_dict()
    assert saved["settings"]["flip_test"] is True
    assert saved["keypoints"]["unpredicted"] == ["left_top"]


def test_worst_cases_are_drawn(
    pipe: Pipeline, images: Path, write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    report = evaluate_model(pipe, write(annotated(0, 8)), images, metrics=["epe"])
    sheet = draw_worst(report, images, 5)
    assert sheet.shape == (262, 960, 3)  # two cases, two views each
    worst = draw_worst(report, images, 1)
    assert (worst == sheet[:, :480]).all()
    assert (worst[22:, :240] != worst[22:, 240:]).any()
    assert not caplog.messages
    (images / "b.png").unlink()
    assert draw_worst(report, images, 1).shape == (262, 480, 3)
    assert caplog.messages[0].startswith("b.png is drawn grey: ")
    with pytest.raises(InputError, match=r"there is no folder .*elsewhere; give the folder of the images"):
        draw_worst(report, images / "elsewhere")
    with pytest.raises(InputError, match="count must be 1 or more, not 0"):
        draw_worst(report, images, 0)
    nobody = evaluate_predictions([], write(annotated(0)), metrics=["epe"])
    with pytest.raises(InputError, match="nobody has a prediction, so there is no worst one"):
        draw_worst(nobody, images)


def test_refusals(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    path = write(annotated(0))
    with pytest.raises(UnknownNameError, match="unknown metric 'pkc'; did you mean pck"):
        evaluate_model(pipe, path, images, metrics=["pkc"])
    with pytest.raises(InputError, match=r"thresholds must be above 0, and one at least, not \[0\.0\]"):
        evaluate_model(pipe, path, images, thresholds=[0.0])
    with pytest.raises(InputError, match=r"there is no folder .*elsewhere; give the folder of the images"):
        evaluate_model(pipe, path, images / "elsewhere")
    plain = Skeleton("plain", BONES.keypoints)
    bare = Pipeline(None, Estimator(pipe.estimator.engine, pipe.estimator.processor, plain))
    with pytest.raises(
        InputError, match=r"the skeleton 'plain' has no sigmas, so poses .* --oks-nms 1, or max_oks=1"
    ):
        evaluate_model(bare, path, images, max_oks=0.5)


def test_fault_worst_cases_of_images_longer_than_opencv_addresses(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    Image.new("RGB", (40_000, 100)).save(images / "a.png")
    content = annotated(0)
    content["images"][0]["width"] = 40_000
    report = evaluate_model(pipe, write(content), images, metrics=["epe"])
    assert draw_worst(report, images).shape == (262, 480, 3)


def test_functions_are_not_hidden_by_the_package() -> None:
    import vitpose.evaluation as package

    assert vitpose.evaluation is package
    assert vitpose.evaluate_model is package.evaluate_model


def test_the_shipped_model_on_real_photographs(shared_data: Path) -> None:
    """LSP's fourteen points against COCO's seventeen: twelve are compared."""
    pipe = vitpose.load("vitpose-tiny", None, device="cpu")
    report = evaluate_model(pipe, shared_data / "lsp/val.json", shared_data / "lsp/images", metrics=["pck"])
    assert len(report.compared) == 12
    assert report.unpredicted == ("neck", "head_top")
    assert report.numbers["pck"]["PCK@0.2"] == pytest.approx(0.672, abs=0.005)
