"""The recipes for other trainers run as they are printed, where those are installed."""

import re
import warnings
from pathlib import Path

import pytest
import torch

import adamode

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize(
    ("package", "folder"), [("lightning", "from-lightning"), ("accelerate", "from-accelerate")]
)
def test_the_recipe_trains_and_saves_a_model(package, folder, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their imports
        pytest.importorskip(package, reason=f"{package} is not installed")
        (block,) = re.findall(r"^```py\n(.*?)^```$", (DOCS / f"{package}.md").read_text(), re.M | re.S)
        monkeypatch.chdir(tmp_path)
        namespace = {"__name__": "__page__"}
        exec(compile(block, f"{package}.md", "exec"), namespace)
    trained = namespace["module"].model if package == "lightning" else namespace["own"]
    again = adamode.load(tmp_path / folder)
    torch.manual_seed(0)
    x = torch.randn(3, 2)
    assert torch.equal(again(x), trained(x))
    assert trained.last_stats.nfe > 0
    first = adamode.models.create("adamnode", "circles").state_dict()
    moved = [name for name, p in trained.state_dict().items() if not torch.equal(p, first[name])]
    assert moved
