from __future__ import annotations

import pytest

from vitpose.detectors.labels import choose_labels, coco_labels
from vitpose.errors import UnknownNameError


def test_coco_has_80_classes_whose_ids_have_gaps():
    names = coco_labels()
    assert len(set(names.values())) == 80
    assert list(names) == sorted(names)
    assert (names[1], names[13], names[44], names[90]) == ("person", "stop sign", "bottle", "toothbrush")
    assert set(range(1, 91)) - set(names) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_all_labels_can_be_selected():
    assert choose_labels("all", ["cat", "dog"]) == {"cat", "dog"}


def test_the_default_is_people():
    assert choose_labels(None, ["person", "dog"]) == {"person"}


def test_one_label_may_be_a_string():
    assert choose_labels("cat", ["cat", "dog"]) == {"cat"}


def test_an_unknown_label_is_reported_with_the_nearest():
    message = r"unknown label 'persom'; did you mean person\?"
    with pytest.raises(UnknownNameError, match=message):
        choose_labels(("cat", "persom"), ["cat", "person"])


def test_the_error_names_the_option_for_every_class():
    with pytest.raises(UnknownNameError, match=r"labels=\"all\" selects every class\."):
        choose_labels("bird", ["cat"])
