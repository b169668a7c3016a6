"""What Discord would refuse in a request: its published schemas, and rules that they do not tell."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

EXCERPT: Final = Path(__file__).parents[1] / "fixtures" / "discord-api-excerpt.json"
#: Messages made of components only (Components V2).
IS_COMPONENTS: Final = 1 << 15
COMPONENTS_MAX: Final = 40
TEXT_CHARS_MAX: Final = 4_000
MEDIA_CHANNEL: Final = 16
FILES_BYTES_MAX: Final = 10 << 20


def faults_of(method: str, path: str, body: Any, files: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with a request to `path` (without the API's prefix), a sentence each."""
    found = _against_schema(method, path, body)
    message = (body.get("data") or {}) if path.endswith("/callback") and isinstance(body, dict) else body
    if isinstance(message, dict):
        found += list(_against_rules(message, files))
    return found


def _against_schema(method: str, path: str, body: Any) -> list[str]:
    validator = next((v for pattern, v in _validators() if pattern.fullmatch(f"{method} {path}")), None)
    if validator is None:
        return [] if body is None else [f"no schema for {method} {path}"]
    return [
        f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(_without_ids(body))
    ]


@cache
def _validators() -> list[tuple[re.Pattern[str], Draft202012Validator]]:
    described = json.loads(EXCERPT.read_text())
    made = []
    for name, schema in described["requests"].items():
        pattern = re.compile(re.escape(name).replace(r"\{\}", "[^/]+"))
        made.append((pattern, Draft202012Validator({**schema, "components": described["components"]})))
    return made


def _without_ids(body: Any) -> Any:
    """Write the library's integer ids as text: Discord takes both, its schema knows one."""
    if isinstance(body, dict):
        texts: dict[str, Callable[[Any], Any]] = {
            "recipient_id": str,
            "attachments": _as_text,
            "channel_types": _without_media,
        }
        return {k: texts.get(k, _without_ids)(v) for k, v in body.items()}
    return [_without_ids(part) for part in body] if isinstance(body, list) else body


def _without_media(types: list[int]) -> list[int]:
    """Leave media channels out: Discord's pages know their type, 16, its schema does not."""
    return [kind for kind in types if kind != MEDIA_CHANNEL]


def _as_text(attachments: Any) -> Any:
    return (
        [{**a, "id": str(a["id"])} if "id" in a else a for a in attachments] if attachments else attachments
    )


def _against_rules(message: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[str]:
    parts = list(_parts(message.get("components") or ()))
    if (message.get("flags") or 0) & IS_COMPONENTS and (message.get("content") or message.get("embeds")):
        yield "a message of components has no content and no embeds"
    if len(parts) > COMPONENTS_MAX:
        yield f"{len(parts)} components"
    if sum(len(part.get("content") or "") for part in parts) > TEXT_CHARS_MAX:
        yield "more text than a message holds"
    ids = Counter(part["custom_id"] for part in parts if "custom_id" in part)
    yield from (f"custom id {custom_id!r} twice" for custom_id, times in ids.items() if times > 1)
    for name in re.findall(r'"attachment://([^"]+)"', json.dumps(parts)):
        if name not in files:
            yield f"no file named {name!r} comes along"
    if sum(map(len, files.values())) > FILES_BYTES_MAX:
        yield "files too large"
    mentions = message.get("allowed_mentions")
    if (parts or message.get("content")) and (mentions is None or mentions.get("parse")):
        yield "mentions may ping"


def _parts(components: Any) -> Iterator[dict[str, Any]]:
    for part in components:
        yield part
        yield from _parts(part.get("components") or ())
        yield from _parts([part["accessory"]] if part.get("accessory") else ())
