"""The files of cluster/deploy are what their readers accept: images, Kubernetes, `ray up`, Grafana."""

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.commands.main import build_parser
from cluster.runtime.metrics import METRICS, exported_name
from environment.driver import cuda_version

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "cluster/deploy"
KUBERNETES = ("raycluster", "rayjob")
# A folder with ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of KubeRay.
CRDS = os.environ.get("LOGITBANK_KUBERAY_CRDS")


def kubernetes(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / f"kubernetes/{name}.yaml").read_text())
    return document


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_manifest_fits_the_images_and_the_locks(name: str) -> None:
    cluster = cluster_of(kubernetes(name))
    assert cluster["rayVersion"] == ray.__version__
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    built = {re.search(r"-t (\S+)", path.read_text())[1] for path in DEPLOY.glob("*.Dockerfile")}  # type: ignore[index]
    assert images <= built
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_command_of_the_job_is_one() -> None:
    entrypoint = kubernetes("rayjob")["spec"]["entrypoint"].split()
    assert entrypoint[0] == "logitbank"
    assert build_parser().parse_args(entrypoint[1:]).verb == "capture"


@pytest.mark.parametrize("name", KUBERNETES)
@pytest.mark.skipif(not CRDS, reason="LOGITBANK_KUBERAY_CRDS names no folder with KubeRay's CRDs")
def test_a_manifest_is_what_kuberay_accepts(name: str) -> None:
    crd = yaml.safe_load((Path(str(CRDS)) / f"ray.io_{name}s.yaml").read_text())
    version = next(each for each in crd["spec"]["versions"] if each["name"] == "v1")
    jsonschema.validate(kubernetes(name), _closed(version["schema"]["openAPIV3Schema"]))


def _closed(schema: Any) -> Any:
    """The schema without room for unknown keys, which Kubernetes would drop without a word."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("pattern", None)
        return {**closed, "type": ["integer", "string"]}
    if isinstance(closed.get("properties"), dict) and "additionalProperties" not in closed and closed.get("type"):
        closed["additionalProperties"] = closed["properties"].keys() <= {"kind", "apiVersion"}
    return closed


def test_ray_up_accepts_its_file() -> None:
    config = yaml.safe_load((DEPLOY / "ray_up.yaml").read_text())
    validate_config(prepare_config(config))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_image_copies_what_exists(device: str) -> None:
    lines = (DEPLOY / f"{device}.Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert len(copied) == 2 and all((ROOT / name).exists() for name in copied)
    lock = (ROOT / copied[0]).read_text()
    base = next(line for line in lines if line.startswith("FROM"))
    python = re.search(r"-(3\.\d+)\.lock", copied[0])
    assert python is not None
    if device == "cpu":
        assert f"python:{python[1]}-" in base and "+cpu" in lock
    else:
        assert f":{cuda_version(lock)}." in base and f"python{python[1]}" in "\n".join(lines)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "runs", "stores"} <= set(ignored)


def test_the_dashboard_has_every_metric() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    names = [exported_name(job, kind) for job, kinds in METRICS.items() for kind in kinds]
    assert len(queries) == len(names)
    for name, query in zip(names, queries, strict=True):
        assert f"{name}{{" in query and query.count("(") == query.count(")")
        assert query.startswith("sum by (place) (rate(" if name.endswith("_total") else "max by (place) (")
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places), "no panel hides another"
