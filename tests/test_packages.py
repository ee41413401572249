"""Programs on disk: found again whole, or not at all."""

import json
import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamode import AdamodeWarning
from adamode.solvers.device import packages
from adamode.solvers.device.locks import locked
from adamode.solvers.device.packages import Store, default_folder, size_limit, store

KEY, OTHER = "0123456789abcdef" * 4, "f" * 64
ABOUT = {"model": "Layer", "method": "tsit5", "shapes": "[3, 2]"}
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(packages, "_SAID", set())


def writes(content):
    """A build that writes this."""
    return lambda path: path.write_bytes(content)


def never(path):
    raise AssertionError("built again")


def made(root, content=b"program", key=KEY):
    found = Store(root).make(key, ABOUT, writes(content))
    assert found == root / f"{key}.pt2"
    return found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_built_is_found_by_a_later_store_and_nothing_else_is_left(tmp_path):
    root = tmp_path / "deep" / "cache"
    assert Store(root).find(KEY) is None
    made(root)
    assert Store(root).find(KEY).read_bytes() == b"program"
    assert Store(root).make(KEY, ABOUT, never) == root / f"{KEY}.pt2"
    assert Store(root).find(OTHER) is None
    assert names(root) == [f"{KEY}.json", f"{KEY}.pt2"]


def test_only_the_user_can_read_what_is_made(tmp_path):
    root = tmp_path / "cache"
    path = made(root)
    assert (root.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_package_is_told_with_what_its_maker_said(tmp_path):
    made(tmp_path)
    (package,) = Store(tmp_path).packages()
    assert (package.key, package.about, package.bytes) == (KEY, ABOUT, 7)
    assert package.made <= package.used


def damaged(kind, root):
    package, note = root / f"{KEY}.pt2", root / f"{KEY}.json"
    if kind == "truncated":
        package.write_bytes(b"prog")
    elif kind == "another":
        package.write_bytes(b"PROGRAM")
    elif kind == "no package":
        package.unlink()
    elif kind == "no note":
        note.unlink()
    elif kind == "half a note":
        note.write_text(note.read_text()[:40])
    elif kind == "a list for a note":
        note.write_text("[]")
    elif kind == "another's note":
        note.write_text(json.dumps({**json.loads(note.read_text()), "key": OTHER}))
    elif kind == "a later format":
        note.write_text(json.dumps({**json.loads(note.read_text()), "format": 99}))
    elif kind == "others can write it":
        package.chmod(0o666)
    elif kind == "a link":
        (root / "elsewhere").write_bytes(b"program")
        package.unlink()
        package.symlink_to(root / "elsewhere")
    elif kind == "a folder":
        package.unlink()
        package.mkdir()


SAID = {
    "no package": None,  # as if it had never been
    "no note": None,
    "truncated": "checksum",
    "another": "checksum",
    "half a note": "cannot be read",
    "a list for a note": "cannot be read",
    "another's note": "another kind",
    "a later format": "another kind",
    "others can write it": "written by others",
    "a link": "built anew",
    "a folder": "built anew",
}


@pytest.mark.parametrize("kind", SAID)
def test_a_damaged_package_is_never_found_and_is_built_anew(kind, tmp_path):
    made(tmp_path)
    damaged(kind, tmp_path)
    assert Store(tmp_path).find(KEY) is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = Store(tmp_path).make(KEY, ABOUT, writes(b"rebuilt"))
    assert again.read_bytes() == b"rebuilt"
    assert Store(tmp_path).find(KEY) == again
    texts = [str(w.message) for w in caught]
    assert (texts == []) if SAID[kind] is None else (len(texts) == 1 and SAID[kind] in texts[0])


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_one_bit_or_the_tail_is_enough_to_be_noticed(place, bit, cut):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = made(root, bytes(range(256)))
        content = bytearray(path.read_bytes())
        at = int(place * len(content))
        if cut:
            del content[at:]
        else:
            content[at] ^= 1 << bit
        path.write_bytes(content)
        assert Store(root).find(KEY) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_is_not_used_and_a_private_one_is(mode, tmp_path):
    made(tmp_path)
    tmp_path.chmod(mode)
    kept = Store(tmp_path)
    with pytest.warns(AdamodeWarning, match="can be written by others"):
        assert kept.find(KEY) is None
    path = kept.make(KEY, ABOUT, writes(b"mine"))  # warnings are errors: it is said once
    assert kept.find(KEY) == path
    assert not path.is_relative_to(tmp_path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / f"{KEY}.pt2").read_bytes() == b"program"


def test_a_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    made(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.warns(AdamodeWarning, match="belongs to another user"):
        assert Store(tmp_path).find(KEY) is None


def test_a_folder_that_cannot_be_written_is_replaced_by_a_private_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write everywhere
    with pytest.warns(AdamodeWarning, match="cannot be written"):
        path = Store(tmp_path).make(KEY, ABOUT, writes(b"mine"))
    assert path.read_bytes() == b"mine"
    assert not path.is_relative_to(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_left_and_a_private_folder_used(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(AdamodeWarning, match="private folder"):
        path = Store(tmp_path / "cache").make(KEY, ABOUT, writes(b"mine"))
    assert path.read_bytes() == b"mine"
    assert (tmp_path / "cache").read_text() == "a file"


def test_where_nothing_can_be_written_anywhere_there_is_no_package_and_no_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.warns(AdamodeWarning, match="No space left"):
        assert Store(tmp_path).make(KEY, ABOUT, never) is None
    tmp_path.chmod(0o777)
    with pytest.warns(AdamodeWarning, match="written by others"):
        assert Store(tmp_path).make(KEY, ABOUT, never) is None
    assert Store(tmp_path).find(KEY) is None


def test_a_full_disk_at_the_end_of_a_build_leaves_nothing(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(AdamodeWarning, match="No space left"):
        assert Store(tmp_path).make(KEY, ABOUT, writes(b"program")) is None
    assert Store(tmp_path).find(KEY) is None
    assert names(tmp_path) == []


def test_what_a_build_raises_is_passed_on_and_leaves_nothing(tmp_path):
    def fails(path):
        path.write_bytes(b"half")
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError, match="no compiler"):
        Store(tmp_path).make(KEY, ABOUT, fails)
    assert names(tmp_path) == []
    made(tmp_path)


def builds_slowly(root, results, delay):
    def build(path):
        results.put("began")
        time.sleep(delay)
        path.write_bytes(str(os.getpid()).encode())

    found = Store(Path(root)).make(KEY, ABOUT, build)
    results.put(found.read_bytes().decode())


def test_of_two_processes_one_builds_and_the_other_takes_what_it_built(tmp_path):
    results = SPAWN.Queue()
    both = [SPAWN.Process(target=builds_slowly, args=(str(tmp_path), results, 1.0)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    told = [results.get(timeout=60) for _ in range(3)]
    assert told.count("began") == 1
    (first, second) = (text for text in told if text != "began")
    assert first == second
    assert int(first) in [process.pid for process in both]


def test_a_killed_builder_leaves_no_lock_and_its_leavings_go(tmp_path):
    results = SPAWN.Queue()
    process = SPAWN.Process(target=builds_slowly, args=(str(tmp_path), results, 600.0))
    process.start()
    assert results.get(timeout=120) == "began"
    assert Store(tmp_path).make(KEY, ABOUT, never, wait=0.1) is None  # it is being built
    assert Store(tmp_path).clear() == (0, 0)  # … and left alone
    assert any(name.startswith("building-") for name in names(tmp_path))
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    made(tmp_path, b"after all")
    assert names(tmp_path) == [f"{KEY}.json", f"{KEY}.pt2"]


def test_what_a_killed_builder_of_another_program_left_goes_at_the_next_build(tmp_path):
    (tmp_path / f"building-{OTHER}-abc").mkdir()
    (tmp_path / f"building-{OTHER}-abc" / "half.pt2").write_bytes(b"half")
    (tmp_path / f"{'e' * 64}.pt2").write_bytes(b"renamed, and killed before its note was")
    (tmp_path / "README").write_text("mine")
    made(tmp_path)
    assert names(tmp_path) == [f"{KEY}.json", f"{KEY}.pt2", "README"]


def test_threads_of_one_process_wait_for_each_other_too(tmp_path):
    with locked(tmp_path / "x.lock", 0.0) as first:
        assert first
        with locked(tmp_path / "x.lock", 0.0) as second:
            assert not second
    with locked(tmp_path / "x.lock", 0.0) as third:
        assert third
    assert names(tmp_path) == []


def test_the_least_recently_used_go_where_all_take_too_much(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAMODE_CACHE_SIZE", "3 KB")
    keys = [digit * 64 for digit in "abc"]
    for age, key in enumerate(keys):
        made(tmp_path, bytes(1000), key)
        os.utime(tmp_path / f"{key}.json", (1000 + age, 1000 + age))
    assert Store(tmp_path).find(keys[0])  # used now
    made(tmp_path, bytes(1000), "d" * 64)
    left = {package.key for package in Store(tmp_path).packages()}
    assert left == {keys[0], keys[2], "d" * 64}


def test_the_one_just_made_stays_even_where_it_alone_is_too_large(tmp_path, monkeypatch):
    made(tmp_path)
    monkeypatch.setenv("ADAMODE_CACHE_SIZE", "0")
    made(tmp_path, bytes(10), OTHER)
    assert [package.key for package in Store(tmp_path).packages()] == [OTHER]


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 10**9), ("5", 5), ("1.5 GB", 1_500_000_000), ("20mb", 20_000_000), ("7k", 7000), ("1T", 10**12)],
)
def test_sizes_are_read(text, size, monkeypatch):
    monkeypatch.setenv("ADAMODE_CACHE_SIZE", text)
    assert size_limit() == size


def test_a_size_that_is_none_is_said(monkeypatch):
    monkeypatch.setenv("ADAMODE_CACHE_SIZE", "much")
    with pytest.warns(AdamodeWarning, match="ADAMODE_CACHE_SIZE='much'"):
        assert size_limit() == 10**9


def test_the_folder_is_the_named_one_or_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAMODE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path == store().root
    monkeypatch.delenv("ADAMODE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "adamode"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "adamode"


def test_a_key_that_is_no_digest_is_refused(tmp_path):
    for key in ("../../x", "", "ABC", "a" * 15):
        with pytest.raises(ValueError, match="hexadecimal"):
            Store(tmp_path).find(key)
