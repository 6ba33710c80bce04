"""What is in `deploy/` fits the code: commands, variables, ports, probes, users and times.

No image is built and no cluster is asked here: neither is to be had in a test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tillgate.http import server
from tillgate.runtime import DRAIN_S
from tillgate.settings import Settings, load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMMANDS = {"up", "worker", "migrate"}
DRAINED_S = server.DRAIN_S + DRAIN_S
KNOWN = {f"TILLGATE_{name.upper()}{ending}" for name in Settings.model_fields for ending in ("", "_FILE")} | {
    "FORWARDED_ALLOW_IPS"
}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def manifests() -> list[dict[str, Any]]:
    found = []
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        found += [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] != "Kustomization"]
    return found


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] == kind}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_every_variable_is_one_of_ours(compose: dict[str, Any]) -> None:
    said: set[str] = set()
    for service in compose["services"].values():
        if "tillgate" in service["image"]:
            said |= set(service["environment"])
    said |= set(of_kind("ConfigMap")["tillgate"]["data"])
    for text in [(DEPLOY / "Dockerfile").read_text(), *(one.read_text() for one in UNITS)]:
        said |= set(re.findall(r"\b(TILLGATE_[A-Z_]+)=", text))
    assert said - KNOWN == set()


def test_the_image() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    build, final = re.split(r"^FROM .*$", text, flags=re.MULTILINE)[1:]
    assert (
        build.count("--require-hashes --only-binary=:all:") == build.count("pip install") - 1
    )  # our own wheel
    for name in re.findall(r"requirements/([\w$]+)\.txt", build):
        assert (ROOT / "requirements" / f"{name.replace('$EXTRA', 'otel')}.txt").exists(), name
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert "COPY . " not in text
    given = dict(re.findall(r"(TILLGATE_[A-Z_]+)=(\S+)", final))
    # A variable would win over compose's and Kubernetes' file of the same name.
    assert not {"TILLGATE_DATABASE_URL", "TILLGATE_SECRET_KEY"} & given.keys()
    settings = load({name.removeprefix("TILLGATE_").lower(): value for name, value in given.items()})
    assert settings.ops_address() == ("0.0.0.0", 9464)
    assert f"EXPOSE {settings.port} 9464" in final
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", build, re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists(), path
            assert any(one.startswith(f"!{path.rstrip('/')}") for one in ignored), path


def test_compose(compose: dict[str, Any]) -> None:
    services = compose["services"]
    ours = {name: one for name, one in services.items() if "tillgate" in one["image"]}
    assert {name: one["command"] for name, one in ours.items()} == {
        "api-1": ["up"], "api-2": ["up"], "worker": ["worker"], "migrate": ["migrate"],
    }  # fmt: skip
    for name, one in ours.items():
        assert one["read_only"]
        assert one["cap_drop"] == ["ALL"]
        assert int(one["stop_grace_period"].removesuffix("s")) > DRAINED_S
        assert "ports" not in one
        assert one["environment"]["TILLGATE_WORKER"] == "false"
        waits = one["depends_on"]
        if name != "migrate":
            assert waits == {"migrate": {"condition": "service_completed_successfully"}}
        for secret in one["secrets"]:
            assert f"/run/secrets/{secret}" in one["environment"].values()
    assert services["postgres"]["networks"] == ["inside"]
    assert compose["networks"]["inside"] == {"internal": True}
    assert set(services["proxy"]["depends_on"]) == {"api-1", "api-2"}
    proxy = (DEPLOY / "Caddyfile").read_text()
    assert "reverse_proxy api-1:8080 api-2:8080" in proxy
    assert "health_uri /readyz" in proxy
    assert "lb_retries" not in proxy  # a request that was sent is not sent again
    for one in services.values():
        assert set(one.get("secrets", ())) <= compose["secrets"].keys()
        for volume in one.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_secrets_are_made_once(tmp_path: Path, compose: dict[str, Any]) -> None:
    def made() -> dict[str, str]:
        subprocess.run([DEPLOY / "secrets.sh", tmp_path / "s"], check=True, capture_output=True)
        return {one.name: one.read_text() for one in (tmp_path / "s").iterdir()}

    first = made()
    assert made() == first
    assert {Path(one["file"]).name for one in compose["secrets"].values()} == first.keys()
    settings = load({"secret_key": first["secret_key"], "database_url": first["database_url"]})
    assert settings.secret_keys() == (first["secret_key"],)  # strong enough
    assert first["postgres_password"] in first["database_url"]
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert "secrets/" in (DEPLOY / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("unit", UNITS, ids=lambda one: one.stem)
def test_systemd(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    [command] = re.findall(r"^ExecStart=/opt/tillgate/bin/tillgate (\w+)$", text, re.MULTILINE)
    assert command in COMMANDS
    [stop_s] = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(stop_s) > DRAINED_S
    for line in ("DynamicUser=yes", "NoNewPrivileges=yes", "KillSignal=SIGTERM", "ProtectSystem=strict"):
        assert line in text.splitlines()
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze here")
    here = tmp_path / unit.name
    here.write_text(text.replace("/opt/tillgate/bin/tillgate", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)
    if "Failed to initialize manager" in checked.stderr:
        pytest.skip("systemd-analyze does not work here")
    ours = [line for line in checked.stderr.splitlines() if unit.name in line]
    assert (checked.returncode, ours) == (0, [])


def test_kubernetes() -> None:
    deployments, jobs = of_kind("Deployment"), of_kind("Job")
    for one in [*deployments.values(), *jobs.values()]:
        pod = one["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert container["args"][0] in COMMANDS
        assert container["image"] == "tillgate"
        # A Service called tillgate would otherwise set TILLGATE_PORT to tcp://….
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {volume["name"] for volume in pod["volumes"]}
        assert {one["name"] for one in container["volumeMounts"]} == mounted
        assert "memory" in container["resources"]["limits"]
    for one in deployments.values():
        pod, labels = one["spec"]["template"]["spec"], one["spec"]["template"]["metadata"]["labels"]
        [container] = pod["containers"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "ops"}
        assert {port["name"]: port["containerPort"] for port in container["ports"]}["ops"] == 9464
        waits_s = 0
        if "lifecycle" in container:
            waits_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        drains_s = DRAINED_S if container["args"] == ["up"] else DRAIN_S
        assert pod["terminationGracePeriodSeconds"] > drains_s + waits_s
    api = deployments["tillgate-api"]["spec"]
    assert api["replicas"] >= 2
    assert api["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    [container] = api["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "ops"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["http"] == Settings.model_fields["port"].default
    service = of_kind("Service")["tillgate"]["spec"]
    assert service["selector"].items() <= api["template"]["metadata"]["labels"].items()
    assert [port["targetPort"] for port in service["ports"]] == ["http"]
    secret = {
        Path(value).name
        for name, value in of_kind("ConfigMap")["tillgate"]["data"].items()
        if "_FILE" in name
    }
    assert secret == {"secret_key", "database_url"}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl here")
def test_kustomize() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes"],
        capture_output=True, text=True, check=False, env={**os.environ, "KUBECONFIG": os.devnull},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    assert len(found) == len(manifests())
    assert all(one["metadata"].get("namespace", one["metadata"]["name"]) == "tillgate" for one in found)
    images = {
        container["image"]
        for one in found
        if "template" in one.get("spec", {})
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert len(images) == 1
    assert "tillgate" not in images  # the name in the registry is put in
