"""MovieLens 100K, 1M, 10M and 20M in their own formats."""

from __future__ import annotations

from tests.data.importers.sources import Imported, put

TOY = "1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/?Toy%20Story|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
CAFE = '2|Café "Noir"|01-Jan-1995||http://x|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n'


def pairs(done: Imported) -> list[tuple[str, str, int, float]]:
    rows = done.rows("interactions")
    return [(r["user_id"], r["item_id"], r["timestamp"], r["value"]) for r in rows]


def test_100k_names_genres_from_flags_and_reads_latin_1(tmp_path):
    put(tmp_path / "ml" / "u.data", "196\t242\t3\t881250949\n186\t302\tx\t891717742\n")
    put(tmp_path / "ml" / "u.item", TOY + CAFE + "3|too|few\n", "latin-1")
    put(tmp_path / "ml" / "u1.base", "this is not read")
    done = Imported("movielens", tmp_path / "ml")
    assert pairs(done) == [("196", "242", 881250949, 3.0)]
    assert done.rows("items") == [
        {
            "item_id": "1",
            "title": "Toy Story (1995)",
            "category": "Animation, Children's, Comedy",
        },
        {"item_id": "2", "title": 'Café "Noir"', "category": None},
    ]
    assert done.told() == [
        ("u.item", 3, "3 fields instead of 24"),
        ("u.data", 2, "rating is no number"),
    ]


def test_1m_in_latin_1_and_10m_in_utf_8_have_the_same_names(tmp_path):
    for encoding in ("latin-1", "utf-8"):
        folder = tmp_path / encoding
        put(folder / "ratings.dat", "1::1193::4.5::978300760\n")
        put(folder / "movies.dat", "73::Misérables, Les (1995)::Drama|Musical\n", encoding)
        done = Imported("movielens", folder)
        assert pairs(done) == [("1", "1193", 978300760, 4.5)]
        movie = done.rows("items")[0]
        assert movie["title"] == "Misérables, Les (1995)"
        assert movie["category"] == "Drama, Musical"


def test_20m_is_quoted_csv(tmp_path):
    put(tmp_path / "ml" / "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n")
    movies = (
        "movieId,title,genres\n"
        '11,"American President, The (1995)",Comedy|Drama\n'
        '12,"Say ""Hi""\n千と千尋 😀",(no genres listed)\n'
    )
    put(tmp_path / "ml" / "movies.csv", movies)
    done = Imported("movielens", tmp_path / "ml")
    assert pairs(done) == [("1", "2", 1112486027, 3.5)]
    assert [(r["title"], r["category"]) for r in done.rows("items")] == [
        ("American President, The (1995)", "Comedy, Drama"),
        ('Say "Hi"\n千と千尋 😀', None),
    ]
