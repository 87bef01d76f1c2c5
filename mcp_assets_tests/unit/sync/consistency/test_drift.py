"""Drift: each kind has a name that is kept, a severity, advice, and a place among the groups that a repair works by."""

import pytest

from mcp_assets.sync.consistency.drift import (
    DELETING,
    LIES,
    OF_ENTITIES,
    OF_LINKS,
    OF_POINTS,
    TO_EMBED,
    DriftKind,
    Severity,
)

REPAIRED = (
    OF_ENTITIES - {DriftKind.DAMAGED_ROW}
    | OF_LINKS
    | {DriftKind.WRONG_WORDS, DriftKind.ORPHANED_EDGE, DriftKind.REMOVED_TYPE}
)
LEFT_TO_A_PERSON = {
    DriftKind.UNUSABLE_ROW,
    DriftKind.UNUSABLE_TABLE,
    DriftKind.DAMAGED_ROW,
    DriftKind.DANGLING_REFERENCE,
    DriftKind.FOREIGN_POINT,
    DriftKind.FOREIGN_EDGE,
}


def test_the_names_of_the_kinds_are_kept_because_the_table_drift_and_answers_have_them() -> None:
    assert {kind.value for kind in DriftKind} == {
        "damaged_row",
        "dangling_reference",
        "duplicate_point",
        "foreign_orphaned_edge",
        "foreign_point",
        "invalid_vector",
        "ledger_behind_source",
        "lying_ledger",
        "missing_edge",
        "missing_vector",
        "orphan_vector",
        "orphaned_edge",
        "removed_type",
        "stale_link",
        "stale_payload",
        "stale_vector",
        "surplus_chunk",
        "surplus_edge",
        "swapped_vector",
        "unusable_relationships",
        "unusable_source_row",
        "vanished_row",
        "wrong_edge",
        "wrong_model",
        "wrong_search_words",
    }


@pytest.mark.parametrize("kind", DriftKind)
def test_only_what_others_wrote_is_a_warning(kind: DriftKind) -> None:
    of_others = {DriftKind.FOREIGN_POINT, DriftKind.FOREIGN_EDGE, DriftKind.DANGLING_REFERENCE}
    assert kind.severity is (Severity.WARNING if kind in of_others else Severity.ERROR)


def test_a_repair_works_on_each_kind_or_a_person_does() -> None:
    assert set(DriftKind) == REPAIRED | LEFT_TO_A_PERSON
    assert not REPAIRED & LEFT_TO_A_PERSON


@pytest.mark.parametrize("kind", sorted(REPAIRED))
def test_the_advice_for_what_a_repair_mends_names_the_repair(kind: DriftKind) -> None:
    assert "`mcp-assets validate --repair`, or the job `repair`," in kind.advice


@pytest.mark.parametrize("kind", sorted(LEFT_TO_A_PERSON))
def test_the_advice_for_what_a_repair_leaves_does_not_promise_it(kind: DriftKind) -> None:
    assert "or the job `repair`," not in kind.advice


@pytest.mark.parametrize(
    ("kind", "option"),
    [(DriftKind.FOREIGN_POINT, "--foreign"), (DriftKind.FOREIGN_EDGE, "--foreign-edges")],
)
def test_the_advice_for_what_others_wrote_names_the_option_that_removes_it(kind: DriftKind, option: str) -> None:
    assert f"--repair {option}`" in kind.advice


def test_what_is_embedded_again_is_not_what_is_removed() -> None:
    assert not TO_EMBED & (DELETING | OF_POINTS)


def test_each_group_of_the_repair_of_entities_is_about_entities() -> None:
    assert TO_EMBED | DELETING | OF_POINTS | LIES <= OF_ENTITIES
    assert not OF_LINKS & OF_ENTITIES
