"""Training goes on from the language model that another checkpoint has tuned."""

from pathlib import Path

import pytest
import torch

from recsys.artifact import ArtifactWriter
from recsys.config import ModelConfig
from recsys.data.tokenize import load_tokenizer
from recsys.models.backbone import TextEncoder, load_text_encoder, merge_lora, pad_tokens
from recsys.models.build import ModelShape, build_model, save_model, text_size
from recsys.pretrained import resolve_backbone

TEXTS = [[2, 6, 7, 8, 3], [2, 9, 3], [2, 10, 11, 12, 13, 14, 15, 3]]


def encode(encoder: TextEncoder) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(pad_tokens(TEXTS))


def publish_tuned(backbone: str, folder: Path) -> torch.Tensor:
    """A checkpoint after tuning, whitened; returns its text vectors before whitening."""
    told = ModelConfig(backbone=backbone, tuning="lora", lora_rank=2, embedding_size=16)
    shape = ModelShape(num_items=3, max_history=4, num_events=1, text_size=text_size(told))
    text = load_text_encoder(told)
    torch.manual_seed(1)
    for name, parameter in text.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    text.backbone = merge_lora(text.backbone)
    vectors = encode(text)
    text.set_whitening(torch.randn(shape.text_size), torch.randn(shape.text_size, shape.text_size))
    writer = ArtifactWriter(folder, "checkpoint")
    save_model(build_model(told, shape, text), writer, load_tokenizer(backbone))
    writer.publish({"model": told.model_dump(mode="json")}, {}, {"shape": shape.model_dump()})
    return vectors


# peft 0.21 still asks transformers 5 for a property under its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_checkpoints_backbone_is_one_to_train_from(tiny_backbone, tmp_path, prefix):
    tuned = publish_tuned(tiny_backbone, tmp_path / "checkpoint")
    told = ModelConfig(backbone=f"{prefix}{tmp_path}/checkpoint/backbone", tuning="frozen")
    assert text_size(told) == 16
    torch.testing.assert_close(encode(load_text_encoder(told)), tuned)
    plain = encode(load_text_encoder(ModelConfig(backbone=tiny_backbone)))
    assert (plain - tuned).abs().max() > 0.05
    words = "red hammer: large saw"
    assert load_tokenizer(told.backbone)(words) == load_tokenizer(tiny_backbone)(words)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestUri:
    def test_it_is_copied_once(self, tiny_backbone, tmp_path):
        publish_tuned(tiny_backbone, tmp_path / "checkpoint")
        uri = f"file://{tmp_path}/checkpoint/backbone"
        first = resolve_backbone(uri)
        assert (Path(first) / "config.json").is_file()
        assert resolve_backbone(f"{uri}/") == first

    def test_an_altered_file_is_refused_by_name(self, tiny_backbone, tmp_path):
        publish_tuned(tiny_backbone, tmp_path / "checkpoint")
        weights = tmp_path / "checkpoint" / "backbone" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        with pytest.raises(ValueError, match=r"'backbone/model\.safetensors' was altered"):
            resolve_backbone(f"file://{tmp_path}/checkpoint/backbone")

    def test_another_folder_is_refused(self, tiny_backbone, tmp_path):
        publish_tuned(tiny_backbone, tmp_path / "checkpoint")
        with pytest.raises(ValueError, match=r"has no file 'elsewhere/config\.json'"):
            resolve_backbone(f"file://{tmp_path}/checkpoint/elsewhere")

    def test_a_folder_of_no_checkpoint_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="no complete artifact"):
            resolve_backbone(f"file://{tmp_path}/backbone")
