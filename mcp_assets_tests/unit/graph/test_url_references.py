"""Link forms: which addresses are references, and to what."""

import pytest

from mcp_assets.graph.url_references import LinkForm, LinkForms

FORMS = LinkForms(
    [
        LinkForm.of("https://wiki.example.com/pages/{slug}", "page"),
        LinkForm.of("https://wiki.example.com/t/{title}", "page"),
        LinkForm.of("https://wiki.example.com/pages/tree/{slug}/view", "page"),
        LinkForm.of("https://kanban.example.com/cards/{id}/edit", "task"),
        LinkForm.of("https://kanban.example.com/cards/{id}", "task"),
        LinkForm.of("https://kanban.example.com/show?card={id}", "task"),
    ]
)


@pytest.mark.parametrize(
    ("text", "kind", "key", "entity_type"),
    [
        ("https://wiki.example.com/pages/docs/Ledger", "slug", "docs/ledger", "page"),
        ("https://wiki.example.com/pages/docs/ledger/?tab=1#top", "slug", "docs/ledger", "page"),
        ("See <https://wiki.example.com/pages/ledger>.", "slug", "ledger", "page"),
        ("[here](https://wiki.example.com/pages/ledger), and", "slug", "ledger", "page"),
        ("It is https://wiki.example.com/pages/ledger.", "slug", "ledger", "page"),
        ("**https://wiki.example.com/pages/ledger**", "slug", "ledger", "page"),
        ("https://wiki.example.com/pages/tree/a/b/view/old", "slug", "a/b", "page"),
        ("https://wiki.example.com/t/How_the+ledger%20works", "title", "how the ledger works", "page"),
        ("https://wiki.example.com/t/C%2B%2B/history", "title", "c++", "page"),
        ("https://kanban.example.com/cards/CHK-1/edit", "id", "task:CHK-1", "task"),
        ("https://kanban.example.com/cards/CHK-1/comments", "id", "task:CHK-1", "task"),
        ("https://kanban.example.com/cards/CHK-1?x=/edit", "id", "task:CHK-1", "task"),
        ("https://kanban.example.com/show?card=42&tab=1", "id", "task:42", "task"),
        ("https://kanban.example.com/cards/a%3Ab", "id", "task:a:b", "task"),
    ],
)
def test_an_address_of_a_listed_form_is_a_reference(text: str, kind: str, key: str, entity_type: str) -> None:
    (link,) = FORMS.find(text)
    assert (link.key, link.entity_type) == ((kind, key), entity_type)
    assert text[link.start :].startswith("https://")


@pytest.mark.parametrize(
    "text",
    [
        "https://wiki.example.com/other/ledger",
        "https://wiki.example.com/pages/",
        "https://wiki.example.com/pages/ ledger",
        "https://wiki.example.com/pages/.",
        "https://wiki.example.com/pages/tree/a/b",
        "https://wiki.example.com/pages/a%00b",
        "https://wiki.example.com/pages/" + "x" * 5000,
        "https://kanban.example.com/cards//edit",
        "https://kanban.example.com/cards/" + "x" * 513,
    ],
)
def test_other_addresses_are_not(text: str) -> None:
    assert list(FORMS.find(text)) == []


@pytest.mark.parametrize(
    "template",
    ["https://wiki.example.com/", "https://{id}/{slug}", "https://x/{name}", "{slug}", "/p/{id}", "https://a b/{id}"],
)
def test_a_malformed_template_is_refused_by_name(template: str) -> None:
    with pytest.raises(ValueError, match="the link form '"):
        LinkForm.of(template, "page")


def test_without_forms_no_address_is_a_reference() -> None:
    assert list(LinkForms([]).find("https://wiki.example.com/pages/ledger")) == []
