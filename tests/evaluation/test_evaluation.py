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
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.keypoints.skeleton import Skeleton

pytest.importorskip("pycocotools")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SKELETON = Skeleton(
    "three", ("top", "left_end", "right_end"), ((0, 1), (0, 2)), ((1, 2),), sigmas=(0.1, 0.1, 0.1)
)
CELLS = np.array([[24.0, 10.0], [12.0, 40.0], [36.0, 40.0]])
BOX = [50.0, 10.0, 60.0, 80.0]  # the crop's aspect, so the crop is 1.25 as large around (80, 50)
TRUTH = CELLS * np.array([75, 100]) / [47, 63] + [80 - 37.5, 50 - 50]


@pytest.fixture
def pipe() -> Pipeline:
    engine = FakeEngine(CELLS, Size(width=48, height=64))
    return Pipeline(None, Estimator(engine, ModelSpec(dataset=DatasetSpec.of_skeleton(SKELETON))))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (160, 100)).save(folder / name)
    return folder


def annotated(*offsets_px: float) -> dict[str, Any]:
    """Makes one person for each image, with keypoints at an offset to the right of the engine's."""
    people = []
    for index, offset in enumerate(offsets_px):
        keypoints = np.concatenate([TRUTH + np.array([offset, 0]), np.full((3, 1), 2)], axis=1)
        people.append(
            {"id": index + 1, "image_id": index + 1, "category_id": 1, "bbox": BOX, "area": 2500.0, "iscrowd": 0,
             "keypoints": keypoints.ravel().tolist()}
        )  # fmt: skip
    return {
        "info": {},  # pycocotools before 2.0.11 requires it
        "images": [
            {"id": index + 1, "file_name": f"{name}.png", "width": 160, "height": 100}
            for index, name in zip(range(len(offsets_px)), "abcd", strict=False)
        ],
        "annotations": people,
        "categories": [{"id": 1, "keypoints": list(SKELETON.keypoints)}],
    }


def test_a_model_is_evaluated(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    path, steps = write(annotated(0, 8)), []
    report = evaluate_model(
        pipe, path, images, skeleton=SKELETON, metrics=["coco", "pck", "epe", "nme", "auc"], length="80",
        thresholds=[0.05, 0.2], advance=lambda *step: steps.append(step),
    )  # fmt: skip
    assert steps == [(1, 2), (2, 2)]
    assert report.numbers["pck"] == {"PCK@0.05 (80 px)": 0.5, "PCK@0.2 (80 px)": 1.0}
    assert report.numbers["epe"]["EPE px"] == pytest.approx(4, abs=0.1)
    assert report.numbers["nme"]["NME (80 px)"] == pytest.approx(0.05, abs=0.002)
    assert 0.5 < report.numbers["auc"]["AUC"] < 1
    assert report.numbers["coco"]["AP50"] == pytest.approx(1)
    assert report.by_keypoint["PCK@0.05 (80 px)"] == dict.fromkeys(SKELETON.keypoints, 0.5)
    assert report.counts == {"images": 2, "instances": 2, "predictions": 2, "instances with a prediction": 2}
    assert report.pairs.oks[1] < report.pairs.oks[0]


def test_saved_predictions_give_the_same_metrics(
    pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(annotated(0, 8))
    report = evaluate_model(pipe, path, images, skeleton=SKELETON, metrics=["coco", "epe"])
    report.save_results(tmp_path / "predictions.json")
    again = evaluate_predictions(
        tmp_path / "predictions.json", path, skeleton=SKELETON, metrics=["coco", "epe"]
    )
    assert again.numbers == report.numbers


def test_fault_a_pose_is_as_large_as_its_keypoints_and_not_as_its_box(
    pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    """As in pycocotools for results without `bbox`; a pose in a large box matches no person."""
    content = annotated(0, 0)
    content["annotations"][1]["area"] = 10_000.0
    detections = [
        {"image_id": image, "category_id": 1, "bbox": box, "score": score}
        for image, box, score in ((1, BOX, 0.6), (2, BOX, 0.6), (1, [10, 10, 120, 160], 0.9))
    ]
    path, boxes = write(content), write(detections, "boxes.json")
    report = evaluate_model(pipe, path, images, boxes=boxes, skeleton=SKELETON, metrics=["coco"])
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
    judge.params.kpt_oks_sigmas = np.array(SKELETON.sigmas)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert list(report.numbers["coco"].values()) == pytest.approx(list(judge.stats))
    assert report.numbers["coco"]["AP large"] == pytest.approx(1)
    assert report.numbers["coco"]["AP medium"] < 1


@pytest.mark.parametrize("name", ["coco", "aic", None])
def test_a_report_states_which_boxes_were_used(
    name: str | None, pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    spec = None
    if name is not None:
        rules = replace(DatasetSpec.load(name).evaluation, metrics=("epe",))
        spec = DatasetSpec(name=name, skeleton=SKELETON, evaluation=rules)
    path = write(annotated(0, 8))
    boxes = write([{"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9}], "boxes.json")
    options: dict[str, Any] = {"dataset": spec, "metrics": ["epe"]}
    in_truth = evaluate_model(pipe, path, images, **options)
    in_file = evaluate_model(pipe, path, images, boxes=boxes, skeleton=SKELETON, **options)
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
        "coco": "ground truth; published results of coco use a detector's boxes and are not comparable",
        "aic": "ground truth; published results of aic also use ground truth",
        None: "ground truth",
    }
    screen = io.StringIO()
    in_truth.print(Console(file=screen, width=150))
    assert f"boxes: {texts[name]}" in screen.getvalue()
    assert str(in_file.boxes).startswith(f"boxes: {boxes}")
    assert "boxes: not recorded in the predictions" in str(saved.boxes)


def test_repeated_poses_in_ground_truth_boxes_are_left_out_by_the_rules_of_some_datasets(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    """By those of AIC and AP-10K, as in the original, two boxes of one person give one pose."""
    content = annotated(0)
    content["annotations"].append({**content["annotations"][0], "id": 7, "bbox": [50.5, 10, 60, 80]})
    path, counts = write(content), {}
    for name in ("aic", "ap10k", "apt36k", "ochuman", "coco", "mpii"):
        rules = replace(DatasetSpec.load(name).evaluation, excluded=(), metrics=("coco",))
        spec = DatasetSpec(name=name, skeleton=SKELETON, evaluation=rules)
        report = evaluate_model(pipe, path, images, dataset=spec, skeleton=SKELETON)
        counts[name] = report.counts["predictions"]
        assert report.settings["max_oks"] == (0.9 if counts[name] == 1 else 1.0)
    assert counts == {"aic": 1, "ap10k": 1, "apt36k": 1, "ochuman": 1, "coco": 2, "mpii": 2}
    kept = evaluate_model(pipe, path, images, dataset=spec, skeleton=SKELETON, max_oks=1.0)
    assert kept.counts["predictions"] == 2


def test_keeping_all_poses_requires_no_sigmas(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    plain = Skeleton("plain", SKELETON.keypoints)
    bare = Pipeline(None, Estimator(pipe.estimator.engine, ModelSpec(dataset=DatasetSpec.of_skeleton(plain))))
    report = evaluate_model(bare, write(annotated(0)), images, max_oks=1.0, metrics=["epe"])
    assert report.counts["predictions"] == 1


def test_failures_are_reported_and_count_as_missed(
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
        "boxes entirely outside their image": ["b.png, box [500.0, 0.0, 10.0, 10.0]"],
        "boxes without area": ["a.png, box [10.0, 10.0, 0.0, 5.0]"],
        "images of another size than in the file": ["a.png: 160x100, not 170x100"],
    }
    assert report.numbers["pck"]["PCK@0.2 (80 px)"] == 0.25
    assert report.basis["epe"] == "3 keypoints of 12; the others are of instances without a prediction"
    assert report.counts["instances with a prediction"] == 1


def test_detections_are_used_unchanged(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    """A box across the border is not clipped; equal boxes give one pose; low scores and other rows are left out."""
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
    report = evaluate_model(
        pipe, path, images, boxes=boxes, min_score=0.1, skeleton=SKELETON, metrics=["coco"]
    )
    (only,) = report.results
    assert only.xywh == tuple(outside)
    assert only.keypoints[:, :2] == pytest.approx(TRUTH - np.array([80, 50]), abs=0.1)
    assert only.score == pytest.approx(0.9 * only.keypoints[:, 2].mean(), abs=1e-4)
    (fault,) = report.problems.names.pop("boxes that cannot be read")
    assert "boxes.json, row 6: bbox [0, 0, -5, 5] must be four finite numbers" in fault
    assert report.problems.names == {
        "boxes for an image that is not annotated": ["row 3, image 9"],
        "boxes of a category that is not annotated": ["row 4, dog"],
    }
    all_poses = evaluate_model(
        pipe, path, images, boxes=boxes, max_oks=1.0, skeleton=SKELETON, metrics=["coco"]
    )
    assert all_poses.counts["predictions"] == 3


def test_refuses_detections_without_a_usable_row(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    row = {"image_id": 1, "category_id": 0, "bbox": BOX, "score": 0.9}
    boxes = write([row, {**row, "bbox": 5}], "boxes.json")
    kinds = "boxes that cannot be read: 1; boxes of a category that is not annotated: 1"
    with pytest.raises(
        InputError, match=rf"boxes.json: 2 rows, none of which can be used .*file.json \({kinds}\)"
    ):
        evaluate_model(pipe, write(annotated(0)), images, boxes=boxes)
    none = evaluate_model(pipe, write(annotated(0)), images, boxes=write([], "boxes.json"))
    assert none.counts["predictions"] == 0


def test_pckh_reports_instances_without_a_head_box(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    content = annotated(8, 8)
    content["annotations"][0]["head_bbox"] = [0, 0, 30, 40]  # 30 px: 8 px are less than half of it
    report = evaluate_model(pipe, write(content), images, metrics=["pckh"])
    assert report.numbers["pckh"] == {"PCKh@0.1": 0, "PCKh@0.5": 1}
    (kind,) = report.problems.names
    assert kind == "instances in which the length 'head' cannot be measured: not in the metrics that use it"
    assert report.problems.names[kind] == ["b.png, annotation 2"]


def test_keypoints_of_another_skeleton(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    content = annotated(0, 8)
    content["categories"][0]["keypoints"] = ["right_end", "middle", "left_end"]
    for one in content["annotations"]:
        one["keypoints"] = [*one["keypoints"][6:], 80, 50, 2, *one["keypoints"][3:6]]
    other = Skeleton("other", ("right_end", "middle", "left_end"), sigmas=(0.1, 0.1, 0.1))
    report = evaluate_model(pipe, write(content), images, skeleton=other, metrics=["coco", "epe"])
    assert report.compared == ("right_end", "left_end")
    assert (report.unpredicted, report.unannotated) == (("middle",), ("top",))
    assert report.numbers["epe"]["EPE px"] == pytest.approx(4, abs=0.1)
    assert report.numbers["coco"]["AP50"] == pytest.approx(1)


def test_default_metrics_fit_the_file(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    assert set(evaluate_model(pipe, write(annotated(0)), images).numbers) == {"pck"}
    assert set(evaluate_model(pipe, write(annotated(0)), images, skeleton=SKELETON).numbers) == {"coco"}


def test_report_as_table_and_json(
    pipe: Pipeline, images: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    content = annotated(0, 0, 0)
    content["categories"][0]["keypoints"][1] = "left_top"
    report = evaluate_model(pipe, write(content), images, metrics=["epe"], flip_test=True)
    screen = io.StringIO()
    report.print(Console(file=screen, width=100))
    for expected in (
        "3 images, 3 instances, 2 predictions, 2 instances with a prediction",
        "flip test: on",
        "metric",
        "value",
        "EPE px",
        "not predicted: left_top",
        "not annotated: left_end",
        "images that failed",
    ):
        assert expected in screen.getvalue()
    report.save(tmp_path / "out/report.json")
    saved = json.loads((tmp_path / "out/report.json").read_text())
    assert saved == report.to_dict()
    assert saved["settings"]["flip_test"] is True
    assert saved["keypoints"]["unpredicted"] == ["left_top"]


def test_metrics_name_the_length_that_they_divide_by(write: Callable[..., Path]) -> None:
    content = annotated(0)
    titles = set()
    for length, name in {"box": "box", "top:left_end": "top:left_end", "12.5": "12.5 px"}.items():
        options: dict[str, Any] = {"length": length, "metrics": ["pck", "nme"], "thresholds": [0.2]}
        numbers = evaluate_predictions([], write(content), **options).numbers
        assert list(numbers["pck"]) == [f"PCK@0.2 ({name})"]
        assert list(numbers["nme"]) == [f"NME ({name})"]
        titles |= set(numbers["pck"])
    assert len(titles) == 3


def shown(report: Any) -> str:
    screen = io.StringIO()
    report.print(Console(file=screen, width=150))
    return screen.getvalue()


def test_reports_state_the_flip_test(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    path = write(annotated(0))
    report = evaluate_model(pipe, path, images, metrics=["epe"])
    assert "1 image, 1 instance, 1 prediction, 1 instance with a prediction\n" in shown(report)
    assert "flip test: off" in shown(report)
    saved = evaluate_predictions([result.to_row() for result in report.results], path, metrics=["epe"])
    assert "flip test: not recorded in the predictions" in shown(saved)


def test_a_limit_evaluates_the_first_images_and_is_stated(
    pipe: Pipeline, images: Path, write: Callable[..., Path]
) -> None:
    path = write(annotated(0, 8, 0))
    boxes = write(
        [{"image_id": id, "category_id": 1, "bbox": BOX, "score": 0.9} for id in (1, 2, 3)], "boxes.json"
    )
    for source in (None, boxes):
        report = evaluate_model(pipe, path, images, boxes=source, metrics=["epe"], limit=2, skeleton=SKELETON)
        assert report.counts["images"] == report.counts["predictions"] == 2
        assert report.numbers["epe"]["EPE px"] == pytest.approx(4, abs=0.1)
        assert not len(report.problems), "images beyond the limit are not problems"
        assert report.to_dict()["settings"]["limit"] == 2
        assert "limit: the first 2 images of 3" in shown(report)
    rows = [result.to_row() for result in report.results]
    first = evaluate_predictions(rows, path, metrics=["epe"], limit=1)
    assert first.counts == {"images": 1, "instances": 1, "predictions": 1, "instances with a prediction": 1}
    assert not len(first.problems)
    assert "limit: the first 1 image of 3" in shown(first)
    whole = evaluate_predictions(rows, path, metrics=["epe"], limit=7)
    assert "limit:" not in shown(whole)
    with pytest.raises(InputError, match="the limit is 0 images; give 1 or more, or omit it"):
        evaluate_predictions(rows, path, limit=0)


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
    with pytest.raises(
        InputError, match=r"there is no directory .*elsewhere; give the directory of the images"
    ):
        draw_worst(report, images / "elsewhere")
    with pytest.raises(InputError, match="count must be 1 or more, not 0"):
        draw_worst(report, images, 0)
    empty = evaluate_predictions([], write(annotated(0)), metrics=["epe"])
    with pytest.raises(
        InputError, match="no instance has a prediction to draw; check the problems in the report"
    ):
        draw_worst(empty, images)


def test_refuses_invalid_arguments(pipe: Pipeline, images: Path, write: Callable[..., Path]) -> None:
    path = write(annotated(0))
    with pytest.raises(UnknownNameError, match="unknown metric 'pkc'; did you mean pck"):
        evaluate_model(pipe, path, images, metrics=["pkc"])
    with pytest.raises(InputError, match=r"thresholds must be one or more numbers above 0, not \[0\.0\]"):
        evaluate_model(pipe, path, images, thresholds=[0.0])
    with pytest.raises(
        InputError, match=r"there is no directory .*elsewhere; give the directory of the images"
    ):
        evaluate_model(pipe, path, images / "elsewhere")
    plain = Skeleton("plain", SKELETON.keypoints)
    bare = Pipeline(None, Estimator(pipe.estimator.engine, ModelSpec(dataset=DatasetSpec.of_skeleton(plain))))
    with pytest.raises(
        InputError,
        match=r"the skeleton 'plain' has no sigmas, which OKS requires; .* --oks-nms 1 \(max_oks=1\)",
    ):
        evaluate_model(bare, path, images, max_oks=0.5)


def test_fault_worst_cases_of_images_beyond_the_size_limit_of_opencv(
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
    """LSP's 14 keypoints against COCO's 17: 12 are compared."""
    pipe = vitpose.load("vitpose-tiny", None, device="cpu")
    report = evaluate_model(pipe, shared_data / "lsp/val.json", shared_data / "lsp/images", metrics=["pck"])
    assert len(report.compared) == 12
    assert report.unpredicted == ("neck", "head_top")
    assert report.numbers["pck"]["PCK@0.2 (torso)"] == pytest.approx(0.672, abs=0.005)
