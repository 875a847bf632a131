"""Sources deliver the same rows whatever holds them; moments against numpy."""

import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from skdeepcluster.data import (
    ArraySource,
    AugmentedViews,
    DatasetSource,
    ResidentSource,
    SelectedSource,
    _sources,
    free_memory,
    moments,
    open_array,
    ordered_batches,
    pixel_range,
    value_range,
)

CPU = torch.device("cpu")
ORDER = torch.tensor([5, 0, 11, 5, 3])


def vectors(dtype=np.float32):
    return np.random.default_rng(0).uniform(0, 100, size=(12, 7)).astype(dtype)


def images(dtype=np.float32):
    return np.random.default_rng(0).uniform(0, 255, size=(12, 3, 4, 5)).astype(dtype)


def read_only_map(array, folder, mode="r"):
    path = folder / "array.npy"
    np.save(path, array)
    return np.load(path, mmap_mode=mode)


LAYOUTS = {
    "contiguous": lambda array, _: array,
    "fortran": lambda array, _: np.asfortranarray(array),
    "reversed": lambda array, _: np.ascontiguousarray(array[::-1])[::-1],
    "last axis reversed": lambda array, _: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
    "every other": lambda array, _: np.repeat(array, 2, axis=0)[::2],
    "big endian": lambda array, _: array.astype(array.dtype.newbyteorder(">")),
    "field of a record": lambda array, _: as_field(array),
    "read-only map": read_only_map,
    "writeable map": lambda array, folder: read_only_map(array, folder, "r+"),
}


def as_field(array):
    """A view whose rows lie a number of bytes apart that is no multiple of the item size."""
    records = np.zeros(len(array), [("x", array.dtype, array.shape[1:]), ("tag", np.uint8)])
    records["x"] = array
    return records["x"]


class Listed:
    """The smallest map-style dataset."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


# The same rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int64, np.int16, np.uint8, bool]
)
@pytest.mark.parametrize("make", [vectors, images])
def test_all_sources_deliver_the_same_rows(tmp_path, monkeypatch, make, dtype, layout):
    original = make(dtype)
    array = LAYOUTS[layout](original, tmp_path)
    keeps_bytes = dtype == np.uint8 and original.ndim > 2
    wide = dtype in (np.float64, np.int64)  # float32 would round them before they are centred
    delivered = np.uint8 if keeps_bytes else np.float64 if wide else np.float32
    expected = torch.from_numpy(original.astype(delivered))
    monkeypatch.setattr(_sources, "COPIED_ROWS", 5)
    sources = [
        ArraySource(array, CPU),
        open_array(array, CPU),
        DatasetSource(Listed(list(array)), CPU),
    ]
    for source in sources:
        assert len(source) == 12
        assert source.sample_shape == original.shape[1:]
        assert source.device == CPU
        rows = source.rows(ORDER)
        assert rows.dtype == expected.dtype
        assert torch.equal(rows, expected[ORDER])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_channels_last(monkeypatch, dtype, share):
    monkeypatch.setattr(_sources, "RESIDENT_SHARE", share)
    original = images(dtype)
    array = np.ascontiguousarray(np.moveaxis(original, 1, -1))
    source = open_array(array, CPU, channels_last=True)
    assert source.sample_shape == (3, 4, 5)
    rows = source.rows(ORDER)
    assert rows.is_contiguous()
    torch.testing.assert_close(rows, torch.from_numpy(original)[ORDER], check_dtype=False)
    assert rows.dtype == torch.from_numpy(original).dtype


def test_a_map_is_read_in_the_order_on_disk():
    class Recording(np.ndarray):
        def __getitem__(self, key):
            asked.append(key)
            return super().__getitem__(key)

    asked = []
    array = vectors().view(Recording)
    rows = ArraySource(array, CPU).rows(ORDER)
    assert sorted(asked[0]) == list(asked[0])
    assert torch.equal(rows, torch.from_numpy(vectors())[ORDER])


# open_array ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "n_bytes"), [(np.float16, 12 * 7 * 4), (np.int64, 12 * 7 * 8), (np.uint8, 336)]
)
def test_resident_when_it_takes_half_of_the_free_memory_at_most(monkeypatch, dtype, n_bytes):
    monkeypatch.setattr(_sources, "free_memory", lambda device: 2 * n_bytes)
    assert isinstance(open_array(vectors(dtype), CPU), ResidentSource)
    monkeypatch.setattr(_sources, "free_memory", lambda device: 2 * n_bytes - 1)
    assert isinstance(open_array(vectors(dtype), CPU), ArraySource)


def test_images_stored_in_bytes_count_as_bytes(monkeypatch):
    monkeypatch.setattr(_sources, "free_memory", lambda device: 2 * 12 * 60)
    as_bytes = np.asfortranarray(images(np.uint8))[:, :, ::-1]  # torch cannot share this
    assert isinstance(open_array(as_bytes, CPU), ResidentSource)
    assert isinstance(open_array(images(np.float16), CPU), ArraySource)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_of_a_delivered_type_is_not_copied_however_large(monkeypatch, dtype):
    monkeypatch.setattr(_sources, "free_memory", lambda device: 0)
    array = vectors(dtype)
    source = open_array(array, CPU)
    assert source.data.data_ptr() == array.ctypes.data


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
@pytest.mark.parametrize("view", [lambda a: a, np.asarray, lambda a: a[2:][:9], np.atleast_2d])
def test_a_memory_map_stays_on_disk(tmp_path, dtype, view):
    np.save(tmp_path / "array.npy", vectors(dtype))
    source = open_array(view(np.load(tmp_path / "array.npy", mmap_mode="r")), CPU)
    assert isinstance(source, ArraySource)
    writable = np.load(tmp_path / "array.npy", mmap_mode="r+")
    source = open_array(view(writable), CPU)
    if dtype == np.float32:  # torch reads the file itself
        assert source.data.data_ptr() == view(writable).ctypes.data
    else:
        assert isinstance(source, ArraySource)


def test_selected_rows_of_another_source():
    source = ArraySource(vectors(), CPU)
    some = SelectedSource(source, torch.tensor([7, 3, 9]))
    assert len(some) == 3
    assert some.sample_shape == source.sample_shape
    assert some.device == source.device
    assert torch.equal(some.rows(torch.tensor([2, 0])), source.rows(torch.tensor([9, 7])))


@pytest.mark.parametrize("there", [True, False])
def test_views_tell_whether_samples_have_to_be_waited_for(there):
    source = ResidentSource(torch.zeros(12, 3)) if there else ArraySource(vectors(), CPU)
    some = SelectedSource(source, torch.arange(4))
    for rows in (source, some, SelectedSource(some, torch.arange(2))):
        assert AugmentedViews(rows, torch.nn.Identity(), []).resident == there


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_array_is_never_written_to(tmp_path, layout):
    array = LAYOUTS[layout](vectors(), tmp_path)
    before = array.copy()
    for source in (ArraySource(array, CPU), open_array(array, CPU)):
        rows = source.rows(torch.arange(12))
        rows.zero_()
        np.testing.assert_array_equal(array, before)


def test_a_large_array_is_converted_in_parts(monkeypatch):
    asked = []

    class Recording(ArraySource):
        def rows(self, index):
            asked.append(len(index))
            return super().rows(index)

    monkeypatch.setattr(_sources, "ArraySource", Recording)
    monkeypatch.setattr(_sources, "COPIED_ROWS", 5)
    source = open_array(vectors(np.float16), CPU)
    assert asked == [5, 5, 2]
    np.testing.assert_array_equal(source.data, vectors(np.float16))


@pytest.mark.parametrize(
    ("read", "n_rows"),
    [
        (lambda source: moments(source, (0,)), 5),
        (value_range, 5),
        (pixel_range, 5),
        (lambda source: list(ordered_batches(source, 2)), 12),
        (lambda source: open_array(source.array, CPU), 5),
    ],
    ids=["moments", "range", "range of pixels", "batches", "copy"],
)
@pytest.mark.parametrize("room", [5.9, 0.1])
def test_few_rows_are_taken_at_a_time_where_they_are_large(monkeypatch, read, n_rows, room):
    asked = []

    class Recording(ArraySource):
        def rows(self, index):
            asked.append(len(index))
            return super().rows(index)

    array = vectors(np.float16)
    monkeypatch.setattr(_sources, "ArraySource", Recording)
    monkeypatch.setattr(_sources, "BLOCK_BYTES", int(room * array[0].size * 4))
    read(Recording(array, CPU))
    few = 4 if n_rows == 12 else 1  # four blocks
    assert max(asked) == (n_rows if room > 1 else few)


def test_an_array_goes_to_a_device_in_parts(monkeypatch, cuda):
    pinned = []
    pin = torch.Tensor.pin_memory
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: (pinned.append(len(t)), pin(t))[1])
    monkeypatch.setattr(_sources, "COPIED_ROWS", 5)
    array = np.random.default_rng(0).random((12, 2**14), dtype=np.float32)
    source = open_array(array, cuda)
    assert isinstance(source, ResidentSource)
    assert pinned == [5, 5, 2]
    np.testing.assert_array_equal(source.data.cpu(), array)


def test_what_torch_keeps_for_later_is_free(monkeypatch, cuda):
    free = free_memory(cuda)
    reserved, allocated = torch.cuda.memory_reserved(cuda), torch.cuda.memory_allocated(cuda)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved + 5 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: allocated + 3 * 2**30)
    assert free_memory(cuda) == free + 2 * 2**30


def test_free_memory_is_a_plausible_number():
    assert 2**20 < free_memory(CPU) < 2**50


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="elsewhere there are none")
def test_the_memory_of_a_container_is_what_its_limit_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(_sources, "CONTROL_GROUP", tmp_path)
    unlimited = free_memory(CPU)
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 200000\nactive_file 9\n")
    for limit, free in {"1000000\n": 500_000, "400000\n": 0}.items():
        (tmp_path / "memory.max").write_text(limit)
        assert free_memory(CPU) == free
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) > unlimited / 2


# DatasetSource ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, 7), lambda x: [x, "label"]])
def test_dataset_items_with_and_without_labels(wrap, num_workers):
    data = torch.from_numpy(images())
    source = DatasetSource(Listed([wrap(x) for x in data]), CPU, num_workers)
    assert source.sample_shape == (3, 4, 5)
    assert torch.equal(source.rows(ORDER), data[ORDER])


def test_torch_datasets_of_tensors():
    data = torch.from_numpy(vectors())
    dataset = torch.utils.data.TensorDataset(data.requires_grad_(), torch.arange(12))
    rows = DatasetSource(dataset, CPU).rows(ORDER)
    assert torch.equal(rows, data.detach()[ORDER])
    assert not rows.requires_grad


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
def test_bytes_stay_bytes_in_images_only(kind):
    picture = DatasetSource(Listed([kind(x) for x in images(np.uint8)]), CPU)
    assert picture.rows(ORDER).dtype == torch.uint8
    features = DatasetSource(Listed([kind(x) for x in vectors(np.uint8)]), CPU)
    assert features.rows(ORDER).dtype == torch.float32


def test_items_are_read_in_threads_and_keep_their_order():
    barrier = threading.Barrier(3)

    class Waiting(Listed):
        def __getitem__(self, number):
            # Passes only if three threads ask at the same time.
            barrier.wait(timeout=30) if self.started else None
            return super().__getitem__(number)

    dataset = Waiting([torch.full((2,), float(i)) for i in range(6)])
    dataset.started = False
    source = DatasetSource(dataset, CPU, num_workers=3)
    dataset.started = True
    index = torch.tensor([4, 1, 5, 0, 3, 2])
    assert torch.equal(source.rows(index)[:, 0], index.float())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_the_dataset_is_passed_on(num_workers):
    class Broken(Listed):
        def __getitem__(self, number):
            if number == 3:
                raise OSError("image 3 cannot be read")
            return super().__getitem__(number)

    source = DatasetSource(Broken([torch.zeros(2)] * 5), CPU, num_workers)
    with pytest.raises(OSError, match="image 3 cannot be read"):
        source.rows(torch.arange(5))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "X is a Dataset without items"),
        ([object()], r"item 0 is a object\. Let the Dataset return tensors\.$"),
        ([3.0], r"item 0 is a float\. Let the Dataset return tensors\.$"),
        ([3], r"item 0 is a int\. Let"),
        (
            [(3.0, 7)],
            r"item 0 is a float\. Let",
        ),  # not a vector: a label would be read as a feature
        ([{"x": 1, "y": 2}], r"item 0 is a dict with the columns 'x', 'y'\. Pass .* X\['x'\], or"),
        (["text"], r"item 0 is a str\. Let the Dataset return tensors\. Embed texts first"),
        ([[[1.0, 2.0], [3.0]]], "item 0 is a list of lists of different lengths"),
        ([()], r"item 0 is a tuple\. Let"),
        ([[]], r"item 0 is a list\. Let"),
        ([torch.zeros(3) + 1j], r"item 0 is complex \(torch.complex64\)\. Put real"),
        ([(np.zeros(3) + 1j, 7)], r"item 0 is complex \(complex128\)\. Put real"),
        ([torch.zeros(3).to_sparse()], r"item 0 is a tensor of layout torch.sparse_coo\. .*dense"),
        ([np.ma.masked_equal(np.zeros(3), 0)], "item 0 is an array with masked entries"),
        ([np.array(["a", "b"])], r"item 0 is an array of <U1: could not convert .*'a'"),
        ([torch.zeros(3, 4)], r"item 0 has shape \(3, 4\)\. Grey images need an axis of one chan"),
        ([torch.zeros(())], r"item 0 has shape \(\)"),
    ],
)
def test_unusable_datasets(items, message):
    with pytest.raises(ValueError, match=message):
        DatasetSource(Listed(items), CPU)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("RGB", lambda image: np.asarray(image).transpose(2, 0, 1)),
        ("RGBA", lambda image: np.asarray(image).transpose(2, 0, 1)),
        ("L", lambda image: np.asarray(image)[None]),
        ("1", lambda image: np.asarray(image.convert("L"))[None]),
        ("P", lambda image: np.asarray(image.convert("RGB")).transpose(2, 0, 1)),
        ("CMYK", lambda image: np.asarray(image.convert("RGB")).transpose(2, 0, 1)),
        ("I;16", lambda image: np.asarray(image)[None].astype(np.float32)),
        ("I", lambda image: np.asarray(image)[None].astype(np.float32)),
        ("F", lambda image: np.asarray(image)[None]),
    ],
)
def test_pictures_are_read_channels_first(mode, expected):
    grey = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5))
    image = grey.convert("RGB").convert(mode) if mode[0] not in "IF" else grey.convert(mode)
    source = DatasetSource(Listed([image, (image, 7)]), CPU)
    np.testing.assert_array_equal(source.rows(torch.arange(2)), [expected(image)] * 2)


def test_lists_of_numbers_are_samples():
    data = images()
    source = DatasetSource(Listed([x.tolist() for x in data]), CPU)
    assert torch.equal(source.rows(ORDER), torch.from_numpy(data)[ORDER])


def test_channels_last_where_the_caller_says_so():
    data = torch.from_numpy(images())
    dataset = Listed([x.permute(1, 2, 0) for x in data])
    source = DatasetSource(dataset, CPU)
    source.read_channels_last()
    assert source.sample_shape == (3, 4, 5)
    assert torch.equal(source.rows(ORDER), data[ORDER])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_items_of_different_shapes(num_workers):
    source = DatasetSource(Listed([torch.zeros(3), torch.zeros(4)]), CPU, num_workers)
    with pytest.raises(ValueError, match=r"item 1 has shape \(4,\), but item 0 has \(3,\)"):
        source.rows(torch.arange(2))
    source = DatasetSource(Listed([torch.zeros(3), "text"]), CPU, num_workers)
    with pytest.raises(ValueError, match="item 1 is a str"):
        source.rows(torch.arange(2))


# Reading all of it -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [vectors, images])
@pytest.mark.parametrize(
    ("batch_size", "valid"), [(5, [5, 5, 2]), (6, [6, 6]), (12, [12]), (20, [12])]
)
@pytest.mark.parametrize("n_read", [1, 6, 512])
def test_ordered_batches_have_one_shape(monkeypatch, make, batch_size, valid, n_read):
    monkeypatch.setattr(_sources, "READ_ROWS", n_read)
    data = torch.from_numpy(make())
    batches = list(ordered_batches(ResidentSource(data), batch_size))
    assert [n_valid for _, n_valid in batches] == valid
    assert {tuple(rows.shape) for rows, _ in batches} == {(batch_size, *data.shape[1:])}
    assert torch.equal(torch.cat([rows[:n] for rows, n in batches]), data)
    assert not any(rows[n:].any() for rows, n in batches)


def test_rows_of_several_batches_are_read_at_once(monkeypatch):
    monkeypatch.setattr(_sources, "READ_ROWS", 7)
    source, read = ResidentSource(torch.from_numpy(vectors())), []
    rows = source.rows
    monkeypatch.setattr(source, "rows", lambda index: read.append(index.tolist()) or rows(index))
    assert len(list(ordered_batches(source, 3))) == 4
    assert read == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_padding_keeps_the_type():
    rows, _ = next(ordered_batches(ResidentSource(torch.from_numpy(images(np.uint8))), 20))
    assert rows.dtype == torch.uint8


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize(("make", "axes"), [(vectors, (0,)), (images, (0, 2, 3))])
@pytest.mark.parametrize("batch", [1, 5, 4096])
def test_moments_against_numpy(monkeypatch, make, axes, offset, batch):
    monkeypatch.setattr(_sources, "STATISTICS_BATCH", batch)
    array = make() + np.float32(offset)
    mean, variance = moments(ResidentSource(torch.from_numpy(array)), axes)
    exact = array.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axes, keepdims=True)[0], rtol=1e-12)
    np.testing.assert_allclose(variance, exact.var(axes, keepdims=True)[0], rtol=1e-9)


def test_moments_of_bytes_and_of_constants():
    array = images(np.uint8)
    mean, variance = moments(ResidentSource(torch.from_numpy(array)), (0, 2, 3))
    np.testing.assert_allclose(mean[:, 0, 0], array.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(variance[:, 0, 0], array.var(axis=(0, 2, 3)))
    _, variance = moments(ResidentSource(torch.full((10, 2), 1e4)), (0,))
    assert not variance.any()


def test_statistics_of_large_data_come_from_spaced_rows(monkeypatch):
    monkeypatch.setattr(_sources, "STATISTICS_ROWS", 11)
    data = torch.arange(1001.0)[:, None]
    mean, _ = moments(ResidentSource(data), (0,))
    assert mean.item() == 500
    assert value_range(ResidentSource(data)) == (0.0, 1000.0)


def test_value_range():
    array = images()
    found = value_range(ResidentSource(torch.from_numpy(array)))
    assert found == (array.min(), array.max())


def test_the_range_of_bytes_is_known_from_one_row():
    asked = []

    class Recording(ResidentSource):
        def rows(self, index):
            asked.append(len(index))
            return super().rows(index)

    assert value_range(Recording(torch.full((50, 1, 2, 2), 7, dtype=torch.uint8))) == (0.0, 255.0)
    assert sum(asked) == 1
