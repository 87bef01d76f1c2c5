"""The README's table of settings and `.env.example` are made from the class."""

from mcp_assets_tests.settings_table import ENV_EXAMPLE, README, env_example, with_table


def test_the_readme_lists_every_setting_as_the_class_has_it() -> None:
    assert README.read_text() == with_table(README.read_text())


def test_the_example_of_a_settings_file_has_every_setting_with_its_default() -> None:
    assert ENV_EXAMPLE.read_text() == env_example()
