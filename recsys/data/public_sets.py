"""Public data sets whose owners let them be fetched by a program.

Checksums are those the owners publish: the `.md5` beside each zip of GroupLens, and the sha256 in
the Git LFS pointers of the ESCI repository.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """One file: its address, and `md5:<hex>` or `sha256:<hex>`, or None where none is published."""

    url: str
    checksum: str | None

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublicSet:
    """A data set: where it is, on which terms, whom to cite, and which importer reads it."""

    name: str
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    format: str


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_GROUPLENS_LICENCE = (
    "MovieLens usage licence of GroupLens, University of Minnesota: research use with "
    "acknowledgement; no implied endorsement; no commercial use without their permission; {}. {}"
)
_NOT_PASSED_ON = "no redistribution without separate permission"
_PASSED_ON = "redistribution under the same conditions"
_GROUPLENS_CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, article 19. "
    "https://doi.org/10.1145/2827872"
)


def _movielens(size: str, checksum: str | None, readme: str, redistribution: str) -> PublicSet:
    return PublicSet(
        name=f"movielens-{size}",
        files=(RemoteFile(f"{_GROUPLENS}/ml-{size}.zip", checksum),),
        licence=_GROUPLENS_LICENCE.format(
            redistribution, f"{_GROUPLENS}/ml-{size}-README.{readme}"
        ),
        citation=_GROUPLENS_CITATION,
        format="movielens",
    )


_ESCI = "https://github.com/amazon-science/esci-data/raw/main/shopping_queries_dataset"
_ESCI_SET = PublicSet(
    "esci",
    (
        RemoteFile(
            f"{_ESCI}/shopping_queries_dataset_examples.parquet",
            "sha256:4a735b693b4a424a6fc67f5be6e4c811495c488bbf66d02a602d308b2744263a",
        ),
        RemoteFile(
            f"{_ESCI}/shopping_queries_dataset_products.parquet",
            "sha256:25124442d064d64b26f74082d6fa09438d679efc0c183cf28d19064a2b65a265",
        ),
    ),
    "Apache-2.0. https://github.com/amazon-science/esci-data",
    "Chandan K. Reddy et al. 2022. Shopping Queries Dataset: A Large-Scale ESCI Benchmark for "
    "Improving Product Search. arXiv 2206.06588",
    "esci",
)
_MOVIELENS = (
    _movielens("100k", "md5:0e33842e24a9c977be4e0107933c0723", "txt", _NOT_PASSED_ON),
    _movielens("1m", "md5:c4d9eecfca2ab87c1945afe126590906", "txt", _NOT_PASSED_ON),
    _movielens("10m", "md5:ce571fd55effeba0271552578f2648bd", "html", _NOT_PASSED_ON),
    _movielens("20m", "md5:cd245b17a1ae2cc31bb14903e1204af3", "html", _NOT_PASSED_ON),
    _movielens("25m", "md5:6b51fb2759a8657d3bfcbfc42b592ada", "html", _NOT_PASSED_ON),
    _movielens("32m", "md5:d472be332d4daa821edc399621853b57", "html", _PASSED_ON),
    _movielens("latest-small", None, "html", _PASSED_ON),
)
PUBLIC_SETS = {public_set.name: public_set for public_set in (*_MOVIELENS, _ESCI_SET)}
"""By name, what `python -m ray_jobs.download` offers."""
