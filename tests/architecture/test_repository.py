"""The project stands alone, and stays small."""

import subprocess

from tests.servers import ROOT

MIB = 1 << 20
# Written in two parts, or this file would be what it looks for.
FOREIGN = (
    "../sha" + "red",
    "/work/sha" + "red",
    "py" + "pi.org",
    "pythonh" + "osted.org",
    "/opt/whe" + "els",
    "/opt/py" + "pi",
)


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def test_no_file_refers_to_what_is_not_in_the_project():
    found = []
    for file in tracked_files():
        if file.exists() and file.suffix not in (".png", ".npz", ".safetensors") and file.name != "tokenizer.json":
            text = file.read_text(encoding="utf-8")
            found += [f"{file.relative_to(ROOT)}: {word}" for word in FOREIGN if word in text]
    assert found == []


def test_the_embedded_model_is_small_and_its_hash_is_the_manifests():
    import hashlib
    import json

    folder = ROOT / "models" / "maze-tiny"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12 * MIB
    manifest = json.loads((folder / "ilvr.json").read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert manifest["sha256"] == {"model.safetensors": digest}
    assert digest in (folder / "README.md").read_text()
