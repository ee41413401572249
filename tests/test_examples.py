"""The programs of docs/examples print what they say, draw a picture, and use the public face alone."""

import ast
import re

import pytest
import torch
from example_outputs import EXAMPLES, PICTURES, cells, difference, faults, rewritten
from matplotlib import image
from matplotlib import pyplot as plt

import adamode

PAGE = EXAMPLES[0].parent.parent / "examples.md"
LEAST, MOST = 60, 130  # lines of an example, blank ones among them
LARGEST = 60_000  # bytes of a picture
OTHER = 0.05  # of a picture's pixels: points lie elsewhere where a training took another course


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A folder of one's own, and torch's default dtype and pyplot's figures as they were."""
    before = torch.get_default_dtype()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.set_default_dtype(before)
    plt.close("all")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says_and_draws_a_picture(path, notebook):
    assert faults(path.read_text(encoding="utf-8"), path.name) == []
    picture = image.imread(notebook / f"{path.stem}.png")
    assert len({tuple(pixel) for pixel in picture[::4, ::4].reshape(-1, picture.shape[2])}) > 10
    shown = PICTURES / f"{path.stem}.png"
    assert shown.stat().st_size < LARGEST
    assert unlike(picture, image.imread(shown)) < OTHER


def unlike(one, other):
    """The share of the pixels in which two pictures differ by more than a palette does; 1 for other sizes."""
    if one.shape[:2] != other.shape[:2]:
        return 1.0
    return (abs(one[..., :3] - other[..., :3]).max(2) > 0.3).mean()


def test_a_picture_of_another_example_is_seen():
    first, second = (image.imread(PICTURES / f"{name}.png") for name in ("moons_flow", "own_field"))
    assert unlike(first, first) == 0
    assert unlike(first, second) > 2 * OTHER
    assert unlike(first, image.imread(PICTURES / "spiral.png")) == 1


def test_every_picture_is_of_an_example():
    assert sorted(path.stem for path in PICTURES.iterdir()) == [path.stem for path in EXAMPLES]


def test_the_page_lists_the_ten_examples():
    listed = re.findall(r"\]\(examples/(\w+)\.py\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(listed) == [path.stem for path in EXAMPLES]
    assert len(listed) == 10


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_begins_with_a_title(path):
    text = path.read_text(encoding="utf-8")
    assert LEAST <= text.count("\n") <= MOST
    first, second, *_ = cells(text)
    assert first.text.startswith("# ")
    assert first.code is None
    assert second.code is not None
    assert sum(cell.output is not None for cell in cells(text)) >= 2


def private_names(program):
    """Names of adamode that an example uses and the public face does not have."""
    public = {*adamode.__all__, "models", "verify"}
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adamode"):
            yield from (alias.name for alias in node.names if alias.name not in public)
        elif isinstance(node, ast.Attribute):
            root = isinstance(node.value, ast.Name) and node.value.id == "adamode"
            if (root and node.attr not in public) or re.match("_[^_]", node.attr):
                yield node.attr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_uses_public_names_alone(path):
    assert list(private_names(path.read_text(encoding="utf-8"))) == []


def test_a_private_name_is_seen():
    program = "import adamode\nfrom adamode import Event, secret\nadamode.solvers\nadamode.solve(f)._tape"
    assert sorted(private_names(program)) == ["_tape", "secret", "solvers"]


# The comparison itself.

PROGRAM = """# %% [markdown]
# # A title

# %%
x = 2 / 3
print(f"x = {x:.4f}")
print("done in", 12, "steps")

# Output:
# x = 0.6667
# done in 12 steps

# %%
y = x + 1
"""


def test_a_program_that_says_what_it_prints_has_no_fault():
    assert faults(PROGRAM, "p") == []
    assert rewritten(PROGRAM, "p") == PROGRAM


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("x = 0.6667", "x = 0.6690", "it says 'x = 0.6690', but prints 'x = 0.6667'"),
        ("x = 0.6667", "x = -0.6667", "it says 'x = -0.6667'"),
        ("# x =", "# z =", "it says 'z = 0.6667'"),
        ("12 steps\n\n", "13 steps\n\n", "it says 'done in 13 steps'"),
        ("# done in 12 steps\n", "", "it says 1 lines, but prints 2"),
        ("\n# Output:\n# x = 0.6667\n# done in 12 steps\n", "", "does not say that it prints 'x = 0.6667"),
        ("y = x + 1\n", "y = x + 1\n\n# Output:\n# 1.6667\n", "prints nothing"),
        ("print(f", "str(f", "it says 'x = 0.6667', but prints 'done in 12 steps'"),
    ],
)
def test_a_planted_fault_is_found_and_written_right(right, wrong, said):
    planted = PROGRAM.replace(right, wrong)
    assert planted != PROGRAM
    (fault,) = faults(planted, "p")
    assert re.match(r"p:(5|14): ", fault)
    assert said in fault
    assert faults(rewritten(planted, "p"), "p") == []


@pytest.mark.parametrize(
    ("expected", "found", "equal"),
    [
        ("1.00", "1.01", True),  # one in the last decimal
        ("1.00", "1.02", False),
        ("2.5e-09", "2.6e-09", True),
        ("2.5e-09", "2.7e-09", False),
        ("10000", "10001", True),
        ("100", "101", False),
        ("5.0 %", "nan %", False),
        ("True", "False", False),
        ("dopri5", "dopri8", False),  # a digit of a name is none of a number
        ("[1.5,  2]", "[1.5, 2]", True),
        ("1.5", "1.5 2.5", False),
    ],
)
def test_numbers_may_differ_by_a_thousandth_and_words_not_at_all(expected, found, equal):
    assert (difference(expected, found) is None) is equal
    assert (difference(f"x\n{expected}", f"x\n{found}") is None) is equal
