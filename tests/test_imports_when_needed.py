"""What takes long to import is imported where it is used."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("modules", ["adamode.train", "adamode.train.data, adamode.cli.train"])
def test_nothing_imports_torchvision_before_images_are_read(modules):
    code = (
        f"import sys, {modules}; print(sorted(m for m in ('torchvision', 'matplotlib') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
