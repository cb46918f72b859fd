"""The worked solutions run by themselves, and every one of them is right."""

import pytest
from notebook_runs import run_as_promised

from machinery import editions, masters

NAMES = [name for name in masters.master_names() if "solutions" in editions.editions_of(name)]


@pytest.mark.parametrize("name", NAMES)
def test_every_solution_is_right(name, tmp_path):
    run_as_promised(name, "solutions", "is right:", tmp_path)
