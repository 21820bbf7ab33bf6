"""Training data: annotated people in, augmented crops and target maps out.

    annotations   files of COCO's and MPII's form → `Annotations`, with a report of what is broken
    augment       how a person may be looked at: one warp, colours, occlusion
    pack          images decoded once into crops with margin, that a training runs from alone
    dataset       torch datasets and a sampler over several sources
    device        the same samples made on an accelerator, from a packed set that lives there

Torch is in `dataset` and `device` alone. Nothing here knows a network.
"""
