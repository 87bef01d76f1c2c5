"""Payload: the JSON that the inbox keeps of an event: the state or change that it carries, or its request."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mcp_assets.events.model import Carried, Changed, Event


def payload_of(event: Event) -> str | None:
    """The payload of `event`; None for a thin event."""
    if event.changed is not None:
        return json.dumps({"changed": asdict(event.changed)}, ensure_ascii=False)
    content = event.carried or event.request
    return None if content is None else json.dumps(asdict(content), ensure_ascii=False)


def read_payload(payload: Mapping[str, Any] | None) -> tuple[Carried | None, Changed | None]:
    """The whole state or the change in the payload of an event about one entity; neither for a thin event."""
    if payload is None:
        return None, None
    if "changed" in payload:
        return None, Changed(**payload["changed"])
    return Carried(**payload), None
