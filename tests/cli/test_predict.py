"""`vitpose predict` on small images, in this process, with the shipped model."""

from __future__ import annotations

import csv
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import vitpose
from vitpose.cli import app
from vitpose.inference.pipeline import Pipeline

WIDE = {"COLUMNS": "250"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_image(path: str | Path, width: int = 60, height: int = 80) -> Path:
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (height, width, 3), np.uint8)
    vitpose.save_image(path, pixels)
    return Path(path)


def predict(*arguments: str | Path, detector: str | None = "whole-image") -> Result:
    choice = [] if detector is None else ["--detector", detector]
    command = ["predict", "--device", "cpu", *choice, *map(str, arguments)]
    return CliRunner().invoke(app, command, env=WIDE, catch_exceptions=False)


def described(folder: str = "predictions") -> list[dict]:
    return json.loads((Path(folder) / "poses.json").read_text(encoding="utf-8"))


def written(folder: str = "predictions") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def test_an_image_gives_a_drawn_image_and_json() -> None:
    make_image("a.png")
    result = predict("a.png")
    assert result.exit_code == 0, result.output
    assert re.fullmatch(
        r"1 image, 1 instance in \d+\.\d s with vitpose-tiny \(torch, cpu, \w+\) and detector whole-image; "
        r"results in predictions\n"
        r"vitpose-tiny is for a first look; for accurate keypoints: --model vitpose-base-simple --detector rtdetr "
        r"\(downloads 514 MB once\)\n",
        result.stdout,
    )
    assert result.stderr == ""
    assert written() == {"a.jpg", "poses.json"}
    assert vitpose.read_image("predictions/a.jpg").shape == (80, 60, 3)
    (entry,) = described()
    assert (entry["image"], entry["drawn"], entry["width"], entry["height"]) == ("a.png", "a.jpg", 60, 80)
    assert entry["skeleton"] == "coco"
    (person,) = entry["poses"]
    assert len(person["keypoints"]) == 17
    assert set(person["keypoints"]["nose"]) == {"x", "y", "score"}


def test_results_equal_those_of_the_pipeline() -> None:
    make_image("a.png")
    predict("a.png", "--flip-test", "--save", "json")
    pipe = vitpose.load(detector="whole-image", device="cpu")
    assert described()[0]["poses"] == pipe("a.png", flip_test=True).to_dict()["poses"]


def test_all_kinds_agree() -> None:
    for name in ("b7.png", "a12.png"):
        make_image(name)
    assert predict("b7.png", "a12.png", "--save", "csv,coco,json,images").exit_code == 0
    assert written() == {"b7.jpg", "a12.jpg", "poses.json", "coco.json", "coco_images.json", "poses.csv"}
    entries = described()
    assert [entry["image"] for entry in entries] == ["b7.png", "a12.png"]
    results = json.loads(Path("predictions/coco.json").read_text())
    assert [result["image_id"] for result in results] == [7, 12]
    images = json.loads(Path("predictions/coco_images.json").read_text())
    assert images[0] == {"id": 7, "file_name": "b7.png", "width": 60, "height": 80}
    with Path("predictions/poses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 17
    nose, point = rows[0], entries[0]["poses"][0]["keypoints"]["nose"]
    assert (nose["image"], nose["instance"], nose["keypoint"]) == ("b7.png", "0", "nose")
    assert [float(nose[key]) for key in ("x", "y", "score")] == list(point.values())
    assert results[0]["keypoints"][:2] == pytest.approx([point["x"], point["y"]], abs=0.01)
    box = [float(nose[key]) for key in ("left", "top", "right", "bottom")]
    assert box == entries[0]["poses"][0]["box_xyxy"]


def test_the_threshold_is_for_drawing_only() -> None:
    make_image("a.png")
    predict("a.png", "--out", "all", "--threshold", "0")
    predict("a.png", "--out", "none", "--threshold", "1")
    assert described("all") == described("none")
    assert Path("all/a.jpg").read_bytes() != Path("none/a.jpg").read_bytes()


def test_drawing_options_are_those_of_draw() -> None:
    make_image("a.png")
    options = "--colours #ff8800 --thickness 3 --radius 5 --draw names --threshold 0.1"
    assert predict("a.png", "--out", "drawn.png", *options.split()).exit_code == 0
    poses = vitpose.load(detector="whole-image", device="cpu")("a.png")
    expected = vitpose.draw(
        "a.png", poses, colours="#ff8800", thickness=3, radius=5, names=True, threshold=0.1
    )
    assert np.array_equal(vitpose.read_image("drawn.png"), expected)


def test_a_bad_image_does_not_stop_the_run() -> None:
    good = make_image("images/good.jpg")
    Path("images/cut[1].jpg").write_bytes(good.read_bytes()[:700])
    Path("images/empty.png").touch()
    make_image("images/zebra.jpg")
    result = predict("images", "missing.jpg")
    assert result.exit_code == 1
    assert result.stdout.startswith("2 of 4 images, 2 instances, 3 failures in ")
    table = dict(line.split(None, 1) for line in result.stderr.splitlines() if len(line.split()) > 1)
    assert table["failed"].strip() == "reason"
    assert table["images/empty.png"].startswith("is empty; ")
    assert table["images/cut[1].jpg"].startswith("is truncated: ")
    assert table["missing.jpg"].startswith("does not exist; ")
    assert written() == {"good.jpg", "zebra.jpg", "poses.json"}
    assert [entry["image"] for entry in described()] == ["images/good.jpg", "images/zebra.jpg"]


def test_the_model_is_not_loaded_without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitpose, "load", lambda **_: pytest.fail("the model was loaded"))
    Path("empty").mkdir()
    result = predict("missing.jpg", "nothing*.png", "empty")
    assert result.exit_code == 1
    assert "missing.jpg" in result.stderr
    assert "no image or video matches nothing*.png; check the pattern" in result.stderr
    assert "has no images or videos, nor do its subdirectories; they are recognised by" in result.stderr
    assert not Path("predictions").exists()


@pytest.mark.parametrize("out", ["drawn.png", "new/drawn.webp", "DRAWN.JPG"])
def test_a_file_as_output_of_one_image(out: str) -> None:
    make_image("a.png")
    result = predict("a.png", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert f"; results in {out}\n" in result.stdout
    assert vitpose.read_image(out).shape == (80, 60, 3)
    assert {path.name for path in Path().rglob("*") if path.is_file()} == {"a.png", Path(out).name}


def test_images_with_the_same_stem_do_not_overwrite_each_other() -> None:
    for name in ("in/x/a.jpg", "in/y/a.jpg", "in/y/a.png", "in/y/A.bmp", "in/y/a-2.png"):
        make_image(name)
    assert predict("in").exit_code == 0
    drawn = {entry["image"]: entry["drawn"] for entry in described()}
    assert drawn == {
        "in/x/a.jpg": "x/a.jpg",
        "in/y/A.bmp": "y/A.jpg",
        "in/y/a-2.png": "y/a-2.jpg",
        "in/y/a.jpg": "y/a-3.jpg",
        "in/y/a.png": "y/a-4.jpg",
    }
    assert written() == {*drawn.values(), "poses.json"}


def test_a_source_given_twice_is_predicted_once(here: Path) -> None:
    make_image("in/a.jpg")
    assert predict("in", "in/a.jpg", here / "in" / "a.jpg", "in/../in/*.jpg").exit_code == 0
    assert len(described()) == 1


def test_a_second_run_skips_the_drawn_images() -> None:
    make_image("a.jpg")
    for _ in range(2):
        assert predict(".").exit_code == 0
        assert predict("**/*.jpg").exit_code == 0
        assert written() == {"a.jpg", "poses.json"}
    Path("a.jpg").unlink()
    result = predict(".")
    assert result.exit_code == 1
    message = (
        "has no images or videos except those in the output directory predictions; give other sources, or another "
        "--out"
    )
    assert message in result.stderr


def test_sources_are_never_overwritten() -> None:
    before = make_image("in/a.jpg").read_bytes()
    Path("links").mkdir()
    Path("links/a.jpg").symlink_to(Path("in/a.jpg").absolute())
    for source, out in (("in", "in"), ("in/a.jpg", "in"), ("links/a.jpg", "links"), ("links/a.jpg", "in")):
        result = predict(source, "--out", out)
        assert result.exit_code == 1
        assert re.match(
            rf"error: drawn images would be written to {out}, which contains sources, and could replace them; "
            "choose another output directory",
            result.stderr,
        )
        assert Path("in/a.jpg").read_bytes() == before
    assert predict("in", "--out", "in", "--save", "json").exit_code == 0
    assert written("in") == {"a.jpg", "poses.json"}


def test_unusual_file_names(here: Path) -> None:
    names = ["-dash.png", "with space.png", "日本 ü.png", "[red]a[1].png", "a.b.c.png", "'quoted\".png"]
    for name in names:
        make_image(here / name)
    result = predict("--save", "images,json,csv", "--", *names)
    assert result.exit_code == 0, result.stderr
    assert [entry["image"] for entry in described()] == names
    assert written() == {name.replace(".png", ".jpg") for name in names} | {"poses.json", "poses.csv"}
    with Path("predictions/poses.csv").open(newline="", encoding="utf-8") as file:
        assert [row["image"] for row in csv.DictReader(file)][::17] == names


@pytest.mark.skipif(sys.platform != "linux", reason="other systems require Unicode file names")
def test_a_file_name_that_is_not_unicode() -> None:
    name = os.fsdecode(b"caf\xe9.png")
    make_image("plain.png").rename(name)
    assert predict(name, "--save", "images,json,csv").exit_code == 0
    assert described()[0]["image"] == name
    assert Path("predictions", name).with_suffix(".jpg").exists()


@pytest.fixture
def server_url(here: Path) -> Iterator[str]:
    make_image(here / "served" / "some photo.png")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(here / "served"))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_urls(server_url: str) -> None:
    make_image("in/x/a.png")
    result = predict(f"{server_url}/some%20photo.png?size=2", f"{server_url}/none.png", "in")
    assert result.exit_code == 1
    assert "404" in result.stderr
    assert written() == {"some_photo.jpg", "a.jpg", "poses.json"}


def test_an_image_without_poses_is_not_a_failure() -> None:
    make_image("a1.png")
    Path("boxes.json").write_text("[]")
    result = predict("a1.png", "--boxes", "boxes.json", "--save", "images,json,coco,csv", detector=None)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("1 image, 0 instances in")
    assert described()[0]["poses"] == []
    assert json.loads(Path("predictions/coco.json").read_text()) == []


def test_boxes_labels_and_min_score() -> None:
    make_image("a1.png")
    rows = [
        {"image_id": 1, "category_id": category, "bbox": [left, 5, 20, 40], "score": score}
        for category, left, score in ((1, 1, 0.9), (1, 10, 0.2), (18, 20, 0.8))
    ]
    Path("boxes.json").write_text(json.dumps(rows))

    def lefts(*options: str) -> list[float]:
        assert (
            predict("a1.png", "--boxes", "boxes.json", "--save", "json", *options, detector=None).exit_code
            == 0
        )
        return [person["box_xyxy"][0] for person in described()[0]["poses"]]

    assert lefts() == [1, 10]
    assert lefts("--min-score", "0.5") == [1]
    assert lefts("--labels", "dog, person") == [1, 20, 10]
    assert lefts("--labels", "all", "--batch-size", "1") == [1, 20, 10]
    assert lefts("--labels", "all", "--oks-nms", "0") == [1]


def test_max_pixels_and_skeleton() -> None:
    make_image("small.png", 10, 10)
    make_image("large.png", 100, 100)
    assert predict("small.png", "large.png", "--max-pixels", "100", "--skeleton", "ochuman").exit_code == 1
    assert [(entry["image"], entry["skeleton"]) for entry in described()] == [("small.png", "ochuman")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save", "json,image"], "error: unknown kind of output for images 'image'; did you mean images?"),
        (["--save", " , "], "error: unknown kind of output for images ' , ';"),
        (["--out", "a.png"], "error: --out a.png is the source and would be replaced; choose another name"),
        (
            ["--out", "b.mp4"],
            "error: --out b.mp4 is one drawn video, but the sources are 1 image; give a directory",
        ),
        (
            ["--out", "b.json"],
            "error: --out b.json is neither a directory nor a drawn image or video (.mp4);",
        ),
        (
            ["--out", "b.png", "--save", "json"],
            "error: --save json does not fit --out, which is one drawn file;",
        ),
        (["--out", "a.png/sub/deep"], "error: cannot write to a.png/sub/deep: Not a directory"),
        (["--out", "x" * 300], "cannot be a path: File name too long; pass a string"),
        (
            ["--boxes", "b.json"],
            "error: --detector has no effect with --boxes b.json, whose boxes are used; give one of the two",
        ),
    ],
)
def test_refuses_invalid_options_before_any_work(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitpose, "load", lambda **_: pytest.fail("the model was loaded"))
    make_image("a.png")
    result = predict("a.png", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir() == ["a.png"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "vitpose-tinny"], "error: unknown model 'vitpose-tinny'; did you mean vitpose-tiny"),
        (["--skeleton", "cocoa"], "error: unknown skeleton 'cocoa'; did you mean coco"),
        (["--device", "abacus"], "error: unknown device 'abacus'"),
        (["--dtype", "float17"], "error: unknown dtype 'float17'; did you mean float16"),
        (["--detector", "whole-images"], "did you mean whole-image"),
        (
            ["--labels", "dog"],
            "filter the boxes of a detector, but whole-image uses each image as one box",
        ),
        (["--min-score", "0.5"], "whole-image uses each image as one box; leave out what filters"),
        (["--detector", "onnx:none.onnx"], "error: there is no file none.onnx"),
        (["--detector", "boxes:none.json"], "error: none.json cannot be read"),
    ],
)
def test_errors_of_loading_are_one_line_without_a_traceback(options: list[str], message: str) -> None:
    make_image("a.png")
    result = predict("a.png", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not Path("predictions").exists()


@pytest.mark.parametrize(
    "options", [["--threshold", "2"], ["--batch-size", "0"], ["--min-score", "-1"], ["--oks-nms", "1.1"]]
)
def test_numbers_out_of_range_are_usage_errors(options: list[str]) -> None:
    make_image("a.png")
    result = predict("a.png", *options)
    assert result.exit_code == 2
    assert f"error: invalid value for '{options[0]}'" in result.stderr


@pytest.mark.parametrize("option", ["--threshold", "--min-score", "--oks-nms"])
def test_refuses_nan(option: str) -> None:
    make_image("a.png")
    Path("boxes.json").write_text("[]")
    result = predict("a.png", "--boxes", "boxes.json", option, "nan", detector=None)
    assert result.exit_code != 0
    assert option.removeprefix("--") in result.stderr.replace("_", "-").replace("max-oks", "oks-nms")


def stop_after(count: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    each = Pipeline.each

    def stopped(self: Pipeline, *arguments: object, **options: object) -> Iterator[vitpose.Prediction]:
        for number, prediction in enumerate(each(self, *arguments, **options)):
            if number == count:
                raise error
            yield prediction

    monkeypatch.setattr(Pipeline, "each", stopped)


def test_an_interruption_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png", "c.png"):
        make_image(name)
    stop_after(2, KeyboardInterrupt(), monkeypatch)
    result = predict("a.png", "b.png", "c.png", "--save", "images,json,coco,csv")
    assert result.exit_code == 130
    assert result.stdout.startswith("2 of 3 images, 2 instances in ")
    assert result.stderr == "error: interrupted\n"
    assert [entry["image"] for entry in described()] == ["a.png", "b.png"]
    assert "c.jpg" not in written()


def test_an_unexpected_error_keeps_what_is_done_and_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    make_image("a.png")
    make_image("b.png")
    stop_after(1, ZeroDivisionError("a bug"), monkeypatch)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        predict("a.png", "b.png")
    assert [entry["image"] for entry in described()] == ["a.png"]


def test_a_drawn_image_that_cannot_be_written_keeps_its_data() -> None:
    make_image("a.png")
    make_image("b.png")
    Path("predictions/a.jpg").mkdir(parents=True)
    result = predict("a.png", "b.png")
    assert result.exit_code == 1
    assert "Is a directory" in result.stderr
    assert [(entry["image"], entry.get("drawn")) for entry in described()] == [
        ("a.png", None),
        ("b.png", "b.jpg"),
    ]


def test_the_program_itself() -> None:
    make_image("-a.png")
    command = [sys.executable, "-m", "vitpose", "predict", "--detector", "whole-image", "--", "-a.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "1 image, 1 instance" in done.stdout
    assert done.stderr == ""
    assert written() == {"-a.jpg", "poses.json"}


def test_real_photographs_and_a_real_detector(shared_data: Path) -> None:
    network = shared_data / "detectors" / "rtmdet_nano_person_end2end.onnx"
    result = predict(shared_data / "samples" / "coco", detector=f"onnx:{network}")
    assert result.exit_code == 0, result.stderr
    entries = described()
    assert len(entries) == 4
    assert sum(len(entry["poses"]) for entry in entries) >= 10
    for entry in entries:
        drawn = vitpose.read_image(Path("predictions", entry["drawn"]))
        assert drawn.shape == (entry["height"], entry["width"], 3)
    assert written() == {f"{Path(entry['image']).stem}.jpg" for entry in entries} | {"poses.json"}


def test_datasets_by_name_or_number() -> None:
    make_image("a.png")
    result = predict("a.png", "--detector", "whole-image", "--dataset", "ap10k")
    assert (result.exit_code, "are not the 17 of the dataset 'ap10k'" in result.stderr) == (1, True)
    result = predict("a.png", "--detector", "whole-image", "--dataset", "1")
    assert (result.exit_code, "expert 1 does not exist; the network has 1" in result.stderr) == (1, True)
    result = predict("a.png", "--detector", "whole-image", "--dataset", "coco, ap10k")
    assert (result.exit_code, "are not the 17 of the dataset 'ap10k'" in result.stderr) == (1, True)
    assert predict("a.png", "--detector", "whole-image", "--dataset", "coco").exit_code == 0
