"""What an index is given for search is what the searcher reads, also without a language model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recsys.artifact import Artifact, ArtifactWriter
from recsys.config import ModelConfig, SearchConfig
from recsys.data.tokenize import load_tokenizer
from recsys.engine.search import Searcher, SearchQuery
from recsys.index.build_search import add_search
from recsys.index.item_index import Ranking
from recsys.models.backbone import load_text_encoder, pad_tokens
from recsys.models.build import ModelShape, build_model, save_model

TITLES = ["red hammer", "blue nail", "green saw", "small drill", "large shoe", "red hat"]
IDS = [f"sku-{number}" for number in range(len(TITLES))]


def make_dataset(folder: Path) -> Artifact:
    writer = ArtifactWriter(folder / "dataset", "dataset")
    columns = {"item_id": IDS, "title": TITLES, "train_count": [1] * 6, "removed": [False] * 6}
    writer.add_table("items.parquet", pa.table(columns))
    return writer.publish({"prepare": {"text_fields": ["title", "brand"]}}, {})


def make_checkpoint(folder: Path, backbone: str, features: str) -> Artifact:
    config = ModelConfig(
        backbone=backbone, item_features=features, embedding_size=16, projection_size=16
    )
    text_size = 0 if features == "id" else 16
    shape = ModelShape(num_items=6, max_history=4, num_events=1, text_size=text_size)
    encoder = None if features == "id" else load_text_encoder(config)
    if encoder is not None:
        encoder.set_whitening(torch.randn(16), torch.randn(16, 16))
    writer = ArtifactWriter(folder / "checkpoint", "checkpoint")
    save_model(build_model(config, shape, encoder), writer, load_tokenizer(backbone))
    return writer.publish({"model": config.model_dump(mode="json")}, {})


def make_index(folder: Path, backbone: str, features: str, config: SearchConfig) -> Searcher:
    """What `build_index` writes, but for vectors of the item encoder."""
    dataset, checkpoint = make_dataset(folder), make_checkpoint(folder, backbone, features)
    text = None
    if features != "id":
        tokens = load_tokenizer(backbone)(TITLES)["input_ids"]
        encoder = load_text_encoder(ModelConfig(backbone=backbone)).eval()
        text = encoder.pooled(pad_tokens(tokens)).detach()
    writer = ArtifactWriter(folder / "index", "index")
    writer.add_table("items.parquet", dataset.read_table("items.parquet"))
    facts = add_search(writer, config, dataset, checkpoint, text, Ranking(6, None, None))
    index = writer.publish({"search": config.model_dump(mode="json")}, {}, {"search": facts})
    return Searcher.load(checkpoint, index, None)


@pytest.mark.parametrize("text", TITLES)
def test_each_item_is_found_by_its_title_first_by_words_and_by_meaning(
    tiny_backbone, tmp_path, text
):
    searcher = make_index(tmp_path, tiny_backbone, "text", SearchConfig())
    [answer] = searcher.search([SearchQuery(text)])
    best = answer.items[0]
    assert (best.title, best.lexical_rank, best.dense_rank) == (text, 1, 1)


def test_a_model_of_ids_is_searched_by_words_alone(tiny_backbone, tmp_path):
    searcher = make_index(tmp_path, tiny_backbone, "id", SearchConfig())
    assert not searcher.is_dense
    [answer] = searcher.search([SearchQuery("red")])
    assert {item.title for item in answer.items} == {"red hammer", "red hat"}


def test_what_queries_teach_is_written_and_read(tiny_backbone, tmp_path):
    # What is asked for is called something else, so words tell nothing.
    texts = [f"{said} {number}" for said in ("red hammer", "blue nail") for number in range(40)]
    path = tmp_path / "queries.parquet"
    pq.write_table(pa.table({"query": texts, "item_id": np.repeat(IDS[4:], 40).tolist()}), path)
    plain, learned = (
        make_index(tmp_path / str(n), tiny_backbone, "text", SearchConfig(queries=uri, epochs=1))
        for n, uri in enumerate(["", str(path)])
    )
    assert plain.fusion.dense_weight == 0.5
    assert learned.fusion.dense_weight > 0.5


def test_an_index_without_search_says_how_to_get_it(tiny_backbone, tmp_path):
    checkpoint = make_checkpoint(tmp_path, tiny_backbone, "id")
    writer = ArtifactWriter(tmp_path / "index", "index")
    writer.add_table("items.parquet", make_dataset(tmp_path).read_table("items.parquet"))
    with pytest.raises(ValueError, match="set search.enabled and build the index again"):
        Searcher.load(checkpoint, writer.publish({}, {}), None)
