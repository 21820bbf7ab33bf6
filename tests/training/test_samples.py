from __future__ import annotations

from dataclasses import replace

import pytest

from vitpose.data.dataset import MixSampler
from vitpose.errors import InputError
from vitpose.training.recipe import Recipe
from vitpose.training.samples import Samples, Stream


def test_the_stream_goes_on_where_it_stopped() -> None:
    def taken(start: int, count: int) -> list[tuple[int, int]]:
        stream = iter(Stream(MixSampler([5, 3], seed=4), start))
        return [next(stream) for _ in range(count)]

    assert taken(0, 30)[13:] == taken(13, 17)
    assert sorted(index for _, index in taken(0, 8)) == list(range(8))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_sample_is_as_the_recipe_has_it(recipe: Recipe, weighted: bool) -> None:
    target = replace(recipe.target, joint_weights=weighted, convention="msra", sigma=1.25)
    dataset = Samples(recipe).dataset(replace(recipe, target=target))
    assert (dataset.joint_weights, dataset.sigma, dataset.processor.warp) == (weighted, 1.25, "plain")
    assert (dataset.size.width, dataset.size.height, len(dataset)) == (48, 64, 40)


def test_a_source_may_be_cut_short(recipe: Recipe) -> None:
    first = recipe.sources[0]
    samples = Samples(replace(recipe, sources=(replace(first, limit=7), first)))
    assert [len(people) for people in samples.sources] == [7, 40]
    assert samples.sources[0].ids.tolist() == samples.sources[1].ids[:7].tolist()


def test_a_source_without_anybody_is_named_with_where_its_pictures_were_looked_for(recipe: Recipe) -> None:
    lost = replace(recipe.sources[0], images="/nowhere")
    message = (
        r"(?s)nobody can be trained on: .*arrows.json: 0 people .*/nowhere/0.png.*or give images, the folder"
    )
    with pytest.raises(InputError, match=message):
        Samples(replace(recipe, sources=(recipe.sources[0], lost)))
