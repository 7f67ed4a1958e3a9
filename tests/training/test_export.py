"""Export: what others load gives the same vectors, and the card says what it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from ray_jobs.export import Arguments, run
from recsys.artifact import Artifact, ArtifactWriter, open_artifact
from recsys.config import ModelConfig
from recsys.data.tokenize import load_tokenizer
from recsys.models.backbone import load_text_encoder, pad_tokens, pool
from recsys.models.build import ITEMS, LOG, ModelShape, build_model, load_model, save_model
from recsys.training.export import CARD, UNKNOWN, export, find_license, model_card
from recsys.training.guarantee import PRIVACY, Guarantee

STEPS = [
    {"step": 10, "epoch": 0, "loss": 2.5},
    {"step": 20, "epoch": 0, "valid_loss": 2.0, "valid_ndcg@10": 0.25},
    {"step": 40, "epoch": 1, "valid_loss": 1.5, "valid_ndcg@10": 0.125},
]


def write_checkpoint(
    place: Path,
    model: ModelConfig,
    steps: list = STEPS,
    code: str = "",
    promise: Guarantee | None = None,
) -> Artifact:
    """A checkpoint of an untrained model, made without Ray; `code` is a file beside its weights."""
    has_text = model.item_features != "id"
    shape = ModelShape(num_items=4, max_history=8, num_events=6, text_size=16 * has_text)
    writer = ArtifactWriter(place, "checkpoint")
    torch.manual_seed(0)
    text = load_text_encoder(model) if has_text else None
    save_model(build_model(model, shape, text), writer, load_tokenizer(model.backbone))
    if code:
        writer.add_bytes(f"backbone/{code}", b"")
    writer.add_table(ITEMS, pa.table({"item_id": ["a", "b", "c", "d"]}))
    writer.add_json(LOG, steps)
    config = {"model": model.model_dump(mode="json")}
    facts = {"shape": shape.model_dump()}
    if promise is not None:
        facts[PRIVACY] = promise.model_dump()
    return writer.publish(config, {"dataset": "d1ge57"}, facts)


@pytest.fixture
def small(tiny_backbone: str) -> ModelConfig:
    return ModelConfig(backbone=tiny_backbone, embedding_size=16, projection_size=16, num_layers=1)


def test_transformers_alone_gives_the_vectors_of_the_recommender(tmp_path, small):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small)
    output = tmp_path / "export"
    run(Arguments(checkpoint=checkpoint.uri, output=str(output)))
    model = AutoModel.from_pretrained(output).eval()
    tokenizer = AutoTokenizer.from_pretrained(output)
    texts = ["title : red hammer", "blue nail"]
    tokens = pad_tokens(tokenizer(texts)["input_ids"])
    with torch.no_grad():
        hidden = model(input_ids=tokens.ids, attention_mask=tokens.mask).last_hidden_state
    encoder = load_model(checkpoint)[0].text_encoder
    assert encoder is not None
    torch.testing.assert_close(pool(hidden, tokens.mask, small.pooling), encoder.pooled(tokens))
    own = load_file(output / "recommender" / "model.safetensors")
    whitened = (encoder.pooled(tokens) - own["text_encoder.whitening_mean"]) @ own[
        "text_encoder.whitening"
    ]
    torch.testing.assert_close(whitened, encoder(tokens))


def test_nothing_that_runs_code_is_exported(tmp_path, small):
    output = tmp_path / "export"
    export(write_checkpoint(tmp_path / "checkpoint", small), str(output))
    kinds = {path.suffix for path in output.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json", ".parquet", ".md"}
    assert "auto_map" not in json.loads((output / "config.json").read_text())


@pytest.mark.parametrize("code", ["modeling.py", "pytorch_model.bin"])
def test_a_language_model_that_brings_code_is_refused(tmp_path, small, code):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small, code=code)
    with pytest.raises(ValueError, match=f"{code} would run code"):
        export(checkpoint, str(tmp_path / "export"))
    assert not (tmp_path / "export").exists()


def test_a_folder_with_files_is_not_written_over(tmp_path, small):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="holds files"):
        export(write_checkpoint(tmp_path / "checkpoint", small), str(tmp_path / "export"))
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["mine.txt"]


def test_a_damaged_checkpoint_is_not_exported(tmp_path, small):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small)
    path = tmp_path / "checkpoint" / "backbone" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="was altered"):
        run(Arguments(checkpoint=checkpoint.uri, output=str(tmp_path / "export")))


def test_the_card_tells_data_metrics_limits_and_that_the_licence_is_unknown(tmp_path, small):
    card = model_card(write_checkpoint(tmp_path / "checkpoint", small))
    assert "| dataset (sha256) | d1ge57 |" in card
    assert "step 20" in card
    assert "| valid_ndcg@10 | 0.2500 |" in card
    assert "## Limits" in card
    assert f"| licence of the base model | {UNKNOWN} |" in card
    assert "\nlicense:" not in card
    assert str(Path(small.backbone).parent) not in card


def test_a_model_of_ids_says_that_it_has_no_language_model(tmp_path, small):
    ids = small.model_copy(update={"item_features": "id"})
    output = tmp_path / "export"
    export(write_checkpoint(tmp_path / "checkpoint", ids, steps=[]), str(output))
    card = (output / CARD).read_text()
    assert "no language model" in card
    assert "no validation rows" in card
    assert not (output / "model.safetensors").exists()
    assert open_artifact(tmp_path / "checkpoint", "checkpoint")


def test_of_a_private_model_nothing_is_exported_that_epsilon_does_not_cover(tmp_path, small):
    promise = Guarantee(
        epsilon=7.891,
        delta=1e-6,
        users=2_000,
        sample_rate=0.032,
        steps=640,
        noise_multiplier=0.9,
        max_user_norm=0.5,
    )
    text = small.model_copy(update={"item_features": "text"})
    checkpoint = write_checkpoint(tmp_path / "checkpoint", text, promise=promise)
    files = export(checkpoint, str(tmp_path / "export"))
    assert not any(name.endswith(LOG) for name in files)
    card = (tmp_path / "export" / CARD).read_text()
    assert "(7.89, 1e-06)-differentially private with respect to one user" in card
    assert "| steps | 640 |" in card
    assert not any(told in card for told in ("valid_ndcg", "d1ge57", checkpoint.digest))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({CARD: "---\nlicense: apache-2.0\nlanguage: zh\n---\n# 模型\n"}, "apache-2.0"),
        ({"LICENSE.txt": "MIT License"}, "other"),
        ({CARD: "---\nlicense: [\n---\n"}, None),
        ({CARD: "# no front matter"}, None),
        ({}, None),
    ],
)
def test_the_licence_is_what_the_base_models_folder_tells(tmp_path, files, told):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert find_license(str(tmp_path)) == told


def test_the_licence_of_a_model_that_is_elsewhere_is_unknown():
    assert find_license("package:no_such_package/model") is None
