"""How images are cut into tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaetools.codec.tiles import MAX_TILE_PIXELS, Rect, TileGrid, tile_sides

sides = st.integers(1, 70)
grids = st.builds(TileGrid, sides, sides, st.integers(1, 80), st.integers(1, 80))
strides = st.sampled_from((8, 16, 64))


@st.composite
def rects(draw: st.DrawFn, height: int = 50, width: int = 50) -> Rect:
    """With at least one pixel."""
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Rect(top, left, draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width)))


def covered(rect: Rect, height: int = 50, width: int = 50) -> np.ndarray:
    """Boolean (height, width): the pixels that are in it."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    return (rows >= rect.top) & (rows < rect.bottom) & (columns >= rect.left) & (columns < rect.right)


# Grids.


@given(grid=grids)
def test_tiles_cover_each_pixel_once(grid: TileGrid) -> None:
    times = np.zeros((grid.height, grid.width), int)
    for number in range(len(grid)):
        times[grid[number].slices] += 1
    assert (times == 1).all()


@given(grid=grids)
def test_no_tile_is_empty_or_larger_than_the_grid_says(grid: TileGrid) -> None:
    for number in range(len(grid)):
        assert 0 < grid[number].width <= grid.tile_width
        assert 0 < grid[number].height <= grid.tile_height


@given(grid=grids)
def test_tiles_are_counted_row_by_row(grid: TileGrid) -> None:
    corners = [(grid[number].top, grid[number].left) for number in range(len(grid))]
    assert corners == sorted(corners)
    assert len(grid) == grid.rows * grid.columns


@given(grid=grids, data=st.data())
def test_tiles_touching_a_region_are_those_with_a_pixel_in_it(grid: TileGrid, data: st.DataObject) -> None:
    region = data.draw(rects(grid.height, grid.width))
    inside = covered(region, grid.height, grid.width)
    expected = [number for number in range(len(grid)) if inside[grid[number].slices].any()]
    assert list(grid.touching(region)) == expected


@given(grid=grids)
def test_all_tiles_touch_the_whole(grid: TileGrid) -> None:
    assert list(grid.touching(grid.bounds)) == list(range(len(grid)))


# Sides.

images = {"width": st.integers(1, 65_535), "height": st.integers(1, 65_535), "stride": strides, "times": st.integers(1, 128)}


def size_of(stride: int, times: int) -> int:
    """A tile size that a codec of that stride takes: a multiple of it, up to 1024."""
    return stride * (1 + times % (1024 // stride))


@given(**images)
def test_sides_are_multiples_of_the_stride(width: int, height: int, stride: int, times: int) -> None:
    tile = tile_sides(width, height, size_of(stride, times), stride)
    assert all(side > 0 and side % stride == 0 for side in tile)


@given(**images)
def test_tiles_have_no_more_pixels_than_a_decoder_takes(width: int, height: int, stride: int, times: int) -> None:
    tile_width, tile_height = tile_sides(width, height, size_of(stride, times), stride)
    assert tile_width * tile_height <= MAX_TILE_PIXELS


@given(**images)
def test_tiles_are_no_larger_than_asked_for_or_one(width: int, height: int, stride: int, times: int) -> None:
    size = size_of(stride, times)
    tile_width, tile_height = tile_sides(width, height, size, stride)
    if len(TileGrid(width, height, tile_width, tile_height)) > 1:
        assert max(tile_width, tile_height) <= size
    else:
        assert tile_width * tile_height <= 2 * size**2


@given(**images)
def test_tiles_of_a_row_are_nearly_equal(width: int, height: int, stride: int, times: int) -> None:
    """The last one lacks less than a stride for each of the others."""
    grid = TileGrid(width, height, *tile_sides(width, height, size_of(stride, times), stride))
    assert grid.columns * grid.tile_width - width < grid.columns * stride
    assert grid.rows * grid.tile_height - height < grid.rows * stride


@pytest.mark.parametrize(
    ("width", "height", "tile_size", "expected"),
    [
        (1, 1, 1024, (64, 64)),
        (768, 512, 1024, (768, 512)),
        (1920, 1080, 1024, (1920, 1088)),
        (2048, 1024, 1024, (2048, 1024)),
        (2049, 1024, 1024, (704, 1024)),
        (4000, 3000, 1024, (1024, 1024)),
        (450, 300, 128, (128, 128)),
        (65_535, 1, 1024, (1024, 64)),
    ],
    ids=str,
)
def test_some_images_in_tiles(width: int, height: int, tile_size: int, expected: tuple[int, int]) -> None:
    assert tile_sides(width, height, tile_size, 64) == expected


# Rectangles.


@given(a=rects(), b=rects())
def test_within_keeps_what_both_have(a: Rect, b: Rect) -> None:
    both = a.within(b)
    np.testing.assert_array_equal(covered(both), covered(a) & covered(b))
    assert bool(both) == (covered(a) & covered(b)).any()
    assert both.width >= 0
    assert both.height >= 0


@given(rect=rects(), margin=st.integers(0, 60))
def test_grown_adds_a_margin_inside_the_bounds(rect: Rect, margin: int) -> None:
    rows, columns = (np.unique(places)[:, None] for places in np.nonzero(covered(rect)))
    near_rows, near_columns = ((np.abs(places - np.arange(50)) <= margin).any(0) for places in (rows, columns))
    grown = rect.grown(margin, Rect(0, 0, 50, 50))
    np.testing.assert_array_equal(covered(grown), near_rows[:, None] & near_columns)


@given(rect=rects(), origin=rects())
def test_moved_keeps_the_size(rect: Rect, origin: Rect) -> None:
    moved = rect.moved(origin)
    assert (moved.height, moved.width) == (rect.height, rect.width)
    assert (moved.top + origin.top, moved.left + origin.left) == (rect.top, rect.left)


@given(rect=rects(), stride=st.integers(1, 20))
def test_over_covers_the_rectangle_and_no_whole_stride_more(rect: Rect, stride: int) -> None:
    whole = rect.over(stride).times(stride)
    assert whole.within(rect) == rect
    added = (rect.top - whole.top, rect.left - whole.left, whole.bottom - rect.bottom, whole.right - rect.right)
    assert all(0 <= more < stride for more in added)


@given(rect=rects())
def test_slices_cut_the_rectangle_out(rect: Rect) -> None:
    assert covered(rect)[rect.slices].all()
    assert covered(rect)[rect.slices].size == rect.height * rect.width == covered(rect).sum()


def test_a_rectangle_without_extent_is_false() -> None:
    assert not Rect(3, 3, 3, 9)
    assert not Rect(3, 3, 9, 3)
    assert Rect(3, 3, 4, 4)
