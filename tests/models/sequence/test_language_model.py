import pytest
import torch
from transformers import AutoModel, T5Config, T5Model

from recsys.models.sequence.language_model import LEAK, LanguageModelLayers, _leak, load_body


def layers_of(folder: str) -> LanguageModelLayers:
    torch.manual_seed(0)
    return LanguageModelLayers(16, load_body(folder, max_history=32)).eval()


@pytest.fixture(params=["gpt2", "llama"])
def decoder(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"tiny_{request.param}")


class TestWhatIsRefused:
    def test_a_bidirectional_encoder(self, tiny_backbone):
        with pytest.raises(ValueError, match=r"is no causal decoder.*Name a decoder"):
            load_body(tiny_backbone, max_history=8)

    def test_an_encoder_decoder(self, tmp_path):
        sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
        T5Model(T5Config(vocab_size=20, **sizes)).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="is no causal decoder"):
            load_body(str(tmp_path), max_history=8)

    def test_histories_longer_than_it_reads(self, decoder):
        assert load_body(decoder, max_history=32) is not None
        with pytest.raises(ValueError, match="reads 32 positions and histories have up to 33"):
            load_body(decoder, max_history=33)


def test_the_limit_lies_well_between_causal_and_not(tiny_backbone, decoder):
    assert _leak(AutoModel.from_pretrained(decoder)) < LEAK / 10
    assert _leak(AutoModel.from_pretrained(tiny_backbone)) > LEAK * 10


class TestLayers:
    def test_the_pretrained_body_is_between_the_projections(self, decoder):
        layers, body = layers_of(decoder), AutoModel.from_pretrained(decoder).eval()
        x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            states = body(inputs_embeds=layers.project_in(x)).last_hidden_state
            torch.testing.assert_close(layers(x, torch.zeros(2, 5)), layers.project_out(states))

    def test_nothing_is_left_of_the_tokens(self, decoder):
        assert not [n for n, p in layers_of(decoder).named_parameters() if 20 in p.shape]

    def test_the_body_gets_vectors_as_large_as_its_tokens(self, decoder):
        x = torch.randn(64, 8, 16, generator=torch.Generator().manual_seed(1))
        tokens = AutoModel.from_pretrained(decoder).get_input_embeddings().weight
        ratio = layers_of(decoder).project_in(x).std() / tokens.std()
        assert 0.7 < ratio.item() < 1.4

    def test_building_leaves_the_global_seed_alone(self, decoder):
        torch.manual_seed(5)
        load_body(decoder, max_history=8)
        after = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(torch.rand(1), after)
