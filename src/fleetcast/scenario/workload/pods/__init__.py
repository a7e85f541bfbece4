"""Pods and nodes as columns: what a file or a generator says of them."""

from fleetcast.scenario.workload.pods.columns import Nodes, Pods
from fleetcast.scenario.workload.pods.generators import deployments, distinct, sampled
from fleetcast.scenario.workload.pods.readers import read_nodes, read_pods

__all__ = ["Nodes", "Pods", "deployments", "distinct", "read_nodes", "read_pods", "sampled"]
