"""Keys to test with: who has them, and the setting that makes them known."""

import json
from typing import Any

from service.keys import hash_of, new_token


class Keys:
    """Add keys, then give ``setting`` to the gateway as ``api_keys``."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self._entries: dict[str, Any] = {}

    def add(self, name: str, *scopes: str, **fields: Any) -> str:
        """The key itself."""
        token = self.tokens[name] = new_token()
        self._entries[name] = {"sha256": hash_of(token), "scopes": scopes or ("reason", "images"), **fields}
        return token

    @property
    def setting(self) -> str:
        return json.dumps(self._entries)

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[name]}"}
