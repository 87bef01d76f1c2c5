"""Take pictures of the pages of the Dagster UI: `python -m mcp_assets_tests.look FOLDER [--url URL] [--only WORD]`.

Starts the demo in a temporary folder, gives it something to show, draws each page into FOLDER, and ends everything that
it started. With `--url` it draws the pages of a UI that runs already, and starts only the browser.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mcp_assets_tests.look.browser import Page, PageFailed, opened
from mcp_assets_tests.look.stack import DemoFailed, ask, demo, make_worth_looking

_LOCATION = "/locations/mcp_assets"
_LAST_RUNS = """query($job: String, $statuses: [RunStatus!]) {
  runsOrError(filter: {pipelineName: $job, statuses: $statuses}, limit: 1) { ... on Runs { results { runId } } } }"""


@dataclass(frozen=True)
class View:
    """One picture: an address, a text that shows that it is loaded, what to click, and how much of it to draw."""

    name: str
    path: str
    shows: str
    clicks: tuple[str, ...] = ()
    then_shows: str = ""
    height: int = 1000


def views(url: str) -> Iterator[View]:
    """All pages, in the order in which a person would come to them."""
    yield View("lineage", "/asset-groups", "entities")
    yield View("catalog", "/assets", "entities")
    for asset in ("entities", "embeddings", "relationship_edges", "consistency_census"):
        yield View(asset, f"/assets/{asset}", "Description", height=1900)
    yield View("entities-checks", "/assets/entities?view=checks", "no_dead_letters")
    yield View("embeddings-checks", "/assets/embeddings?view=checks", "no_missing_vectors")
    yield View("a-check", "/assets/entities?view=checks&checkDetail=no_dead_letters", "no_dead_letters", height=1300)
    yield View("embeddings-plots", "/assets/embeddings", "Description", ("Plots",), "total/kanban_tasks", height=2600)
    yield View("embeddings-partitions", "/assets/embeddings?view=partitions", "task-00", height=1300)
    yield View("embeddings-a-partition", "/assets/embeddings?view=partitions&partition=task-00", "task-00", height=1500)
    yield View(
        "edges-a-partition", "/assets/relationship_edges?view=partitions&partition=task-00", "task-00", height=1500
    )
    yield View(
        "backfill-dialog", "/assets/embeddings?view=partitions", "task-00", ("Materialize…",), "Launch", height=1000
    )
    yield View("source-table", "/assets/source/tasks", "Description", height=1600)
    yield View("source-table-plots", "/assets/source/tasks", "Description", ("Plots",), "row_count", height=1600)
    yield View("stream", "/assets/nats/MCP_ASSETS", "Description", height=1200)
    yield View("stream-plots", "/assets/nats/MCP_ASSETS", "Description", ("Plots",), "lag_s", height=1600)
    yield View("automation", "/automation", "vector_index_sensor", height=1000)
    for sensor in ("vector_index_sensor", "source_observation_sensor"):
        yield View(f"sensor-{sensor}", f"{_LOCATION}/sensors/{sensor}", "Timestamp", height=1300)
    yield View("schedule", f"{_LOCATION}/schedules/hourly_census", "hourly_census")
    yield View("jobs", "/jobs", "reconcile")
    yield View("job", f"{_LOCATION}/jobs/index", "index")
    yield View("launchpad", f"{_LOCATION}/jobs/index/playground", "Launch")
    yield View("launchpad-repair", f"{_LOCATION}/jobs/repair/playground", "Launch")
    yield View("runs", "/runs", "Target")
    for name, job, status in (
        ("run-drain", "index", "SUCCESS"),
        ("run-census", "census", "SUCCESS"),
        ("run-failed", "index", "FAILURE"),
    ):
        if run_id := _last_run(url, job, status):
            yield View(name, f"/runs/{run_id}", run_id[:8], height=1200)
    yield View("backfills", "/runs", "Target", ("Backfills",))


def _last_run(url: str, job: str, status: str) -> str | None:
    runs = ask(url, _LAST_RUNS, job=job, statuses=[status])["runsOrError"]["results"]
    return runs[0]["runId"] if runs else None


def draw(page: Page, view: View, picture: Path) -> str | None:
    """Draw one page. Returns what it did not show, and draws it all the same."""
    page.go(view.path)
    try:
        page.wait_for(view.shows)
        for text in view.clicks:
            page.click(text)
        page.wait_for(view.then_shows)
    except PageFailed as error:
        return f"{view.name} ({view.path}): {error}"
    finally:
        page.draw(picture, view.height)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mcp_assets_tests.look", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--url", help="a UI that runs already, such as http://127.0.0.1:3000")
    parser.add_argument("--only", default="", help="draw only pages with this in their name")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    with ExitStack() as stack:
        # A short path, for PostgreSQL's socket has one.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="look", dir="/tmp")))
        try:
            url = given.url or stack.enter_context(demo(folder))
            if not given.url:
                make_worth_looking(url, folder)
            page = stack.enter_context(opened(url, folder))
            for number, view in enumerate(views(url), 1):
                if given.only in view.name:
                    picture = given.folder / f"{number:02}-{view.name}.png"
                    fault = draw(page, view, picture)
                    print(fault or picture, flush=True)
                    faults += [fault] if fault else []
        except (DemoFailed, PageFailed) as error:
            faults.append(str(error))
            print(error, file=sys.stderr)
    print(
        f"{given.folder}: {len(faults)} pages do not show what they should"
        if faults
        else f"all pages are in {given.folder}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
