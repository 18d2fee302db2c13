"""A Ray cluster of two nodes on this machine, with a CPU each. It takes about 1 GiB and 10 s to start."""

import os

import pytest
from folders import write_random_model


@pytest.fixture(scope="session")
def model_file(tmp_path_factory, home):
    return write_random_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", "int8")


@pytest.fixture(scope="session")
def cluster(home):
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "nbgpt[ray]"')
    pytest.importorskip("ray.data", reason='Ray Data is not installed: pip install "nbgpt[ray]"')
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    memory = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**memory, "include_dashboard": False})
    cluster.add_node(**memory)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()
