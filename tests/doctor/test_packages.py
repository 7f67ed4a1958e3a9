"""A wrong version is a fault, a missing part a warning, and only what is asked for is looked at."""

from __future__ import annotations

from importlib.metadata import version

from recsys.doctor.packages import check_packages, check_python, declared_requirements

REQUIREMENTS = [
    "numpy>=2.0",
    'boto3>=1.40; extra == "s3"',
    'no-such-package-here>=1; extra == "serve"',
    'recsys[s3,serve]; extra == "demo"',
    'pyarrow>=999; extra == "future"',
    'pyarrow>=999; sys_platform == "plan9"',
]


def test_an_old_python_is_a_fault():
    found = check_python("3.10.14", ">=3.11")
    assert (found.verdict, found.found) == ("fault", "3.10.14, needed is >=3.11")
    assert check_python("3.11.7", ">=3.11").verdict == "ok"


def test_a_package_of_the_wrong_version_is_a_fault_that_names_both_versions():
    found = check_packages(["pyarrow>=999", "numpy>=2.0"])
    assert found.verdict == "fault"
    assert found.found == f"pyarrow is {version('pyarrow')}, needed is >=999"
    assert check_packages(REQUIREMENTS, "future").verdict == "fault"


def test_what_all_need_and_lack_is_a_fault_and_what_an_extra_lacks_is_a_warning():
    assert check_packages(["no-such-package-here"]).verdict == "fault"
    found = check_packages(REQUIREMENTS, "serve")
    assert (found.verdict, found.found) == ("warning", "no-such-package-here is missing")
    assert "recsys[serve]" in found.advice


def test_an_extra_brings_the_packages_of_the_extras_it_names():
    assert check_packages(REQUIREMENTS, "s3").found == "1 as asked for"
    assert check_packages(REQUIREMENTS, "demo").found == "no-such-package-here is missing"


def test_requirements_of_other_platforms_and_of_extras_do_not_count_for_all():
    assert check_packages(REQUIREMENTS).found == "1 as asked for"


def test_a_build_of_torch_for_one_device_is_the_version_that_was_asked_for():
    assert check_packages([f"torch=={version('torch').partition('+')[0]}"]).verdict == "ok"


def test_the_project_declares_what_it_needs():
    python, required = declared_requirements()
    assert python.startswith(">=3.")
    assert any(each.startswith("pydantic") for each in required)
