"""What may be written over, and that two commands do not write the same at once."""

import errno
import fcntl
import os
import signal
import threading
import time

import pytest

from hf_mixup.errors import UsageError
from hf_mixup.files import (
    alone,
    check_new,
    model_beside,
    new_folder,
    refuse_links,
    remove_folder,
    set_aside,
    written_beside,
)

BUSY = "another command is at it"


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def theirs(tmp_path):
    """A folder of somebody else, with one file."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "file").write_text("theirs")
    return folder


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


# ---- Files ----


@pytest.mark.parametrize("name", ["results.json", "_part-of-results.json"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_is_replaced_by_the_file_and_never_written_through(theirs, out, name, link):
    link(theirs / "file", out / name)
    with written_beside(out / "results.json") as beside:
        beside.write_text("ours")
    assert content(out) == {"results.json": "ours"} and not (out / "results.json").is_symlink()
    assert content(theirs) == {"file": "theirs"}


def test_a_link_that_leads_nowhere_makes_no_file_there(tmp_path, out):
    (out / "results.json").symlink_to(tmp_path / "nowhere")
    with written_beside(out / "results.json") as beside:
        beside.write_text("ours")
    assert content(out) == {"results.json": "ours"} and not (tmp_path / "nowhere").exists()


def test_what_fails_in_the_middle_leaves_the_older_file(out):
    (out / "results.json").write_text("older")
    with pytest.raises(OSError, match="results.json") as caught, written_beside(out / "results.json") as beside:
        beside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(beside))
    assert caught.value.filename == str(out / "results.json")
    assert content(out) == {"results.json": "older"}


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_model_takes_the_place_of_links_and_of_older_weights(theirs, out, link):
    link(theirs / "file", out / "config.json")
    (out / "templates").symlink_to(theirs)
    (out / "_part-of-model").symlink_to(theirs)
    for name in ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "notes.txt", "model.txt"):
        (out / name).write_text("older")
    with model_beside(out) as beside:
        for name in ("config.json", "model.safetensors", "templates/file"):
            (beside / name).parent.mkdir(exist_ok=True)
            (beside / name).write_text("ours")
    ours = dict.fromkeys(("config.json", "model.safetensors", "templates/file"), "ours")
    assert content(out) == {**ours, "notes.txt": "older", "model.txt": "older"}
    assert content(theirs) == {"file": "theirs"}


def test_tokenizer_files_alone_remove_no_weights(out):
    (out / "model-00001-of-00002.safetensors").write_text("older")
    with model_beside(out) as beside:
        (beside / "tokenizer.json").write_text("ours")
    assert content(out) == {"model-00001-of-00002.safetensors": "older", "tokenizer.json": "ours"}


def test_a_model_that_fails_in_the_middle_leaves_the_older_one(out):
    for name in ("config.json", "model.safetensors"):
        (out / name).write_text("older")
    with pytest.raises(KeyboardInterrupt), model_beside(out) as beside:
        (beside / "config.json").write_text("half")
        raise KeyboardInterrupt
    assert content(out) == {"config.json": "older", "model.safetensors": "older"}


# ---- Folders ----


def test_a_new_folder_is_there_when_it_is_whole_and_not_before(tmp_path):
    new = tmp_path / "some" / "where"
    with new_folder(new) as beside:
        (beside / "a").write_text("a")
        assert not new.exists() and beside.parent.parent == new.parent
    assert (new / "a").read_text() == "a" and list(new.parent.iterdir()) == [new]
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "some" / "other") as beside:
        (beside / "a").write_text("a")
        raise KeyboardInterrupt
    assert list(new.parent.iterdir()) == [new]
    # What another command wrote meanwhile stays.
    with pytest.raises(UsageError, match="is not empty"), new_folder(tmp_path / "late") as beside:
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "theirs").write_text("b")
    assert [path.name for path in (tmp_path / "late").iterdir()] == ["theirs"]


def test_a_new_folder_takes_the_place_of_an_empty_one_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as beside:
        (beside / "a").write_text("a")
    assert (tmp_path / "empty" / "a").exists()
    (tmp_path / "free").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "free")
    (tmp_path / "file").write_text("")
    for name, wanted in (("empty", "not empty"), ("link", "a file or a link"), ("file", "a file or a link")):
        with pytest.raises(UsageError, match=f"--out is {wanted}; give a new or empty folder"):
            check_new(tmp_path / name, "--out")


def test_links_are_refused_by_name_with_what_they_lead_to(theirs, out):
    (out / "plain").mkdir()
    refuse_links([out / "plain", out / "missing"])
    for name, target in (("folder", theirs), ("dangling", "nowhere")):
        (out / name).symlink_to(target)
        with pytest.raises(UsageError, match=f"{name} is a link to {target}, which .*; remove the link, or give "):
            refuse_links([out / "plain", out / name])


def test_a_name_that_is_taken_gets_a_number_also_by_a_link_that_leads_nowhere(out):
    names = []
    for name in ("old-checkpoint-2", "old-checkpoint-2-2"):
        (out / name).symlink_to("nowhere")
    for _ in range(2):
        (out / "checkpoint-2").mkdir()
        names.append(set_aside(out / "checkpoint-2", "old").name)
    assert names == ["old-checkpoint-2-3", "old-checkpoint-2-4"]


def test_a_folder_is_removed_but_what_a_link_leads_to_is_not(theirs, out):
    (out / "folder").mkdir()
    remove_folder(out / "folder")
    remove_folder(out / "folder")
    (out / "folder").symlink_to(theirs)
    with pytest.raises(OSError):
        remove_folder(out / "folder")
    assert content(theirs) == {"file": "theirs"}


# ---- Locks ----


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "a" / "b" / "lock"


def held_by_a_process(lock):
    """A process that holds the lock until it is killed."""
    done, tell = os.pipe()
    pid = os.fork()
    if not pid:
        with alone(lock, BUSY):
            os.write(tell, b".")
            time.sleep(60)
        os._exit(0)
    assert os.read(done, 1)
    return pid


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def refused(lock):
    try:
        with alone(lock, BUSY):
            return False
    except UsageError as error:
        assert str(error) == BUSY
        return True


def test_only_one_process_is_inside_and_a_killed_one_leaves_no_lock(lock):
    pid = held_by_a_process(lock)
    assert refused(lock) and lock.exists()
    end(pid)
    with alone(lock, BUSY):
        assert lock.exists()
    assert not lock.exists()


def test_one_inside_may_go_in_again_where_that_is_said_but_another_thread_may_not(lock):
    seen = []
    with alone(lock, BUSY):
        with alone(lock.parent / ".." / "b" / "lock", BUSY, again=True):
            pass
        assert refused(lock)
        thread = threading.Thread(target=lambda: seen.append(refused(lock)))
        thread.start()
        thread.join()
        assert seen == [True] and lock.exists()
    assert not refused(lock)


def test_the_fork_of_a_process_does_not_keep_its_lock(lock):
    """As a process that loads data, which outlives a killed run for some seconds."""
    done, tell = os.pipe()
    with alone(lock, BUSY):
        pid = os.fork()
        if not pid:
            os.write(tell, b".")
            time.sleep(60)
        assert os.read(done, 1)
        assert lock.exists()
    try:
        assert not refused(lock)
    finally:
        end(pid)


def test_a_lock_that_was_removed_while_another_one_waited_counts_for_nothing(lock, monkeypatch):
    """The file is removed between opening and locking it: a third process would make another file."""
    flock, removed = fcntl.flock, []

    def late(descriptor, operation):
        if not removed:
            removed.append(lock.unlink())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with alone(lock, BUSY):
        assert lock.exists()
        monkeypatch.undo()
        pid = os.fork()
        if not pid:
            os._exit(0 if refused(lock) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_folders_that_were_made_for_the_lock_alone_are_gone_afterwards(lock, tmp_path):
    with alone(lock, BUSY):
        pass
    assert list(tmp_path.iterdir()) == []
    with alone(lock, BUSY):
        (lock.parent / "file").touch()
    assert [path.name for path in lock.parent.iterdir()] == ["file"]


def test_a_file_of_that_name_that_holds_something_stays(lock):
    lock.parent.mkdir(parents=True)
    lock.write_text("theirs")
    with alone(lock, BUSY):
        pass
    assert lock.read_text() == "theirs"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_as_that(lock, monkeypatch, caplog, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with alone(lock, BUSY), alone(lock, BUSY, again=True):
        pass
    (record,) = caplog.records
    reason = os.strerror(number).lower()
    assert record.getMessage() == (
        f"{lock.parent} cannot be locked ({reason}): take care that no other command writes there at the same time."
    )
    assert not lock.exists()


def test_a_lock_file_that_cannot_be_made_is_told_as_that(lock, theirs, monkeypatch):
    lock.mkdir(parents=True)
    with pytest.raises(UsageError, match=f"^the lock file {lock} cannot be made .is a directory.; allow that, or "):
        alone(lock, BUSY).__enter__()
    lock.rmdir()
    lock.symlink_to(theirs / "file")
    with pytest.raises(UsageError, match=f"lock is a link to {theirs}/file"):
        alone(lock, BUSY).__enter__()
    assert content(theirs) == {"file": "theirs"}
    lock.unlink()

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(lock))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match=f"^the lock file {lock} cannot be made .permission denied.; allow that, or "):
        alone(lock, BUSY).__enter__()


def test_a_full_disk_stays_a_fault_of_the_disk(lock, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(lock))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        alone(lock, BUSY).__enter__()
    assert not isinstance(caught.value, UsageError)
