"""The keys of Kubernetes that the manifests use, so that a misspelt one is found without a cluster.

A dict names what may stand in a mapping, a list holds what its items may be, and None is open:
names that the author gives, or a value. They are those of the KubeRay 1.7 and Kubernetes 1.33 APIs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.cluster.strict import KeyPath

METADATA = {"name": None, "labels": None, "annotations": None, "namespace": None}
SELECTOR = {"matchLabels": None}
QUANTITIES = {"requests": None, "limits": None}
SECURITY = {
    "runAsNonRoot": None,
    "runAsUser": None,
    "fsGroup": None,
    "seccompProfile": {"type": None},
    "allowPrivilegeEscalation": None,
    "readOnlyRootFilesystem": None,
    "capabilities": {"drop": None},
}
PROBE = {"tcpSocket": {"port": None}, "failureThreshold": None}
CONTAINER = {
    "name": None,
    "image": None,
    "command": None,
    "ports": [{"name": None, "containerPort": None}],
    "envFrom": [{"secretRef": {"name": None, "optional": None}}],
    "securityContext": SECURITY,
    "resources": QUANTITIES,
    "volumeMounts": [{"name": None, "mountPath": None, "readOnly": None}],
    "readinessProbe": PROBE,
    "livenessProbe": PROBE,
}
SECRET_ITEMS = [{"key": None, "path": None}]
POD = {
    "serviceAccountName": None,
    "automountServiceAccountToken": None,
    "restartPolicy": None,
    "terminationGracePeriodSeconds": None,
    "securityContext": SECURITY,
    "tolerations": [{"key": None, "operator": None, "effect": None}],
    "containers": [CONTAINER],
    "volumes": [
        {"name": None, "emptyDir": {}, "secret": {"secretName": None, "items": SECRET_ITEMS}}
    ],
}
TEMPLATE = {"metadata": METADATA, "spec": POD}
GROUP = {
    "groupName": None,
    "replicas": None,
    "minReplicas": None,
    "maxReplicas": None,
    "rayStartParams": {"num-cpus": None},
    "template": TEMPLATE,
}
RAY_CLUSTER = {
    "rayVersion": None,
    "authOptions": {"mode": None},
    "tlsOptions": {"enabled": None},
    "gcsFaultToleranceOptions": {
        "redisAddress": None,
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": None, "key": None}}},
    },
    "enableInTreeAutoscaling": None,
    "autoscalerOptions": {"version": None, "idleTimeoutSeconds": None, "resources": QUANTITIES},
    "headGroupSpec": GROUP,
    "workerGroupSpecs": [GROUP],
}
RAY_JOB = {
    "entrypoint": None,
    "clusterSelector": {"ray.io/cluster": None},
    "submissionMode": None,
    "runtimeEnvYAML": None,
    "shutdownAfterJobFinishes": None,
    "ttlSecondsAfterFinished": None,
    "activeDeadlineSeconds": None,
    "backoffLimit": None,
    "rayClusterSpec": RAY_CLUSTER,
}
PEER = {"podSelector": SELECTOR, "namespaceSelector": SELECTOR}
SPECS: dict[str, Any] = {
    "RayCluster": RAY_CLUSTER,
    "RayJob": RAY_JOB,
    "RayCronJob": {"schedule": None, "timeZone": None, "jobTemplate": RAY_JOB},
    "RayService": {
        "upgradeStrategy": {"type": None},
        "rayClusterDeletionDelaySeconds": None,
        "excludeHeadPodFromServeSvc": None,
        "serveConfigV2": None,
        "rayClusterConfig": RAY_CLUSTER,
    },
    "Service": {"clusterIP": None, "selector": None, "ports": [{"name": None, "port": None}]},
    "StatefulSet": {
        "serviceName": None,
        "replicas": None,
        "selector": SELECTOR,
        "template": TEMPLATE,
        "volumeClaimTemplates": [
            {"metadata": METADATA, "spec": {"accessModes": None, "resources": QUANTITIES}}
        ],
    },
    "NetworkPolicy": {
        "podSelector": SELECTOR,
        "policyTypes": None,
        "ingress": [{"from": [PEER], "ports": [{"protocol": None, "port": None}]}],
        "egress": None,
    },
    "PodDisruptionBudget": {"maxUnavailable": None, "selector": SELECTOR},
    "PodMonitor": {
        "selector": SELECTOR,
        "podMetricsEndpoints": [
            {
                "port": None,
                "interval": None,
                "relabelings": [{"sourceLabels": None, "targetLabel": None}],
            }
        ],
    },
    "PrometheusRule": {
        "groups": [
            {
                "name": None,
                "rules": [
                    {
                        "alert": None,
                        "expr": None,
                        "for": None,
                        "labels": {"severity": None},
                        "annotations": {"summary": None, "description": None, "runbook_url": None},
                    }
                ],
            }
        ]
    },
}
PATCH = {"op": None, "path": None, "value": None}
KUSTOMIZATION = {
    "apiVersion": None,
    "kind": None,
    "namespace": None,
    "resources": None,
    "patches": [{"target": {"kind": None, "name": None}, "patch": None}],
}


def unknown(document: dict) -> list[KeyPath]:
    """Paths of the keys that are not known where they stand."""
    kind = document.get("kind")
    if kind == "Kustomization":
        return list(_unknown(document, KUSTOMIZATION))
    known = {"apiVersion": None, "kind": None, "metadata": METADATA, "spec": SPECS.get(kind)}
    if kind == "ServiceAccount":
        del known["spec"]
    elif kind not in SPECS:
        return [("kind",)]
    return list(_unknown(document, known))


def _unknown(value: Any, known: Any, at: KeyPath = ()) -> Iterator[KeyPath]:
    if known is None:
        return
    if isinstance(known, list):
        for place, item in enumerate(value):
            yield from _unknown(item, known[0], (*at, place))
        return
    for key, item in value.items():
        if key in known:
            yield from _unknown(item, known[key], (*at, key))
        else:
            yield (*at, key)
