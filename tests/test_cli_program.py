import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import adamode
from adamode.cli.app import app

runner = CliRunner()


def test_version_is_the_packages():
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"adamode {adamode.__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["train", "--help"], ["verify", "--help"]])
def test_help_is_there_for_every_command(arguments):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_an_unknown_command_gets_the_nearest_and_status_2():
    result = runner.invoke(app, ["trian"])
    assert result.exit_code == 2
    assert "train" in result.stderr


def test_help_and_version_import_no_torch():
    code = (
        "import sys\n"
        "from adamode.cli.app import app\n"
        "for arguments in (['--help'], ['--version'], ['train', '--help'], ['verify', '--help']):\n"
        "    app(arguments, standalone_mode=False)\n"
        "slow = {'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_the_program_run_as_a_module_passes_its_exit_status_on(tmp_path):
    for arguments, status in (["--version"], 0), (["train", "--epochs", "0"], 2):
        process = subprocess.run(
            [sys.executable, "-m", "adamode", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        assert process.returncode == status, process.stderr
        assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []
