"""Files that appear whole or not at all. Refusals are real ones where root gets them too."""

import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import pytest

from pellucid.errors import StorageError
from pellucid.runtime import files
from pellucid.runtime.files import (
    directory_written_aside,
    remove_leftovers,
    require_space,
    require_writable,
    sha256_file,
    storage_errors,
    write_atomic,
)

SYSFS = Path("/sys/class")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes bytes and refuses to keep them, as a full one does."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


class TestWriteAtomic:
    @pytest.mark.parametrize("content", ["one\r\ntwo é\n", b"\x00\xff\r\n"])
    def test_writes_exactly_the_content(self, tmp_path: Path, content: str | bytes) -> None:
        write_atomic(tmp_path / "file", content)
        expected = content.encode() if isinstance(content, str) else content
        assert (tmp_path / "file").read_bytes() == expected
        assert names(tmp_path) == ["file"]

    def test_replaces_what_was_there(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "file", "a longer text")
        write_atomic(tmp_path / "file", "short")
        assert (tmp_path / "file").read_text() == "short"

    def test_makes_the_folders_above(self, tmp_path: Path) -> None:
        write_atomic(tmp_path / "a" / "b" / "file", "x")
        assert (tmp_path / "a" / "b" / "file").read_text() == "x"

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
    def test_others_may_read_what_the_umask_lets_them(self, tmp_path: Path, umask: int, mode: int) -> None:
        before = os.umask(umask)
        try:
            write_atomic(tmp_path / "file", "x")
            with directory_written_aside(tmp_path / "folder"):
                pass
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
        assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask

    def test_the_file_is_synced_before_the_rename_and_the_folder_after(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[int, bool]] = []

        def record(descriptor: int) -> None:
            synced.append((os.fstat(descriptor).st_ino, (tmp_path / "file").exists()))

        monkeypatch.setattr(os, "fsync", record)
        write_atomic(tmp_path / "file", "x")
        file, folder = (tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino
        assert synced == [(file, False), (folder, True)][: 1 if os.name == "nt" else 2]

    def test_a_full_disk_leaves_the_old_content(self, tmp_path: Path, full_disk: None) -> None:
        file = tmp_path / "file"
        file.write_text("old")
        with pytest.raises(
            StorageError, match="file: no space left on device; nothing that was there is lost"
        ):
            write_atomic(file, "new")
        assert file.read_text() == "old"
        assert names(tmp_path) == ["file"]

    def test_an_interruption_leaves_the_old_content(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(descriptor: int) -> None:
            raise KeyboardInterrupt

        (tmp_path / "file").write_text("old")
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "old"
        assert names(tmp_path) == ["file"]

    def test_a_file_where_a_folder_is_wanted(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("old")
        with pytest.raises(StorageError, match=r"file: a file is in the way of a directory$"):
            write_atomic(tmp_path / "file" / "below" / "it", "new")
        assert (tmp_path / "file").read_text() == "old"

    def test_a_folder_where_a_file_is_wanted(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(StorageError, match=r"folder: is in the way"):
            write_atomic(tmp_path / "folder", "new")
        assert names(tmp_path) == ["folder"]


class TestDirectoryWrittenAside:
    def test_appears_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "runs" / "one"
        with directory_written_aside(target) as aside:
            (aside / "a").write_text("1")
            (aside / "below").mkdir()
            (aside / "below" / "b").write_text("2")
            assert not target.exists()
            assert aside.parent == target.parent  # one file system, so that a rename is enough
        assert names(target) == ["a", "below"]
        assert (target / "below" / "b").read_text() == "2"
        assert names(target.parent) == ["one"]

    def test_replaces_an_empty_directory(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        with directory_written_aside(tmp_path / "one") as aside:
            (aside / "a").write_text("1")
        assert names(tmp_path / "one") == ["a"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_an_exception_in_the_body_leaves_nothing(
        self, tmp_path: Path, error: type[BaseException]
    ) -> None:
        def fail_half_way() -> None:
            with directory_written_aside(tmp_path / "one") as aside:
                (aside / "a").write_text("1")
                raise error

        with pytest.raises(error):
            fail_half_way()
        assert names(tmp_path) == []

    def test_every_file_and_folder_is_synced_before_the_rename(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[int, bool]] = []

        def record(descriptor: int) -> None:
            synced.append((os.fstat(descriptor).st_ino, (tmp_path / "one").exists()))

        monkeypatch.setattr(os, "fsync", record)
        with directory_written_aside(tmp_path / "one") as aside:
            (aside / "below").mkdir()
            (aside / "below" / "a").write_text("1")
        inside = [tmp_path / "one", tmp_path / "one" / "below", tmp_path / "one" / "below" / "a"]
        before = {inode for inode, renamed in synced if not renamed}
        after = {inode for inode, renamed in synced if renamed}
        assert before == {path.stat().st_ino for path in inside if os.name != "nt" or path.is_file()}
        assert os.name == "nt" or after == {tmp_path.stat().st_ino}

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path, full_disk: None) -> None:
        with (
            pytest.raises(StorageError, match="one: no space left on device"),
            directory_written_aside(tmp_path / "one") as aside,
        ):
            (aside / "a").write_text("1")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("occupied", ["file", "folder"])
    def test_what_is_there_is_refused_before_the_work(self, tmp_path: Path, occupied: str) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "precious").write_text("1")
        (tmp_path / "file").write_text("2")
        with (
            pytest.raises(StorageError, match=f"{occupied}: is in the way; remove it or name another"),
            directory_written_aside(tmp_path / occupied),
        ):
            pytest.fail("the body ran")
        assert names(tmp_path) == ["file", "folder"]
        assert names(tmp_path / "folder") == ["precious"]

    def test_what_appears_there_during_the_work_is_kept(self, tmp_path: Path) -> None:
        def be_too_slow() -> None:
            with directory_written_aside(tmp_path / "one") as aside:
                (aside / "a").write_text("mine")
                (tmp_path / "one").mkdir()
                (tmp_path / "one" / "a").write_text("theirs")

        with pytest.raises(StorageError, match="one: is in the way"):
            be_too_slow()
        assert (tmp_path / "one" / "a").read_text() == "theirs"
        assert names(tmp_path) == ["one"]

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
    def test_a_killed_process_leaves_no_directory_of_that_name(self, tmp_path: Path) -> None:
        script = """
            import sys
            from pathlib import Path
            from pellucid.runtime.files import directory_written_aside

            with directory_written_aside(Path(sys.argv[1])) as aside:
                (aside / "a").write_text("1")
                print("writing", flush=True)
                sys.stdin.read()
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "one")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "one").exists()
        (leftover,) = tmp_path.iterdir()
        assert leftover.name.startswith(".one.")
        (tmp_path / "two").mkdir()
        (tmp_path / ".hidden").mkdir()
        remove_leftovers(tmp_path)
        assert names(tmp_path) == [".hidden", "two"]


class TestRequire:
    def test_space(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = namedtuple("usage", "total used free")
        asked: list[Path] = []

        def disk_usage(path: Path) -> tuple[int, int, int]:
            asked.append(Path(path))
            return usage(10**9, 10**9 - 2_500_000, 2_500_000)

        monkeypatch.setattr(shutil, "disk_usage", disk_usage)
        target = tmp_path / "not" / "there"
        require_space(target, 2_500_000, purpose="a checkpoint")
        with pytest.raises(StorageError) as raised:
            require_space(target, 1_234_567_890, purpose="a checkpoint")
        assert str(raised.value) == (
            f"{target}: a checkpoint needs 1,234.6 MB and the disk has 2.5 MB free; "
            "free some space or name another directory"
        )
        assert asked == [tmp_path, tmp_path]  # the nearest that exists
        assert names(tmp_path) == []

    def test_space_is_asked_of_the_real_disk(self, tmp_path: Path) -> None:
        free = shutil.disk_usage(tmp_path).free
        require_space(tmp_path, free // 2, purpose="half of it")
        with pytest.raises(StorageError, match="all of it"):
            require_space(tmp_path, free * 2, purpose="twice all of it")

    def test_writable(self, tmp_path: Path) -> None:
        require_writable(tmp_path / "a" / "b")
        assert names(tmp_path / "a" / "b") == []

    def test_a_file_is_not_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StorageError, match=r"file: is in the way"):
            require_writable(tmp_path / "file")
        with pytest.raises(StorageError, match=r"file: a file is in the way of a directory$"):
            require_writable(tmp_path / "file" / "below" / "it")

    @pytest.mark.skipif(not SYSFS.is_dir(), reason="there is no folder that not even root can write")
    def test_a_folder_that_cannot_be_written(self) -> None:
        with pytest.raises(StorageError, match=r"cannot be written: permission denied|read-only file system"):
            require_writable(SYSFS / "pellucid")

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root and Windows may write there")
    def test_a_folder_without_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(StorageError, match="cannot be written: permission denied"):
            require_writable(tmp_path / "a")


class TestStorageErrors:
    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.ENOSPC, "out: no space left on device; nothing that was there is lost"),
            (errno.EDQUOT, "out: disk quota exceeded; nothing that was there is lost"),
            (errno.EROFS, "out: read-only file system; nothing that was there is lost"),
            (errno.EFBIG, "out: file too large; nothing that was there is lost"),
            (errno.EACCES, "out: cannot be written: permission denied"),
            (errno.EPERM, "out: cannot be written: permission denied"),
            (errno.ENOTEMPTY, "out: is in the way; remove it or name another"),
        ],
    )
    @pytest.mark.skipif(os.name == "nt", reason="Windows words them differently")
    def test_each_refusal_has_one_message(self, number: int, message: str) -> None:
        with pytest.raises(StorageError) as raised, storage_errors(Path("out")):
            raise OSError(number, os.strerror(number))
        assert str(raised.value) == message

    def test_the_file_that_was_refused_is_named(self) -> None:
        with (
            pytest.raises(StorageError, match=r"^out/deeper: cannot be written"),
            storage_errors(Path("out")),
        ):
            raise PermissionError(errno.EACCES, "denied", "out/deeper")

    def test_a_name_beside_it_is_not_shown(self) -> None:
        beside = str(files._aside(Path("here/out")))
        with pytest.raises(StorageError, match=r"^here/out: cannot"), storage_errors(Path("here/out")):
            raise PermissionError(errno.EACCES, "denied", beside)

    def test_other_errors_pass(self) -> None:
        with pytest.raises(ProcessLookupError), storage_errors(Path("out")):
            raise ProcessLookupError(errno.ESRCH, "no such process")
        with pytest.raises(FileNotFoundError), storage_errors(Path("out")):
            raise FileNotFoundError(errno.ENOENT, "a mistake of ours")
