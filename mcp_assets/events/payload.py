"""Payload: the JSON that the inbox keeps of an event: the state or change that it carries, or its request."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mcp_assets.events.model import Carried, Changed, Event

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def payload_of(event: Event) -> str | None:
    """The payload of `event`; None for a thin event."""
    if event.changed is not None:
        return _ENCODER.encode({"changed": {"fields": event.changed.fields, "alive": event.changed.alive}})
    if event.carried is not None:
        # Written out, because `asdict` copies all metadata.
        carried = event.carried
        return _ENCODER.encode({"title": carried.title, "content": carried.content, "metadata": carried.metadata})
    return None if event.request is None else _ENCODER.encode(asdict(event.request))


def read_payload(payload: Mapping[str, Any] | None) -> tuple[Carried | None, Changed | None]:
    """The whole state or the change in the payload of an event about one entity; neither for a thin event."""
    if payload is None:
        return None, None
    if "changed" in payload:
        return None, Changed(**payload["changed"])
    return Carried(**payload), None
