"""What takes long to import is imported where it is used."""

import copy
import math
import pickle
import subprocess
import sys

import pytest

from adamode import models
from adamode.solvers.lazy import Later


@pytest.mark.parametrize("modules", ["adamode.train", "adamode.train.data, adamode.cli.train"])
def test_nothing_imports_torchvision_before_images_are_read(modules):
    code = (
        f"import sys, {modules}; print(sorted(m for m in ('torchvision', 'matplotlib') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda later: pickle.loads(pickle.dumps(later))],
    ids=["copy", "deep", "pickle"],
)
@pytest.mark.parametrize("asked", [False, True])
def test_a_module_for_later_can_be_copied_and_pickled(again, asked):
    later = Later("math")
    assert not asked or later.pi == math.pi
    assert again(later).pi == math.pi
    assert not hasattr(again(later), "nothing")
    assert "pi" in dir(again(later))


def test_a_module_for_later_that_is_not_made_yet_has_no_attributes():
    assert not hasattr(Later.__new__(Later), "pi")


@pytest.mark.parametrize("name", ["nothing", "x.y", "", "a b", "../solvers", "_private"])
def test_a_package_has_no_attribute_of_a_name_that_is_no_part_of_it(name):
    assert not hasattr(models, name)
