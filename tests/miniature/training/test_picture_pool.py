from pathlib import Path

import numpy

from cns_lightning.miniature.training import picture_pool
from cns_lightning.miniature.world import sampling


def test_a_pool_is_what_its_records_render_and_a_second_call_draws_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(picture_pool, "SHARD", 6)
    picture_pool._render_shard(tmp_path, "base", 3, 0)
    picture_pool._render_shard(tmp_path, "base", 3, 1)
    pool = picture_pool.open_pool(tmp_path, 9)
    pictures = picture_pool.pool_pictures(9, "base", 3)
    assert len(pool.captions) == len(pictures) == len(pool.pixels) == 9
    for pixels, picture in zip(pool.pixels, pictures, strict=True):
        assert numpy.array_equal(pixels, numpy.asarray(sampling.render(picture)))

    before = (tmp_path / "0000.rgb").stat().st_mtime_ns
    picture_pool._render_shard(tmp_path, "base", 3, 0)
    assert (tmp_path / "0000.rgb").stat().st_mtime_ns == before


def test_the_plain_pool_shows_things_in_the_plain_scene_only() -> None:
    pictures = picture_pool.pool_pictures(200, "plain", 0)
    assert {picture.scene for picture in pictures} == {"plain"}
    assert all(picture.things for picture in pictures)
    assert "plain" not in {picture.scene for picture in picture_pool.pool_pictures(200, "base", 0)}
