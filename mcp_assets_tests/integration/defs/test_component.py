"""The platform as a component of another Dagster project: dg finds it, and defs.yaml sets definitions and runs."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.test_utils import create_run_for_test, instance_for_test
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster.components.core.component_tree import ComponentTreeException

from mcp_assets.components import McpAssetsComponent
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.project_component import COMPONENT
from mcp_assets.settings import Settings
from mcp_assets_tests.waiting import until

# Dagster's own, for each project with a component that defines external assets.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `execution_type` of function `AssetsDefinition.__init__`")

SCRIPTS = Path(sys.executable).parent

DEFINITIONS = """
from pathlib import Path

import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""

OWN_ASSET = """
import dagster as dg

@dg.asset
def revenue() -> int:
    return 1
"""


class Project:
    """A Dagster project as create-dagster makes it, with an asset of its own and the component."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / "src/shop"
        (self.package / "defs/mcp").mkdir(parents=True)
        (root / "pyproject.toml").write_text(
            '[project]\nname = "shop"\nversion = "0.1"\n'
            '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
        )
        (self.package / "__init__.py").touch()
        (self.package / "definitions.py").write_text(DEFINITIONS)
        (self.package / "defs/__init__.py").touch()
        (self.package / "defs/own.py").write_text(OWN_ASSET)

    def say(self, **attributes: object) -> None:
        (self.package / "defs/mcp/defs.yaml").write_text(json.dumps({"type": COMPONENT, "attributes": attributes}))

    def load(self) -> dg.Definitions:
        definitions: dg.Definitions = importlib.import_module("shop.definitions").defs()
        return definitions


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = Project(tmp_path / "shop")
    monkeypatch.syspath_prepend(str(made.package.parent))
    monkeypatch.chdir(made.root)
    yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def schemas(settings: Settings) -> set[str]:
    """Those that hold a ledger."""
    with psycopg.connect(settings.require_database_url()) as connection:
        rows = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'entities'").fetchall()
    return {name for (name,) in rows}


def test_defs_yaml_says_which_partitions_there_are_and_the_projects_own_assets_stay_as_they_are(
    project: Project, environment: None
) -> None:
    project.say(shards=2, types={"ticket": {"source": {"table": "tickets"}}})
    definitions = project.load()
    graph = definitions.resolve_asset_graph()
    partitions = graph.get(dg.AssetKey("entities")).partitions_def
    assert partitions is not None
    assert list(partitions.get_partition_keys()) == ["ticket-00", "ticket-01"]
    assert graph.has(dg.AssetKey("revenue"))
    assert definitions.executor is None


def test_the_resource_has_the_settings_of_the_definitions(project: Project, environment: None) -> None:
    project.say(shards=2, schema_name="shop")
    resource = (project.load().resources or {})["platform"]
    assert isinstance(resource, PlatformResource)
    settings = resource.get().settings
    assert (settings.shards, settings.schema_name) == (2, "shop")


def test_definitions_and_environment_that_contradict_each_other_do_not_load(
    project: Project, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.say(shards=2)
    monkeypatch.setenv("MCP_ASSETS_SHARDS", "3")
    with pytest.raises(ComponentTreeException) as failed:
        project.load()
    assert "MCP_ASSETS_SHARDS is 3 in the environment" in str(failed.value.__cause__)
    assert "shards: 2" in str(failed.value.__cause__)


def test_the_mapping_file_of_the_project_counts_in_whatever_folder_a_process_starts(
    project: Project, environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.say(shards=1)
    (project.root / "mcp_assets.yaml").write_text("preset: none\ntypes:\n  ticket: {source: {table: tickets}}\n")
    monkeypatch.chdir(tmp_path)
    partitions = project.load().resolve_asset_graph().get(dg.AssetKey("entities")).partitions_def
    assert partitions is not None
    assert list(partitions.get_partition_keys()) == ["ticket-00"]


class Launcher:
    """Launches the job that counts tags, in a process of its own, as the daemon does."""

    def __init__(self, instance: dg.DagsterInstance, stack: ExitStack) -> None:
        self._instance = instance
        self._stack = stack
        self.log = ""
        """What the last run has logged."""

    @cached_property
    def _workspace(self) -> WorkspaceRequestContext:
        """The definitions as a code server has loaded them at the first launch."""
        code_server = ModuleTarget("shop.definitions", None, str(Path("src").resolve()), "shop")
        process = self._stack.enter_context(WorkspaceProcessContext(self._instance, code_server))
        return process.create_request_context()

    def launch(self, *, then: Callable[[], None] = lambda: None) -> dg.DagsterRun:
        """The run, once it has ended. `then` comes between the making of the run and its start."""
        workspace = self._workspace
        (repository,) = workspace.get_code_location("shop").get_repositories().values()
        job = repository.get_full_job("refresh_tag_weights")
        run = create_run_for_test(
            self._instance,
            job_name=job.name,
            job_snapshot=job.job_snapshot,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        then()
        self._instance.launch_run(run.run_id, workspace)

        def ended() -> dg.DagsterRun | None:
            found = self._instance.get_run_by_id(run.run_id)
            return found if found is not None and found.is_finished else None

        done = until(ended, "the run has ended", within_s=120)
        assert isinstance(done, dg.DagsterRun)
        self.log = "\n".join(map(str, self._instance.all_logs(run.run_id)))
        return done


@pytest.fixture(params=["dagster._core.launcher.DefaultRunLauncher", "dagster_warm_launcher.WarmRunLauncher"])
def launcher(
    request: pytest.FixtureRequest, project: Project, platform: Platform, environment: None
) -> Iterator[Launcher]:
    module, _, name = request.param.rpartition(".")
    with ExitStack() as stack:
        instance = stack.enter_context(instance_for_test(overrides={"run_launcher": {"module": module, "class": name}}))
        yield Launcher(instance, stack)
        instance.run_launcher.dispose()


def test_a_run_in_a_process_of_its_own_has_the_settings_of_the_definitions_that_launched_it_or_fails(
    project: Project, launcher: Launcher, settings: Settings
) -> None:
    project.say(schema_name="shop")
    before = schemas(settings)
    assert launcher.launch().is_success, launcher.log
    assert schemas(settings) - before == {"shop"}

    changed = launcher.launch(then=lambda: project.say(schema_name="other"))
    assert changed.status is dg.DagsterRunStatus.FAILURE
    assert "reload the code location" in launcher.log
    assert "other" not in schemas(settings)


def dg_answers(project: Project, *words: str) -> str:
    done = subprocess.run(
        [SCRIPTS / "dg", *words],
        cwd=project.root,
        env={**os.environ, "HOME": str(project.root), "PYTHONPATH": str(project.package.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dg_finds_the_component_and_lists_what_it_defines(project: Project, environment: None) -> None:
    project.say(shards=2)
    assert COMPONENT in dg_answers(project, "list", "components", "--json")
    listed = json.loads(dg_answers(project, "list", "defs", "--json"))
    assert {"entities", "embeddings", "revenue"} <= {asset["asset_key"] for asset in listed["assets"]}


def test_each_attribute_is_a_setting() -> None:
    assert McpAssetsComponent.model_fields.keys() <= Settings.model_fields.keys() | {"sources_file"}
