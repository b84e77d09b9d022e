"""Procfile, containers and manifests run what the topology draws, and keep what the docs promise."""

from __future__ import annotations

import copy
import re
import subprocess
from typing import Any

import msgspec
import pytest

from events import topology
from events.keys import Keys
from shared.settings import Settings
from tests.project import manifests
from tests.tools import KUBERNETES, ROOT, require

DOCKERFILE = (ROOT / "Dockerfile").read_text()
AGENT_COMMAND = ["python", "-m", "consumers"]
SETTINGS = {name.upper() for name in Settings.__struct_fields__}
NO_REPORTS = "ORT_DISABLE_TELEMETRY"
"""A variable of onnxruntime, no setting of ours."""
GRACE = next(field.default for field in msgspec.structs.fields(Settings) if field.name == "grace_seconds")
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.-]+)?")
DURABLE = {
    "--appendonly": "yes",
    "--appendfsync": "always",
    "--aof-load-truncated": "no",
    "--save": "",
    "--maxmemory-policy": "noeviction",
}
BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def kubernetes_name(agent: str) -> str:
    return agent.replace("_", "-")


def options(command: list[str]) -> dict[str, str]:
    return dict(zip(command[1::2], command[2::2], strict=True))


def environment(service: manifests.Manifest) -> dict[str, str]:
    found: dict[str, str] = service["environment"]
    return found


def test_procfile_runs_every_agent_and_the_gateway() -> None:
    expected = {agent: f"python -m consumers {agent}" for agent in topology.CONSUMERS}
    assert manifests.procfile() == {**expected, "gateway": "erni gateway"}


def test_compose_has_one_service_for_each_agent_and_what_they_need() -> None:
    services = manifests.compose()["services"]
    agents = {
        name: service["command"]
        for name, service in services.items()
        if "consumers" in service.get("command", ())
    }
    assert agents == {agent: [*AGENT_COMMAND, agent] for agent in topology.CONSUMERS}
    others = {name for name, service in services.items() if "profiles" not in service} - agents.keys()
    assert others == {"redis", "jaeger", "prometheus", "gateway"}
    for name in (*topology.CONSUMERS, "gateway"):
        service = services[name]
        assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
        assert service["volumes"] == ["store:/var/lib/erni"]
        assert service["env_file"] == [{"path": ".env", "required": False}]
        assert service["restart"] == "unless-stopped"
        assert environment(service).keys() <= SETTINGS | {NO_REPORTS}
        assert environment(service)[NO_REPORTS] == "1"
        assert environment(service)["PHOTO_STORE_URL"] == "file:///var/lib/erni/store"


def test_an_agents_container_gets_longer_to_stop_than_the_agent_takes() -> None:
    services = manifests.compose()["services"]
    deployments = manifests.of_kind("Deployment")
    for agent in topology.CONSUMERS:
        assert int(services[agent]["stop_grace_period"].removesuffix("s")) > GRACE
        pod = deployments[kubernetes_name(agent)]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > GRACE


def test_an_agent_can_be_scaled_in_compose() -> None:
    for agent in topology.CONSUMERS:
        service = manifests.compose()["services"][agent]
        assert "container_name" not in service
        assert "ports" not in service


def server_command(where: str) -> list[str]:
    """The server and its options in the containers of Redis."""
    if where == "compose":
        words: list[str] = manifests.compose()["services"]["redis"]["command"]
        return words
    return list(next(container for name, _, container in manifests.containers() if name == "redis")["args"])


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_redis_writes_everything_to_disk_and_evicts_nothing(where: str) -> None:
    command = server_command(where)
    assert command[0] == "redis-server"
    assert DURABLE.items() <= options(command).items()


def test_composes_redis_keeps_its_data_and_is_started_again() -> None:
    redis = manifests.compose()["services"]["redis"]
    assert redis["restart"] == "unless-stopped"
    assert redis["volumes"] == ["redis:/data"]


def test_what_compose_opens_is_open_on_this_machine_alone() -> None:
    services = manifests.compose()["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    published = {port.rsplit(":", 1)[1] for port in ports}
    assert {"16686", "4317", "8085"} <= published


def test_every_file_that_compose_mounts_is_there() -> None:
    document = manifests.compose()
    for service in document["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in document["volumes"] or (ROOT / source).exists(), source


def test_images_are_pinned() -> None:
    services = manifests.compose()["services"]
    images = {service["image"] for service in services.values()}
    images |= {container["image"] for _, _, container in manifests.containers()}
    images |= set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert all(PINNED.fullmatch(image) for image in images)
    ours = {image for image in images if image.startswith("erni")}
    assert ours == {f"erni-foto-agency:{_version()}"}
    redis = {image for image in images if image.startswith("redis")}
    assert len(redis) == 1


def _version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_the_image_is_made_of_locked_packages_and_runs_as_nobody_in_particular() -> None:
    assert "--require-hashes --requirement requirements.lock" in DOCKERFILE
    assert "--no-index" in DOCKERFILE
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER [1-9]\d+$", last, re.MULTILINE)
    assert not re.search(r"^(ADD|COPY \.)", DOCKERFILE, re.MULTILINE)


def test_what_the_image_copies_is_let_through() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in line.split()
    }
    assert copied == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)


def test_kubernetes_has_a_deployment_and_a_scaler_for_each_agent() -> None:
    names = {kubernetes_name(agent) for agent in topology.CONSUMERS}
    deployments, scalers = manifests.of_kind("Deployment"), manifests.of_kind("ScaledObject")
    assert deployments.keys() == names | {"gateway"}
    assert scalers.keys() == names
    for agent in topology.CONSUMERS:
        name = kubernetes_name(agent)
        (container,) = deployments[name]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == [*AGENT_COMMAND, agent]
        assert "replicas" not in deployments[name]["spec"]
        assert scalers[name]["spec"]["scaleTargetRef"] == {"name": name}


def test_an_agent_is_scaled_by_the_sum_of_its_streams_and_never_to_nothing() -> None:
    for stage in topology.STAGES:
        spec = manifests.of_kind("ScaledObject")[kubernetes_name(stage.agent)]["spec"]
        assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
        named = {}
        for trigger in spec["triggers"]:
            metadata = dict(trigger["metadata"])
            assert trigger["type"] == "redis-streams"
            assert trigger["authenticationRef"]["name"] in manifests.of_kind("TriggerAuthentication")
            assert metadata.pop("address") == "redis.erni.svc:6379"
            # KEDA reads every value as text
            assert all(isinstance(value, str) for value in metadata.values())
            named[trigger["name"]] = metadata.pop("stream")
            # with a consumer group KEDA would count what is pending only
            assert metadata.keys() == {"streamLength"}
        modifiers = spec["advanced"]["scalingModifiers"]
        assert modifiers["formula"].split(" + ") == list(named)
        assert list(named.values()) == [Keys().stream(stream) for stream in stage.streams]


@pytest.mark.needs(KUBERNETES)
@pytest.mark.parametrize("version", ["1.27.0", "1.37.0"])
def test_the_manifests_are_what_kubernetes_takes(version: str) -> None:
    files = [str(path) for path in sorted(manifests.KUBERNETES.rglob("*.yaml"))]
    command = [str(require(KUBERNETES)), "-m", "kubernetes_validate", "--strict", "-k", version, *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if not line.startswith("INFO")]
    assert ran.returncode == 0, said
    # these two are no kinds of Kubernetes itself
    assert {word for line in said for word in re.findall(r"api version (\S+)", line)} <= {
        "keda.sh/v1alpha1",
        "kustomize.config.k8s.io/v1beta1",
    }
    assert all("api version" in line for line in said), said


def test_a_drained_node_takes_one_pod_of_an_agent_at_a_time() -> None:
    budgets = manifests.of_kind("PodDisruptionBudget")
    assert budgets.keys() == {kubernetes_name(name) for name in (*topology.CONSUMERS, "gateway")}
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        pods = manifests.of_kind("Deployment")[name]["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"] == pods


def test_the_agents_deployments_differ_in_nothing_but_name_size_and_secrets() -> None:
    shapes = []
    for agent in set(topology.AGENTS) - {"vision_analyzer"}:
        text = repr(_without_size(manifests.of_kind("Deployment")[kubernetes_name(agent)]))
        shapes.append(text.replace(agent, "AGENT").replace(kubernetes_name(agent), "AGENT"))
    assert len(set(shapes)) == 1


def _without_size(deployment: manifests.Manifest) -> manifests.Manifest:
    copied: manifests.Manifest = copy.deepcopy(deployment)
    (container,) = copied["spec"]["template"]["spec"]["containers"]
    assert container.pop("resources")["limits"].keys() == {"memory"}
    return copied


def test_pods_run_without_rights() -> None:
    for name, pod, container in manifests.containers():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_agents_are_restarted_for_health_alone() -> None:
    for name, _, container in manifests.containers():
        if name == "redis":
            continue
        assert container["livenessProbe"]["httpGet"]["path"] == "/health"
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_the_settings_that_manifests_give_exist() -> None:
    given = set(manifests.of_kind("ConfigMap")["settings"]["data"]) - {NO_REPORTS}
    for name, _, container in manifests.containers():
        if name != "redis":
            given |= {variable["name"] for variable in container["env"]}
    given |= set(re.findall(r"^ +([A-Z_]+)=\S", DOCKERFILE, re.MULTILINE)) - {"PYTHONUNBUFFERED", NO_REPORTS}
    assert given <= SETTINGS


def test_onnxruntimes_reports_to_its_maker_are_off_in_image_and_manifests() -> None:
    assert manifests.of_kind("ConfigMap")["settings"]["data"][NO_REPORTS] == "1"
    assert re.search(rf"^ +{NO_REPORTS}=1$", DOCKERFILE, re.MULTILINE)


def test_every_secret_that_manifests_use_is_explained() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert _secrets_of(manifests.kubernetes()) == set(re.findall(r"create secret generic (\S+)", page))


def _secrets_of(node: Any) -> set[str]:
    if isinstance(node, list):
        return {name for item in node for name in _secrets_of(item)}
    if not isinstance(node, dict):
        return set()
    found = {name for value in node.values() for name in _secrets_of(value)}
    for key in ("secretRef", "secretKeyRef"):
        if key in node:
            found.add(node[key]["name"])
    if isinstance(node.get("secret"), dict):
        found.add(node["secret"]["secretName"])
    found |= {each["name"] for each in node.get("secretTargetRef", ())}
    return found


def test_pods_talk_to_redis_in_their_role() -> None:
    users = (ROOT / "deploy" / "redis" / "users.acl").read_text()
    for name, _, container in manifests.containers():
        if name == "redis":
            continue
        variables = {variable["name"]: variable for variable in container["env"]}
        role = "operator" if name == "gateway" else "worker"
        assert variables["REDIS_URL"]["value"] == f"redis://{role}@redis:6379/0"
        assert variables["REDIS_PASSWORD"]["valueFrom"]["secretKeyRef"]["key"] == role
        assert f"user {role} on " in users


def _bytes(text: str) -> int:
    """The bytes of 2g, 1280mb or 2Gi."""
    found = re.fullmatch(r"(\d+)([kmg]?)(?:b|i)?", text.lower())
    assert found, text
    return int(found[1]) * BYTES[found[2]]


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_redis_refuses_writes_before_the_kernel_kills_it(where: str) -> None:
    if where == "compose":
        redis = manifests.compose()["services"]["redis"]
        command, limit = redis["command"], redis["mem_limit"]
    else:
        redis = next(container for name, _, container in manifests.containers() if name == "redis")
        command, limit = redis["args"], redis["resources"]["limits"]["memory"]
    # what a rewrite of the append-only file may take on top
    assert _bytes(options(command)["--maxmemory"]) <= 0.65 * _bytes(limit)


def test_every_container_of_compose_has_limits_and_a_log_that_ends() -> None:
    for name, service in manifests.compose()["services"].items():
        assert service["mem_limit"], name
        assert service["pids_limit"] <= 200, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_compose_says_its_oldest_version_and_that_a_password_is_missing() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    # what needs it: an env_file that may be missing
    assert "Docker Compose 2.24 or newer" in text.split("\n")[0]
    assert "Docker Compose 2.24" in (ROOT / "docs" / "deploy.md").read_text()
    for name in (*topology.CONSUMERS, "gateway"):
        password = environment(manifests.compose()["services"][name])["REDIS_PASSWORD"]
        assert password.startswith("${REDIS_PASSWORD:?set it in .env"), name


def test_compose_leaves_the_port_of_erni_up_alone() -> None:
    assert all(":6379:" not in port for port in manifests.compose()["services"]["redis"]["ports"])


def test_a_container_gets_only_the_secrets_that_it_needs() -> None:
    services = manifests.compose()["services"]
    for name in ("vision_analyzer", "webhook_notifier"):
        assert environment(services[name])["AZURE_CLIENT_SECRET"] == ""
    for name in (*topology.CONSUMERS, "gateway"):
        if name != "vision_analyzer":
            assert environment(services[name])["VISION_API_KEY"] == ""
    for name, _, container in manifests.containers():
        if name == "redis":
            continue
        given = {source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source}
        others: dict[str, set[str]] = {
            "vision-analyzer": {"vision"},
            "gateway": set(),
            "webhook-notifier": set(),
        }
        own = others.get(name, {"sharepoint"})
        assert given == {"store"} | own, name


def test_only_our_pods_keda_and_namespaces_of_publishers_reach_redis_in_the_cluster() -> None:
    policies = {name: policy["spec"] for name, policy in manifests.of_kind("NetworkPolicy").items()}
    assert policies["nobody-gets-in"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (rule,) = policies["redis"]["ingress"]
    assert rule["ports"] == [{"port": 6379}]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "erni-foto-agency"}}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}},
        {"namespaceSelector": {"matchLabels": {"erni/publisher": "true"}}},
    ]
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert "kubectl label namespace your-namespace erni/publisher=true" in page


def test_who_takes_foreign_bytes_and_addresses_reaches_pods_and_names_but_no_metadata_service() -> None:
    policy = manifests.of_kind("NetworkPolicy")["no-metadata-services"]["spec"]
    assert policy["podSelector"]["matchExpressions"][0]["values"] == [
        "photo-fetcher",
        "vision-analyzer",
        "webhook-notifier",
    ]
    outside, pods, names = policy["egress"]
    assert "169.254.0.0/16" in outside["to"][0]["ipBlock"]["except"]
    # some networks match an ipBlock with no pod: neither Redis nor the cluster's DNS
    assert pods == {"to": [{"namespaceSelector": {}}]}
    # the node's own DNS cache
    assert names == {
        "to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }


def test_the_optional_services_of_compose_find_each_other() -> None:
    services = manifests.compose()["services"]
    assert {name for name, service in services.items() if service.get("profiles") == ["monitoring"]} == {
        "alertmanager",
        "grafana",
    }
    (prometheus,) = manifests.read(ROOT / "deploy" / "prometheus.yml")
    (target,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target == "alertmanager:9093"
    (provider,) = manifests.read(ROOT / "deploy" / "grafana" / "dashboards.yml")[0]["providers"]
    assert (
        f"./deploy/grafana-dashboard.json:{provider['options']['path']}/erni.json:ro"
        in (services["grafana"]["volumes"])
    )
