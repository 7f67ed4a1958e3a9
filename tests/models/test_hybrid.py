import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from recsys.config import ModelConfig
from recsys.data.collate import collate_histories
from recsys.models.build import ModelShape, build_model
from recsys.models.item_encoder import (
    MAX_ID_SHARE,
    UNSEEN,
    HybridItemEncoder,
    IdItemEncoder,
    ItemInputs,
)
from recsys.models.losses import softmax_loss, split_loss
from recsys.models.recommender_model import RecommenderModel
from recsys.models.user_encoder import weigh_halves
from recsys.schema import History

COUNTS = torch.tensor([0, 1, 3, 10_000, 0, 7])
NUM_ITEMS, TEXT_SIZE, HALF = len(COUNTS), 12, 8
SHAPE = ModelShape(num_items=NUM_ITEMS, max_history=5, num_events=1, text_size=TEXT_SIZE)
HISTORIES = [History.of_items([0, 1, 2]), History.of_items([3]), History.of_items([4, 4, 0])]


def make_model(seed: int = 0, **changes) -> RecommenderModel:
    """A hybrid model with tables as after some training; the text vectors come with the items."""
    torch.manual_seed(seed)
    told = ModelConfig(embedding_size=2 * HALF, projection_size=16, num_layers=1, dropout=0.0)
    model = build_model(told.model_copy(update=changes), SHAPE).eval()
    assert isinstance(model.item_encoder, HybridItemEncoder)
    model.item_encoder.train_counts.copy_(COUNTS)
    return model


def item_inputs(seed: int = 0) -> ItemInputs:
    text = torch.randn(NUM_ITEMS, TEXT_SIZE, generator=torch.Generator().manual_seed(seed))
    return ItemInputs(torch.arange(NUM_ITEMS), text=text)


@torch.no_grad()
def item_vectors(model: RecommenderModel) -> torch.Tensor:
    return model.encode_items(item_inputs())


@torch.no_grad()
def user_vectors(model: RecommenderModel, items: torch.Tensor) -> torch.Tensor:
    batch = collate_histories(HISTORIES, 5)
    return model.encode_users(items[batch.item_indexes], batch)


class TestItemVectors:
    def test_the_ids_share_by_hand(self):
        ids = item_vectors(make_model())[:, HALF:]
        expected = MAX_ID_SHARE * torch.tensor([0, 1 / 2, 3 / 4, 10_000 / 10_001, 0, 7 / 8])
        torch.testing.assert_close(ids.square().sum(-1), expected)

    def test_the_text_has_the_rest_and_its_direction(self):
        model = make_model()
        vectors = item_vectors(model)
        text = model.item_encoder.text(item_inputs())
        torch.testing.assert_close(normalize(vectors[:, :HALF], dim=-1), text)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(NUM_ITEMS))

    def test_an_item_without_training_events_has_its_text_alone(self):
        model = make_model()
        before = item_vectors(model)
        torch.nn.init.normal_(model.item_encoder.ids.table.weight)
        after = item_vectors(model)
        cold = COUNTS == 0
        assert torch.equal(after[cold], before[cold])
        assert not torch.isclose(after[~cold], before[~cold]).all(-1).any()

    def test_an_item_unknown_to_training_is_like_one_without_events(self):
        model = make_model()
        known = item_inputs()
        unseen = ItemInputs(torch.full((NUM_ITEMS,), UNSEEN), text=known.text)
        with torch.no_grad():
            vectors = model.encode_items(unseen)
        torch.testing.assert_close(vectors[:, :HALF], model.item_encoder.text(known))
        assert (vectors[:, HALF:] == 0).all()
        assert torch.equal(vectors[0], item_vectors(model)[0])

    def test_two_articles_with_the_same_words_are_told_apart_by_their_ids(self):
        model = make_model()
        words = item_inputs().text[:1].expand(NUM_ITEMS, -1)
        with torch.no_grad():
            vectors = model.encode_items(ItemInputs(torch.arange(NUM_ITEMS), text=words))
        assert torch.pdist(vectors[1:4]).min() > 0.1

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1_000))
    def test_every_item_is_nearest_to_itself(self, seed):
        vectors = item_vectors(make_model(seed))
        assert (vectors @ vectors.T).argmax(-1).tolist() == list(range(NUM_ITEMS))

    def test_counts_survive_half_precision(self):
        model = make_model()
        model.item_encoder.train_counts.fill_(16_777_215)
        model.bfloat16()
        assert model.item_encoder.train_counts.tolist() == [16_777_215] * NUM_ITEMS


class TestIdRows:
    def test_a_smaller_table_is_shared_and_bounded(self):
        encoder = make_model(id_rows=2).item_encoder
        assert encoder.ids.table.num_embeddings == 2
        vectors = encoder.ids(item_inputs())
        assert torch.equal(vectors[0], vectors[2])
        assert not torch.allclose(vectors[0], vectors[1])

    def test_no_more_rows_than_items(self):
        assert make_model(id_rows=1_000).item_encoder.ids.table.num_embeddings == NUM_ITEMS

    def test_an_unseen_item_has_no_id_vector(self):
        vectors = IdItemEncoder(3, 4)(ItemInputs(torch.tensor([UNSEEN, 0])))
        assert vectors[0].tolist() == [0, 0, 0, 0]
        assert vectors[1].norm().item() == pytest.approx(1.0)


class TestUserVectors:
    def test_length_one_with_the_share_that_was_set(self):
        model = make_model()
        for share in (0.02, 0.5, 0.9):
            model.user_encoder.id_share.fill_(share)
            users = user_vectors(model, item_vectors(model))
            torch.testing.assert_close(users.norm(dim=-1), torch.ones(3))
            torch.testing.assert_close(users[:, HALF:].square().sum(-1), torch.full((3,), share))

    def test_neither_half_sees_the_other(self):
        model = make_model()
        items = item_vectors(model)
        users = user_vectors(model, items)
        other_ids, other_text = items.clone(), items.clone()
        other_ids[:, HALF:] = item_vectors(make_model(seed=1))[:, HALF:]
        other_text[:, :HALF] = item_vectors(make_model(seed=1))[:, :HALF]
        with_ids, with_text = user_vectors(model, other_ids), user_vectors(model, other_text)
        assert torch.equal(with_ids[:, :HALF], users[:, :HALF])
        assert torch.equal(with_text[:, HALF:], users[:, HALF:])
        assert not torch.allclose(with_text[:, :HALF], users[:, :HALF], atol=0.05)
        assert not torch.allclose(with_ids[0, HALF:], users[0, HALF:], atol=0.05)

    def test_the_score_is_a_weighted_sum_of_two_cosines(self):
        model = make_model()
        model.user_encoder.id_share.fill_(0.2)
        items = item_vectors(model)
        users = user_vectors(model, items)
        cosines = [
            normalize(users[:, half], dim=-1) @ normalize(items[:, half], dim=-1).T
            for half in (slice(HALF), slice(HALF, None))
        ]
        share = MAX_ID_SHARE * COUNTS / (COUNTS + 1)
        expected = (0.8 * (1 - share)).sqrt() * cosines[0] + (0.2 * share).sqrt() * cosines[1]
        torch.testing.assert_close(users @ items.T, expected)

    def test_weighing_again_changes_nothing_but_the_share(self):
        vectors = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        once = weigh_halves(vectors, 0.3)
        torch.testing.assert_close(weigh_halves(weigh_halves(vectors, 0.9), 0.3), once)
        torch.testing.assert_close(normalize(vectors[:, :3]) * 0.7**0.5, once[:, :3])


def random_vectors(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, 2 * HALF, generator=generator), dim=-1)


class TestSplitLoss:
    TARGETS = torch.tensor([0, 4, 2])

    def test_one_part_is_the_plain_loss(self):
        users, items = random_vectors(3, seed=0), random_vectors(5, seed=1)
        plain = softmax_loss(users, items, self.TARGETS, 0.07)
        torch.testing.assert_close(
            split_loss(users, items, self.TARGETS, 0.07, None, None, 1), plain
        )

    def test_two_parts_are_each_as_alone(self):
        text, ids = ([random_vectors(3, seed=s), random_vectors(5, seed=s + 1)] for s in (0, 2))
        log_q = -torch.arange(5.0)
        alone = [softmax_loss(u, i, self.TARGETS, 0.1, log_q) for u, i in (text, ids)]
        users = torch.cat([0.9 * text[0], 0.1 * ids[0]], dim=-1)
        items = torch.cat([0.3 * text[1], 0.7 * ids[1]], dim=-1)
        joint = split_loss(users, items, self.TARGETS, 0.1, log_q, None, 2)
        torch.testing.assert_close(joint, sum(alone))

    def test_an_item_without_an_id_has_a_finite_gradient(self):
        model = make_model().train()
        batch = collate_histories(HISTORIES, 5)
        batch.targets[:, 0] = torch.tensor([0, 1, 4])
        users, items, targets = model(batch, item_inputs())
        split_loss(users, items, targets, 0.07, None, None, 2).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
        table = grads["item_encoder.ids.table.weight"].abs().sum(-1)
        assert ((table > 0) == (COUNTS > 0)).all()
