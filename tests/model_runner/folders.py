"""Where the recorded and the embedded checkpoints lie."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
MAZE_TINY = ROOT / "models" / "maze-tiny"
