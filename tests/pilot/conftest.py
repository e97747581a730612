"""Two real servers, for the tests of runs that have several."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.pilot.hosts import Host


@pytest.fixture(scope="session")
def two_hosts(tmp_path_factory):
    hosts = [Host(tmp_path_factory.mktemp("base")) for _ in range(2)]
    yield hosts
    for host in hosts:
        host.kill()


@pytest.fixture
def hosts(two_hosts):
    """Both of them, running, whatever a test before did to them."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(Host.start, [host for host in two_hosts if not host.is_running]))
    return two_hosts
