"""The docs are true: what they name exists, and what exists is named."""

import re
from pathlib import Path

import pytest
import yaml

from cli.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_function_and_file_that_a_page_names_exists(page):
    text = page.read_text()
    for path, name in re.findall(r"`((?:\w+/)+\w+\.py)(?:::?(\w+))?`", text):
        source = ROOT / path
        assert source.exists(), f"{page.name} names {path}"
        if name:
            assert re.search(rf"^\s*(def|class) {name}\b", source.read_text(), re.MULTILINE), (
                f"{page.name} names {path}:{name}"
            )
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_setting_is_described_and_named_in_the_docs():
    text = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"`{PREFIX}{name.upper()}`" in text, name


def test_every_variable_that_the_docs_name_is_a_setting():
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for page in [*PAGES, ROOT / "docker-compose.yml", ROOT / "deploy.env.example"]:
        for name in re.findall(r"\bOPENPEEK_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()):
            assert name in known or name.startswith(("OPENPEEK_TEST_", "OPENPEEK_FAULT_")), f"{page.name}: {name}"


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        assert set(re.findall(r"`?make ([a-z-]+)", page.read_text())) <= targets


def test_the_compose_file_names_no_password_and_publishes_on_loopback_only():
    text = (ROOT / "docker-compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    assert {"api", "worker", "postgres", "redis", "qdrant", "s3"} <= set(services)
    for name, service in services.items():
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), name
    settings = {name: value for service in services.values() for name, value in service.get("environment", {}).items()}
    for name, value in settings.items():
        if re.search("PASSWORD|SECRET|KEY|AUTH|DATABASE_URL|QUEUE_URL", name):
            assert ":?" in value, f"{name} has a default"
    example = (ROOT / "deploy.env.example").read_text()
    for name in re.findall(r"\$\{(\w+):\?", text):
        assert re.search(rf"^{name}=$", example, re.MULTILINE), name


def test_every_adr_has_a_number_of_its_own_and_says_how_it_is_checked():
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(numbers) == len(set(numbers))
    for page in pages:
        assert "**Decision.**" in page.read_text(), page.name
