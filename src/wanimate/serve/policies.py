"""Permissions to upload: what `getPolicy` gives, and a form brings back. Signed, so that nothing of them is stored."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from wanimate.serve.forms import is_clean
from wanimate.serve.tables import now

LASTS = 300
"""Seconds for which a policy can be used."""
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Policy:
    """Whoever has it may put files below `folder`, for `owner` and `model`, until `expires` (ms)."""

    owner: str
    model: str
    folder: str
    expires: int

    @classmethod
    def new(cls, owner: str, model: str) -> Policy:
        """One with a folder of its own: names that repeat between users and jobs do not meet."""
        at = now()
        day = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")
        whose = sha256(owner.encode()).hexdigest()[:32]
        return cls(owner, model, f"dashscope-instant/{whose}/{day}/{secrets.token_hex(16)}", at + LASTS * 1000)

    def takes(self, key: str) -> bool:
        """Whether a file may be called `key`: a name below the folder."""
        name = key.removeprefix(f"{self.folder}/")
        return name != key and 0 < len(name) <= _LONGEST_NAME and "/" not in name and is_clean(name)


class Policies:
    """Makes policies and finds them again.

    Args:
        secret: the same in all processes.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"wanimate: permission to upload", "sha256")

    def signed(self, policy: Policy, most: int) -> tuple[str, str]:
        """A policy as a client carries it, and its signature. `most`: bytes of a file."""
        until = datetime.fromtimestamp(policy.expires / 1000, UTC).isoformat(timespec="milliseconds")
        conditions = [["starts-with", "$key", f"{policy.folder}/"], ["content-length-range", 0, most]]
        told = {
            "expiration": until.replace("+00:00", "Z"), "conditions": conditions, "owner": policy.owner,
            "model": policy.model, "folder": policy.folder, "until": policy.expires,
        }  # fmt: skip
        text = base64.b64encode(json.dumps(told).encode()).decode()
        return text, self._signature(text)

    def found(self, text: str, signature: str) -> Policy | None:
        """The policy of a text that this service has signed; None for another. It may have expired."""
        if not hmac.compare_digest(self._signature(text).encode(), signature.encode()):
            return None
        told = json.loads(base64.b64decode(text))
        return Policy(told["owner"], told["model"], told["folder"], told["until"])

    def _signature(self, text: str) -> str:
        return base64.b64encode(hmac.digest(self._key, text.encode(), "sha256")).decode()
