"""What commands and options are called here that have other names in other tools."""

from __future__ import annotations

from collections.abc import Container

_COMMANDS = {
    "predict": "detect infer inference pose run track demo image video",
    "evaluate": "eval val validate validation test score",
    "train": "fit finetune fine-tune tune",
    "benchmark": "bench profile speed",
    "models": "list zoo checkpoints",
    "download": "fetch get pull",
    "data": "dataset datasets pack check",
}
_OPTIONS = {
    "--min-score": "--conf --conf-thres --conf-thr --confidence --score-thr --bbox-thr --det-thr --box-threshold",
    "--threshold": "--kpt-thr --kpt-thres --kpt-threshold --keypoint-threshold --kp-thr",
    "--oks-nms": "--iou --iou-thres --iou-thr --nms --nms-thr",
    "--model": "-m --weights --checkpoint --ckpt --model-path --model-name --pose2d --pose-model",
    "--detector": "--det-model --det --detection-model --person-detector",
    "--labels": "--classes --class --det-cat-ids --categories",
    "--out": "-o --output --output-dir --output-root --out-dir --out-file --save-dir --project --name --vis-out-dir",
    "--save": "--format --save-txt --save-json --save-vid --save-predictions",
    "--dtype": "--precision",
    "--dtype float16": "--half --fp16",
    "--flip-test": "--augment --tta --flip",
    "--detect-every": "--vid-stride --stride --skip-frames --det-interval",
    "--track": "--tracker --tracking",
    "--batch-size": "-b --batch --batchsize",
    "--workers": "-j --num-workers --jobs",
    "--device": "-d --gpu --cuda --cpu",
    "--thickness": "--line-width --line-thickness --thick",
    "--annotations": "-a --ann --ann-file --annotation --data --gt",
    "--images": "--img-dir --image-dir --img-root --img-path --image",
    "--metrics": "--metric --eval",
    "--to": "--format --backend",
    "--force": "-f --overwrite --exist-ok --yes -y",
}
_SOURCES = (
    "-i -s --source --input --inputs --img --image --images --video --img-path --image-path --video-path"
)
_SIZES = "--imgsz --img-size --imgsize --input-size --size"


def hint_at_command(name: str, commands: Container[str]) -> str:
    """Return what to do instead of an unknown command: "did you mean 'vitpose evaluate'?"; empty if unknown."""
    for command, others in _COMMANDS.items():
        if name.lower() in others.split() and command in commands:
            return f"did you mean 'vitpose {command}'?"
    return ""


def hint_at_option(name: str, command: str, options: list[str], argument: str) -> str:
    """Return what to do instead of an unknown option.

    Args:
        name: The option.
        command: The command that does not have it.
        options: The options that the command has.
        argument: Metavar of the command's argument; empty if it has none.

    Returns:
        A sentence; empty if no other name of the option is known.
    """
    for option, others in _OPTIONS.items():
        if name in others.split() and option.split()[0] in options:
            return f"{name} is called {option}"
    if name in _SOURCES.split() and argument == "SOURCE":
        return f"{name} is an argument without a name: vitpose {command} SOURCE"
    if name in _SIZES.split() and "--model" in options:
        return f"{name} is fixed by the model; 'vitpose models' lists the input size of each, for --model"
    if name in ("--show", "--view-img") and "--out" in options:
        return f"{name} is unsupported; drawn images and videos are written to the directory of --out"
    return ""
