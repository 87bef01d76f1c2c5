"""Payload: what the inbox keeps of an event beside its name and verb, as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mcp_assets.events.model import Carried, Changed, Event


def payload_of(event: Event) -> str | None:
    """What an event says, as JSON; None for a thin event."""
    if event.changed is not None:
        return json.dumps({"changed": asdict(event.changed)}, ensure_ascii=False)
    said = event.carried or event.request
    return None if said is None else json.dumps(asdict(said), ensure_ascii=False)


def read_payload(payload: Mapping[str, Any] | None) -> tuple[Carried | None, Changed | None]:
    """What the payload of an event about one entity says of it: a whole state, a change, or nothing."""
    if payload is None:
        return None, None
    if "changed" in payload:
        return None, Changed(**payload["changed"])
    return Carried(**payload), None
