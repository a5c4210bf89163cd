"""A checkpoint has its name only when it is complete, and only the last are kept."""

from pathlib import Path

from training.checkpoint_folders import CheckpointFolders


def write(folders: CheckpointFolders, step: int) -> Path:
    (folders.begin(step) / "file").write_text(str(step))
    return folders.finish(step)


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path, keep=2)
    assert folders.latest() is None
    for step in (9, 10, 100):
        last = write(folders, step)
    assert [path.name for path in folders.complete()] == ["step-00000010", "step-00000100"]
    assert folders.latest() == last
    assert (last / "file").read_text() == "100"


def test_an_unfinished_one_has_no_name_and_is_removed_by_the_next(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path, keep=2)
    partial = folders.begin(5)
    (partial / "file").write_text("half")
    assert folders.complete() == []
    write(folders, 6)
    assert not partial.exists()
    assert [path.name for path in folders.folder.iterdir()] == ["step-00000006"]


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    folders = CheckpointFolders(tmp_path, keep=2)
    write(folders, 5)
    (folders.begin(5) / "file").write_text("again")
    assert (folders.finish(5) / "file").read_text() == "again"
