"""What keeps a checkout from being released, and that each reason says what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from packages.release import build_twice, find_problems

FILES = {
    "cc_slurm_adapter/__init__.py": '"""It."""\n\n__version__ = "1.2.3"\n',
    "CHANGELOG.md": "# Changes\n\n## 1.2.3 - 2026-12-21\n\n- More.\n\n## 1.2.2 - 2026-11-30\n",
    "README.md": "NOTICE cc-slurm-adapter 1.2.3 reports\n",
    "SECURITY.md": "None.\n",
    "docs/packages.md": "apt-get install ./cc-slurm-adapter_1.2.3_all.deb, cc-slurm-adapter-1.2.3-1.noarch.rpm\n",
    ".gitignore": "/dist/\n/.build/\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean one that could be released."""
    root = tmp_path / "checkout"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "--quiet")
    commit(root)
    return root


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=root, capture_output=True, timeout=60, check=True)


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=all")


def change(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


def test_a_clean_checkout_whose_versions_agree_has_no_problem(checkout: Path) -> None:
    assert find_problems(checkout) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("CHANGELOG.md", "1.2.3 - 2026-12-21", "1.2.3 (unreleased)", "begin with the line `## 1.2.3 - YYYY-MM-DD`"),
        ("CHANGELOG.md", "1.2.3 - 2026-12-21", "1.2.3 - soon", "CHANGELOG.md begins with `## 1.2.3 - soon`"),
        (
            "CHANGELOG.md",
            "## 1.2.3 - 2026-12-21\n\n",
            "",
            "begins with `## 1.2.2 - 2026-11-30`, and the version is 1.2.3",
        ),
        ("cc_slurm_adapter/__init__.py", "1.2.3", "1.3.0", "let it begin with the line `## 1.3.0 - YYYY-MM-DD`"),
        ("cc_slurm_adapter/__init__.py", "1.2.3", "1.3", "write the version that is released there"),
        ("README.md", "1.2.3", "1.2.2", "README.md, line 1, names cc-slurm-adapter 1.2.2: write 1.2.3 there"),
        ("docs/packages.md", "_1.2.3", "_1.2.0", "docs/packages.md, line 1, names cc-slurm-adapter 1.2.0"),
        ("docs/packages.md", "-1.2.3-1", "-1.2.1-1", "docs/packages.md, line 1, names cc-slurm-adapter 1.2.1"),
    ],
)
def test_what_does_not_agree_is_said_with_what_to_do(checkout: Path, name: str, old: str, new: str, said: str) -> None:
    change(checkout, name, old, new)
    commit(checkout)
    assert any(said in problem for problem in find_problems(checkout))


def test_what_is_not_committed_is_named(checkout: Path) -> None:
    change(checkout, "SECURITY.md", "None", "Some")
    (checkout / "forgotten.py").touch()
    (problem,) = find_problems(checkout)
    assert "SECURITY.md, forgotten.py. Commit or remove them" in problem


def test_a_copy_without_its_history_is_no_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    (checkout / ".git").rename(checkout.parent / "away")
    (problem,) = find_problems(checkout)
    assert "run this in one" in problem


def test_the_second_build_is_of_the_commit_in_another_folder(checkout: Path) -> None:
    built: list[Path] = []

    def build(root: Path) -> Mapping[str, bytes]:
        built.append(root)
        assert (root / ".build").is_symlink() == (root != checkout)
        return {name: (root / name).read_bytes() for name in FILES}

    (checkout / ".build").mkdir()
    assert build_twice(checkout, build) == []
    here, elsewhere = built
    assert here == checkout
    assert checkout not in elsewhere.parents
    assert not elsewhere.exists()


def test_a_file_that_differs_or_is_made_only_once_is_named(checkout: Path) -> None:
    def build(root: Path) -> Mapping[str, bytes]:
        made = {"same": b"x", "place": str(root).encode()}
        return made if root == checkout else {**made, "more": b"x"}

    problems = build_twice(checkout, build)
    assert [problem.split()[0] for problem in problems] == ["dist/more", "dist/place"]
    assert all("diffoscope" in problem for problem in problems)
