"""What several commands take when they are not told otherwise."""

from pathlib import Path

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
DEFAULT_URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
# The models folder lies beside the packages, in a checkout and in an image alike.
EMBEDDED_MODEL = Path(__file__).resolve().parents[1] / "models" / "maze-tiny"
