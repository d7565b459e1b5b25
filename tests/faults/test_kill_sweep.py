"""``kill -9`` at each system call that changes a file of a workspace, and the result of a rerun."""

from __future__ import annotations

import pytest

from sweeping import FEW, LIMIT_SECONDS, swept


@pytest.mark.fault(14)
@pytest.mark.parametrize("how", ["kill", "kill-one"])
def test_a_rerun_after_a_kill_at_some_calls_equals_an_undisturbed_run(how, seen):
    seen(swept(how, "chunks", sample=FEW))


@pytest.mark.slow
@pytest.mark.fault(14)
@pytest.mark.timeout(LIMIT_SECONDS)
@pytest.mark.parametrize("mode", ["tasks", "chunks", "workers", "cleanup"])
def test_a_rerun_after_a_kill_equals_an_undisturbed_run(mode, seen):
    seen(swept("kill", mode))


@pytest.mark.slow
@pytest.mark.fault(14)
@pytest.mark.timeout(LIMIT_SECONDS)
@pytest.mark.parametrize("mode", ["tasks", "chunks", "workers", "cleanup"])
def test_so_it_does_where_one_process_is_killed(mode, seen):
    seen(swept("kill-one", mode))
