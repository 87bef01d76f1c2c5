"""The Dagster UI as a source of answers: whether it has loaded the definitions, and which runs are under way."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ANSWER_TIMEOUT_S = 20.0
"""Seconds for one answer. A webserver on a busy machine takes some, and is asked again by everything that waits."""

_STATE = """{
  instance { daemonHealth { allDaemonStatuses { daemonType lastHeartbeatTime } } }
  workspaceOrError {
    __typename
    ... on PythonError { message }
    ... on Workspace { locationEntries { name locationOrLoadError {
      __typename
      ... on PythonError { message }
      ... on RepositoryLocation { repositories { sensors { name } } }
    } } }
  }
}"""

_RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 100) {
  __typename
  ... on PythonError { message }
  ... on InvalidPipelineRunsFilterError { message }
  ... on Runs { results { runId jobName status tags { key value } } }
} }"""

_UNFINISHED = ["QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING"]

_DRAIN_TAG = "mcp_assets/drain"


class UiSilent(Exception):
    """The UI does not answer, or not with what was asked for."""


@dataclass(frozen=True, slots=True)
class UiState:
    """What the UI knows of the services behind it."""

    loaded: bool
    """All code locations are loaded, or could not be."""
    error: str | None
    """Why a code location could not be loaded."""
    sensors: frozenset[str]
    heartbeat: float | None
    """When the daemon said last that it runs the sensors, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class UiRun:
    """One run. `name` is for people: what it does, and the first characters of its id."""

    run_id: str
    name: str
    status: str


class DagsterUi:
    """The UI at one address of this machine."""

    def __init__(self, url: str) -> None:
        self.url = url

    def state(self) -> UiState:
        """Raises UiSilent."""
        data = self._ask(_STATE, {})
        daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        heartbeat = next((one["lastHeartbeatTime"] for one in daemons if one["daemonType"] == "SENSOR"), None)
        workspace = data["workspaceOrError"]
        if workspace["__typename"] == "PythonError":
            return UiState(True, workspace["message"], frozenset(), heartbeat)
        entries = workspace["locationEntries"]
        locations = [entry["locationOrLoadError"] for entry in entries]
        errors = [one["message"] for one in locations if one and one["__typename"] == "PythonError"]
        sensors = {
            sensor["name"]
            for one in locations
            for repository in (one or {}).get("repositories", ())
            for sensor in repository["sensors"]
        }
        return UiState(bool(entries) and all(locations), errors[0] if errors else None, frozenset(sensors), heartbeat)

    def unfinished_runs(self) -> list[UiRun]:
        """Runs that wait or work. Raises UiSilent."""
        return self._runs({"statuses": _UNFINISHED})

    def failed_runs(self, since: float) -> list[UiRun]:
        """Runs that were made after `since`, in seconds since the epoch, and have failed. Raises UiSilent."""
        return self._runs({"statuses": ["FAILURE"], "createdAfter": since})

    def url_of(self, run: UiRun) -> str:
        return f"{self.url}/runs/{run.run_id}"

    def _runs(self, selection: Mapping[str, Any]) -> list[UiRun]:
        answer = self._ask(_RUNS, {"filter": selection})["runsOrError"]
        if answer["__typename"] != "Runs":
            raise UiSilent(answer.get("message"))
        return [_run_of(one) for one in answer["results"]]

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  (loopback, http)
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        # The UI is on this machine, which no proxy reaches.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_ANSWER_TIMEOUT_S) as response:
                answer = json.load(response)
        except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
            raise UiSilent(str(error)) from error
        if not answer.get("data"):
            raise UiSilent(str(answer.get("errors")))
        return dict(answer["data"])


def _run_of(answer: Mapping[str, Any]) -> UiRun:
    tags = {tag["key"]: tag["value"] for tag in answer["tags"]}
    what = f"drain of {tags[_DRAIN_TAG]}" if _DRAIN_TAG in tags else str(answer["jobName"])
    return UiRun(answer["runId"], f"{what}, run {answer['runId'][:8]}", answer["status"].lower())
