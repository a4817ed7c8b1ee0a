"""transformers' own common model tests pass for every mixup class, also while it mixes."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.tiny import CONFIGS, EAGER_ONLY, FAMILIES
from tests.upstream.fetch import FetchError, fetch

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def upstream_tests() -> Path:
    try:
        return fetch()
    except FetchError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"The tests of transformers could not be fetched: {error}")


def run_suite(
    upstream_tests: Path, family: str, report: Path, only: str = "Test"
) -> tuple[dict[str, dict[str, str]], str]:
    """For each class of suite.py the outcome of each test, and what pytest printed."""
    options = ["--import-mode=importlib", "--tb=short", "--disable-warnings", f"--junitxml={report}"]
    # Without the fixtures and settings of this project: upstream's tests expect the libraries' defaults.
    options += [
        "-k",
        only,
        "--noconftest",
        "-c",
        os.devnull,
        "--rootdir",
        str(ROOT),
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    settings = {"HF_MIXUP_UPSTREAM": str(upstream_tests), "HF_MIXUP_FAMILY": family, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(ROOT / "tests/upstream/suite.py")],
        env={**os.environ, **settings, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=report.parent,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert report.is_file(), done.stdout + done.stderr
    outcomes: dict[str, dict[str, str]] = defaultdict(dict)
    # A test comes once more for each of its parts that failed, so what is worse stays.
    for case in ElementTree.parse(report).iter("testcase"):
        known = outcomes[case.get("classname").rpartition(".")[2]]
        found = {child.tag for child in case} & {"failure", "error"}
        if found or known.get(case.get("name")) != "failed":
            skipped = case.find("skipped") is not None
            known[case.get("name")] = "failed" if found else "skipped" if skipped else "passed"
    return outcomes, done.stdout


@pytest.mark.timeout(600)
def test_the_common_tests_of_transformers_pass(family, upstream_tests, tmp_path):
    outcomes, printed = run_suite(upstream_tests, family, tmp_path / "report.xml")
    parent, mixup, mixing = (outcomes[name] for name in ("ParentTest", "MixupTest", "MixingTest"))
    for tested in (parent, mixup, mixing):
        assert [name for name, outcome in tested.items() if outcome == "failed"] == [], printed[-20000:]
    # What is skipped (no GPU, no flash attention, not a decoder, ...) is skipped for the class of transformers too.
    assert mixup == parent
    assert mixing.items() <= parent.items()
    assert list(mixup.values()).count("passed") >= 95
    assert list(mixing.values()).count("passed") >= 90


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in FAMILIES])
def test_they_pass_for_the_other_families(family, upstream_tests, tmp_path):
    outcomes, printed = run_suite(upstream_tests, family, tmp_path / "report.xml", only="MixupTest")
    outcomes = outcomes["MixupTest"]
    assert [name for name, outcome in outcomes.items() if outcome == "failed"] == [], printed[-20000:]
    # Those with one implementation of attention have fewer.
    assert list(outcomes.values()).count("passed") >= (70 if family in EAGER_ONLY else 99)
