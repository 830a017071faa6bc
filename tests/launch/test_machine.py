"""What a machine tells of itself."""

import platform

import numpy as np

from launch.machine import package_versions, processor, processor_flags


def test_versions_begin_with_python_and_leave_out_or_name_what_is_missing() -> None:
    packages = ("no-such-package", "numpy")
    assert list(package_versions(packages).items()) == [
        ("python", platform.python_version()),
        ("numpy", np.__version__),
    ]
    assert package_versions(packages, missing="missing")["no-such-package"] == "missing"
    assert list(package_versions(packages, missing="missing")) == ["python", *packages]


def test_the_processor_has_a_name_and_instruction_sets_are_single_words() -> None:
    assert processor()
    assert "\n" not in processor()
    assert "\n" not in processor_flags()
