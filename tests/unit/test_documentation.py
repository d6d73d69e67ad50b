"""The reference pages say what the code has."""

import re
from pathlib import Path

import pytest

from pytest_inference_gate.cards import ModelCard
from pytest_inference_gate.options import OPTIONS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_in_the_reference_with_its_ini_twin(option):
    page = (ROOT / "docs" / "reference" / "options.md").read_text()
    assert re.search(rf"^\| `--gate-{option.name}(=[^`]*)?` \| `{option.destination}` \|", page, re.MULTILINE)


@pytest.mark.parametrize("key", [name for name in ModelCard.model_fields if name != "path"])
def test_every_key_of_a_card_is_in_the_reference(key):
    assert key in (ROOT / "docs" / "reference" / "model-cards.md").read_text()


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md")]), ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_ci_runs_the_readme_s_commands():
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    commands = re.findall(r"^\$ (python3 -m venv .*)$", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert command in script
