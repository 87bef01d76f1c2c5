"""The README's table of settings is made from the class."""

from mcp_assets_tests.settings_table import README, with_table


def test_the_readme_lists_every_setting_as_the_class_has_it() -> None:
    assert README.read_text() == with_table(README.read_text())
