"""A checkpoint as a folder in Hugging Face's layout, with a model card: for whoever has no recsys.

The text backbone lies at the top, where `transformers.AutoModel.from_pretrained` looks for it; the
recommender's own weights are in `recommender/`. All weights are safetensors, and no code is in it.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from recsys.artifact import Artifact
from recsys.config import ModelConfig
from recsys.models.build import BACKBONE, ITEMS, LOG, SCORE, USER_BACKBONE, WEIGHTS
from recsys.pretrained import resolve_backbone
from recsys.storage import list_files, write_bytes
from recsys.training.guarantee import PRIVACY, Guarantee

CARD = "README.md"
RECOMMENDER = "recommender"
SAFE = (".safetensors", ".json", ".txt", ".model", ".md", ".jinja")
"""What the files of a language model may be; `.bin` and `.py` run code when they are loaded."""
UNKNOWN = "unknown: see the base model"


def export(checkpoint: Artifact, output: str) -> list[str]:
    """Write a checkpoint's models, tokenizer and model card to an empty folder or URI.

    Returns the names of the files, the card last.

    Raises:
        ValueError: `output` holds files, the checkpoint's language model brings code or pickles,
            or a file of the checkpoint is damaged.
    """
    output = output.rstrip("/")
    if list_files(output):
        raise ValueError(f"{output} holds files: choose another output, or empty it")
    files = _files(checkpoint)
    _check_safe(checkpoint, files)
    for target, name in files.items():
        write_bytes(f"{output}/{target}", checkpoint.read_bytes(name))
    told = {"config": checkpoint.manifest.config, "shape": checkpoint.manifest.facts["shape"]}
    write_bytes(f"{output}/{RECOMMENDER}/config.json", json.dumps(told, indent=2).encode())
    write_bytes(f"{output}/{CARD}", model_card(checkpoint).encode())
    return [*files, f"{RECOMMENDER}/config.json", CARD]


def _files(checkpoint: Artifact) -> dict[str, str]:
    """The checkpoint's file of each exported file."""
    files = {name.removeprefix(f"{BACKBONE}/"): name for name in checkpoint.names(f"{BACKBONE}/")}
    own = [WEIGHTS, ITEMS, *checkpoint.names(f"{USER_BACKBONE}/")]
    if promise_of(checkpoint) is None:
        own.append(LOG)
    return files | {f"{RECOMMENDER}/{name}": name for name in own}


def _check_safe(checkpoint: Artifact, files: dict[str, str]) -> None:
    unsafe = [n for n in files if not n.startswith(f"{RECOMMENDER}/") and not n.endswith(SAFE)]
    configs = [name for name in files.values() if name.endswith("/config.json")]
    unsafe += [name for name in configs if "auto_map" in checkpoint.read_json(name)]
    if unsafe:
        raise ValueError(
            f"{checkpoint.uri}: {', '.join(unsafe)} would run code where it is loaded; only models "
            f"of transformers itself, in {', '.join(SAFE)}, are exported"
        )


def model_card(checkpoint: Artifact) -> str:
    """The model card in Markdown, with the front matter that model hubs read."""
    config = ModelConfig.model_validate(checkpoint.manifest.config["model"])
    has_text = bool(checkpoint.names(f"{BACKBONE}/"))
    license_name = find_license(config.backbone) if has_text else None
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["recommendation"]}
    if license_name:
        front["license"] = license_name
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        "# Sequential recommender\n",
        _what(config, has_text),
        _made_from(checkpoint, config, has_text, license_name),
        _told_of_users(checkpoint) or _metrics(checkpoint),
        LIMITS,
    ]
    return "\n".join(parts)


LIMITS = """## Limits

- It knows the shop it was trained on: an item it never saw is known by its text alone, and not at
  all in a model of IDs.
- It answers what people of that shop did next, with the shop's own favourites and gaps. Nothing
  here says that a recommendation is fair, safe or wanted.
- Metrics come from held-out events of one dataset, not from an experiment with people.
- The backbone alone gives text vectors. A recommendation needs the weights in `recommender/`, and
  the code of recsys.
"""


def _what(config: ModelConfig, has_text: bool) -> str:
    rows = [
        f"- item features: {config.item_features}, user encoder: {config.user_encoder}",
        f"- vectors of {config.embedding_size} numbers",
    ]
    if has_text:
        rows += [
            f"- text vectors: {config.pooling} pooling of the last hidden state; whitened: "
            f"{'yes' if config.whiten else 'no'} (`text_encoder.whitening` and "
            f"`text_encoder.whitening_mean` in `{RECOMMENDER}/{WEIGHTS}`)",
            "\n```python\nfrom transformers import AutoModel, AutoTokenizer\n\n"
            'model = AutoModel.from_pretrained("path of this folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path of this folder")\n```',
        ]
    else:
        rows.append("- a model of IDs: there is no language model in it")
    return "\n".join(rows) + "\n"


def _made_from(
    checkpoint: Artifact, config: ModelConfig, has_text: bool, license_name: str | None
) -> str:
    rows = [] if promise_of(checkpoint) else _digests(checkpoint)
    rows += [
        f"| items | {checkpoint.manifest.facts['shape']['num_items']} |",
        f"| recsys | {checkpoint.manifest.code_version} |",
    ]
    if has_text:
        # A path says nothing to others, and may name people.
        base = Path(config.backbone).name if "://" not in config.backbone else "a tuned checkpoint"
        rows.append(f"| base model | {base} |")
        rows.append(f"| licence of the base model | {license_name or UNKNOWN} |")
    return "## Made from\n\n| | |\n|---|---|\n" + "\n".join(rows) + "\n"


def _digests(checkpoint: Artifact) -> list[str]:
    """Not of a private model: who guesses all of the data would see whether the guess is right."""
    return [
        f"| dataset (sha256) | {checkpoint.manifest.parents.get('dataset', 'unknown')} |",
        f"| checkpoint (sha256) | {checkpoint.digest} |",
    ]


def promise_of(checkpoint: Artifact) -> Guarantee | None:
    """What a checkpoint promises to the users it was trained on; None where it is nothing."""
    told = checkpoint.manifest.facts.get(PRIVACY)
    return None if told is None else Guarantee.model_validate(told)


def _told_of_users(checkpoint: Artifact) -> str | None:
    """The card's section on privacy, in place of metrics: those are of users, without noise."""
    promise = promise_of(checkpoint)
    return None if promise is None else PROMISE.format(**promise.model_dump())


PROMISE = """## Privacy

The weights are ({epsilon:.2f}, {delta:g})-differentially private with respect to one {unit}: all
of a {unit}'s training events, there or not. An upper bound by Opacus' accountant of Renyi
differential privacy.

| | |
|---|---|
| users, taken as public | {users} |
| probability of a user to be in a step | {sample_rate:.4g} |
| steps | {steps} |
| noise multiplier | {noise_multiplier:g} |
| norm that a user's gradient is clipped to | {max_user_norm:g} |

It does not cover: which items there are and their texts, the choice of settings by earlier runs on
the same users, and what else is made of their events, such as an index with its popular items and
transitions. Metrics, the training log and digests are not in this folder: no noise is in them.
"""


def _metrics(checkpoint: Artifact) -> str:
    epochs = [row for row in checkpoint.read_json(LOG) if SCORE in row]
    if not epochs:
        return "## Validation\n\nThe dataset has no validation rows.\n"
    best = max(epochs, key=lambda row: -math.inf if math.isnan(row[SCORE]) else row[SCORE])
    rows = [f"| {name} | {value:.4f} |" for name, value in best.items() if "valid" in name]
    head = f"## Validation\n\nThe best epoch, step {best['step']}:\n\n| metric | value |\n|---|---|"
    return "\n".join([head, *rows]) + "\n"


def find_license(backbone: str) -> str | None:
    """The licence that a language model's own folder tells: in its card, else by a licence file.

    None where it tells none, or where the folder is not on this machine.
    """
    try:
        folder = Path(resolve_backbone(backbone))
    except ValueError:
        return None
    card = folder / CARD
    if card.is_file() and (found := _front_matter(card.read_text(encoding="utf-8"))):
        name = found.get("license")
        return name if isinstance(name, str) else None
    return "other" if any(folder.glob("LICENSE*")) else None


def _front_matter(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        told = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return told if isinstance(told, dict) else {}
