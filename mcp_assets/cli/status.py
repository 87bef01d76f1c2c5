"""The command `status`: what runs, what is indexed, what waits, and what the last census and full sync found."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Exit, Json, print_json, print_rows, say, say_error
from mcp_assets.cli.services import addresses_of

if TYPE_CHECKING:
    from mcp_assets.embedded.state import Part, PartStatus
    from mcp_assets.platform import Platform
    from mcp_assets.settings import Settings
    from mcp_assets.sync.views.pending import Pending

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One entity type: its living entities, and the collection in service for it, with all points of that one."""

    entity_type: str
    living: int
    dirty: int
    collection: str | None = None
    model: str | None = None
    points: int | None = None


@dataclass(frozen=True, slots=True)
class CensusStatus:
    """The last censuses of all partitions together: the age of the oldest, and the drift that is left."""

    oldest_s_ago: float
    partitions: int
    drift: int
    recall: Mapping[str, float]
    """By entity type, the recall of similarity edges; without types whose edges are exact."""


@dataclass(frozen=True, slots=True)
class FullSyncStatus:
    """The full sync that was asked for last; a full sync by schedule is in Dagster alone."""

    id: str
    requested_by: str
    state: str
    finished_s_ago: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class DagsterStatus:
    """Dagster: the address of the UI that `mcp-assets dev` serves here, and when a sensor of ours last ticked."""

    ui: str | None
    sensors_s_ago: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. What a store that does not answer would say is None or empty."""

    pending: "Pending"
    dagster: DagsterStatus
    types: Sequence[TypeStatus] = ()
    edges: int | None = None
    """About how many."""
    census: CensusStatus | None = None
    full_sync: FullSyncStatus | None = None


def status(json: Json = False) -> None:
    """What runs where, what is indexed, and what is pending. Exits with 3 if a store does not answer."""
    from mcp_assets.embedded import stack

    with connected(reads_only=True) as platform:
        settings = platform.settings
        parts = stack.status(settings.state_dir).parts
        found = read_status(platform)
    if json:
        print_json(_as_json(settings, parts, found))
    else:
        _show(settings, parts, found)
    if found.pending.unavailable:
        raise typer.Exit(Exit.UNAVAILABLE)


def read_status(platform: "Platform") -> Status:
    """Read it from the stores; a store that does not answer, or is not set, is named in `pending.unavailable`."""
    from mcp_assets.cli.dagster_dev import address_of_ui
    from mcp_assets.setting_errors import SettingsError
    from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
    from mcp_assets.sync.requests.full_sync_requests import sensor_age_s
    from mcp_assets.sync.views.pending import Pending, pending
    from mcp_assets.sync.views.totals import edges_about

    ui = address_of_ui(platform.settings.state_dir)
    try:
        waiting = pending(platform)
    except SettingsError as error:
        waiting = Pending(unread=dict.fromkeys(platform.settings.streams), unavailable=[str(error)])
    if waiting.unavailable:
        return Status(waiting, DagsterStatus(ui, None), _types(waiting, {}))
    try:
        return Status(
            waiting,
            DagsterStatus(ui, sensor_age_s(platform)),
            _types(waiting, _collections(platform)),
            edges_about(platform),
            _census(platform),
            _full_sync(platform),
        )
    except (StoreUnavailable, StoreRefused, CollectionMismatch) as error:
        waiting.unavailable.append(str(error))
        return Status(waiting, DagsterStatus(ui, None), _types(waiting, {}))


def _collections(platform: "Platform") -> dict[str, tuple[str, str, int]]:
    """By entity type, the collection in service: its name, its model and the number of its points."""
    from mcp_assets.sync.views.totals import collection_totals

    totals = {
        alias: (total.name, f"{total.model}, {total.dimension} dimensions", total.points)
        for alias, total in collection_totals(platform).items()
    }
    return {
        name: totals[entity_type.collection_name]
        for name, entity_type in platform.settings.entity_types.items()
        if entity_type.collection_name in totals
    }


def _types(waiting: "Pending", collections: Mapping[str, tuple[str, str, int]]) -> list[TypeStatus]:
    return [
        TypeStatus(name, living, dirty, *collections.get(name, ()))
        for name, (living, dirty) in waiting.entities.items()
    ]


def _census(platform: "Platform") -> CensusStatus | None:
    from mcp_assets.sync.consistency.stored_censuses import drift_counts, last_censuses, recall_by_type

    last = last_censuses(platform)
    if not last:
        return None
    drift = drift_counts(platform, [census.id for census in last])
    return CensusStatus(
        max(census.age_s for census in last),
        len(last),
        sum(counts.total() for counts in drift.values()),
        {name: round(one.share, 4) for name, one in recall_by_type(last).items() if one.share is not None},
    )


def _full_sync(platform: "Platform") -> FullSyncStatus | None:
    from mcp_assets.sync.requests.full_sync_requests import last_full_sync

    last = last_full_sync(platform)
    if last is None:
        return None
    state = "waits for the daemon" if not last.started else "runs"
    if last.finished:
        state = "failed" if last.error else "complete"
    return FullSyncStatus(last.id, last.requested_by, state, last.finished_s_ago, last.error)


def _as_json(settings: "Settings", parts: "Mapping[Part, PartStatus]", found: Status) -> dict[str, Any]:
    from mcp_assets.embedded.state import shown_address

    return {
        "embedded": {
            part.value: {
                "state": known.state.value,
                "pid": known.pid,
                "address": shown_address(known.address),
                "restarts": known.restarts,
            }
            for part, known in parts.items()
        },
        "addresses": addresses_of(settings),
        "dagster": asdict(found.dagster),
        "types": [asdict(one) for one in found.types],
        "edges": found.edges,
        "pending": found.pending.as_dict(),
        "last_census": asdict(found.census) if found.census else None,
        "last_full_sync": asdict(found.full_sync) if found.full_sync else None,
    }


def _show(settings: "Settings", parts: "Mapping[Part, PartStatus]", found: Status) -> None:
    addresses = addresses_of(settings)
    services: list[Sequence[object]] = []
    for part, known in parts.items():
        embedded = known.address is not None
        runs = known.state.value if embedded else ("by setting" if addresses.get(part.value) else "no")
        services.append((part.value, runs, addresses.get(part.value) or "", known.pid or "", known.restarts or ""))
    services.append(("dagster", "running" if found.dagster.ui else "not here", found.dagster.ui or "", "", ""))
    print_rows(("service", "runs", "address", "pid", "restarts"), services, ids=("address",), title="Services")
    if found.types:
        rows = [
            (one.entity_type, one.living, one.dirty, _or_unknown(one.points), one.collection or "")
            for one in found.types
        ]
        # The name of a collection has its model and dimension in it; with --json they stand by themselves.
        headings = ("type", "entities", "not in Qdrant", "points", "collection")
        print_rows(headings, rows, ids=("type", "collection"), title="Indexed")
    for line in sentences(found):
        say(line)
    for reason in found.pending.unavailable:
        say_error(reason)


def sentences(found: Status) -> list[str]:
    """What is not in the tables, a sentence each."""
    lines = [f"relationships: about {found.edges:,} edges"] if found.edges is not None else []
    behind_s = found.pending.behind_s
    if found.pending.idle:
        lines.append("all applied: every message that was published is applied, indexed and linked")
    elif behind_s is not None:
        oldest = f"; the oldest message waits for {age(behind_s)}" if behind_s else ""
        lines.append(f"work is pending{oldest}")
    lines += found.pending.lines()
    if not found.pending.unavailable:
        lines += [_sensors(found.dagster), *_last(found)]
    return lines


def _sensors(dagster: DagsterStatus) -> str:
    if dagster.sensors_s_ago is None:
        return "sensors: none has ever ticked, so that no event is applied: start `mcp-assets dev`"
    if dagster.sensors_s_ago > _MINUTE_S:
        return (
            f"sensors: none has ticked for {age(dagster.sensors_s_ago)}, so that no event is applied: does the Dagster "
            "daemon run?"
        )
    return f"sensors: one ticked {age(dagster.sensors_s_ago)} ago"


def _last(found: Status) -> list[str]:
    lines = []
    if (census := found.census) is None:
        lines.append("census: none yet; `mcp-assets validate` takes one")
    else:
        drift = f"{census.drift} differences: `mcp-assets validate --repair`" if census.drift else "no drift"
        lines.append(f"census of {census.partitions} partitions: {age(census.oldest_s_ago)} ago at most, {drift}")
        if census.recall:
            told = ", ".join(f"{share:.3f} of {name}" for name, share in census.recall.items())
            lines.append(f"similarity edges are approximate, with a recall of {told}")
    if (last := found.full_sync) is not None:
        ended = f" {age(last.finished_s_ago)} ago" if last.finished_s_ago is not None else ""
        why = f": {last.error}" if last.error else ""
        lines.append(f"full sync asked for last, by {last.requested_by}: {last.state}{ended}{why}")
    return lines


def age(seconds: float) -> str:
    """A time span in the largest unit that fits: 2 s, 35 minutes, 3 hours, 4 days."""
    for unit_s, name in ((_DAY_S, "day"), (_HOUR_S, "hour"), (_MINUTE_S, "minute")):
        if seconds >= unit_s:
            count = int(seconds // unit_s)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds:.0f} s"


def _or_unknown(count: int | None) -> object:
    return "unknown" if count is None else count
