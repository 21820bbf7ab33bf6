"""Training data: annotated instances in, augmented crops and target heatmaps out.

    annotation_file  rows of COCO and MPII annotation files
    annotations      annotation files → `TrainingAnnotations`, with a report of unusable rows
    augment          random views of an instance: one warp, colours, occlusion
    pack             images decoded once into crops with a margin; a training run then reads only the pack
    pack_index       `pack.json`, and the margin of a pack's crops
    pack_parts       the safetensors files of a pack
    dataset          PyTorch datasets, and a sampler over several sources
    device_samples   the same samples computed on an accelerator, from a pack in its memory

Only `dataset` and `device_samples` import torch. Nothing here depends on a network.
"""
