"""Image files of every sort that turns up in a folder."""

from __future__ import annotations

import pickle
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2 import functional as tv

from skdeepcluster.datasets import ImageFiles


def noise(width, height, channels=3, seed=0):
    """Random pixels as an image of 1 to 4 channels."""
    pixels = (
        np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
    )
    return Image.fromarray(pixels.squeeze())


def truncate(path):
    """Cut a file off in the middle: the header stays good."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def as_array(image):
    """Pixels of a PIL image, channels first."""
    return np.asarray(image).transpose(2, 0, 1)


@pytest.fixture
def folder(tmp_path):
    """Five readable images and a text file, in nested folders."""
    (tmp_path / "dogs" / "big").mkdir(parents=True)
    noise(40, 30).save(tmp_path / "dogs" / "big" / "b.png")
    noise(20, 60, channels=1).save(tmp_path / "dogs" / "a.JPG", format="jpeg")
    noise(50, 50, channels=4).save(tmp_path / "z.webp", lossless=True)
    noise(33, 34).convert("P").save(tmp_path / "c.gif")
    noise(90, 80).save(tmp_path / "c.tiff")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


@pytest.fixture
def damaged(folder):
    """The same folder with a truncated image, a text in disguise and an empty file added."""
    noise(64, 64).save(folder / "half.jpg")
    truncate(folder / "half.jpg")
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").touch()
    return folder


def names(files):
    """File names of the rows."""
    return [path.replace("\\", "/").rsplit("/", 1)[-1] for path in files.paths]


def test_folder_is_searched_recursively_in_a_stable_order(folder):
    files = ImageFiles(folder)
    assert names(files) == ["c.gif", "c.tiff", "a.JPG", "b.png", "z.webp"]
    assert len(files) == 5
    assert files.unreadable == []
    assert ImageFiles(str(folder)).paths == files.paths


def test_derived_size_is_the_median_of_the_shorter_sides(folder):
    assert ImageFiles(folder).image_size == 33  # of 20, 30, 33, 50 and 80


def test_derived_size_is_at_most_that_of_pretrained_backbones(tmp_path):
    Image.new("L", (500, 400)).save(tmp_path / "large.png")
    assert ImageFiles(tmp_path).image_size == 224


def test_list_is_taken_in_its_order_whatever_the_extensions(tmp_path):
    paths = [tmp_path / "b.data", tmp_path / "a.data"]
    for path in paths:
        noise(8, 8).save(path, format="png")
    assert ImageFiles(paths).paths == [str(path) for path in paths]


def test_extensions(folder):
    assert names(ImageFiles(folder, extensions=[".PNG", ".jpg"])) == ["a.JPG", "b.png"]


def test_hidden_files_are_not_images(folder):
    (folder / "._z.webp").write_bytes(b"a stub of macOS")
    (folder / ".ipynb_checkpoints").mkdir()
    noise(8, 8).save(folder / ".ipynb_checkpoints" / "z.png")
    assert len(ImageFiles(folder)) == 5


def test_images_are_upright_squares(folder):
    files = ImageFiles(folder, image_size=24)
    images = files.decode()
    assert images.shape == (5, 3, 24, 24)
    assert images.dtype == torch.uint8
    for row, image in enumerate(files):
        assert torch.equal(image, images[row])
    assert torch.equal(files[-1], images[4])
    assert torch.equal(files[np.int64(2)], images[2])


def test_decode_in_threads_gives_the_same(folder):
    files = ImageFiles(folder)
    assert torch.equal(files.decode(n_jobs=2), files.decode())


@pytest.mark.parametrize(("width", "height"), [(48, 32), (32, 48), (40, 40), (97, 55)])
def test_shorter_side_is_resized_then_the_centre_cropped(tmp_path, width, height):
    noise(width, height).save(tmp_path / "image.png")
    image = ImageFiles(tmp_path, image_size=16)[0]
    # In one step: resizing first would round the longer side, and shift the centre with it.
    original = noise(width, height)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    expected = original.resize(
        (16, 16), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    np.testing.assert_array_equal(image, as_array(expected))


def test_resizing_agrees_with_torchvision(tmp_path):
    original = noise(64, 32)
    original.save(tmp_path / "image.png")
    expected = tv.center_crop(tv.resize(tv.pil_to_tensor(original), [16], antialias=True), [16, 16])
    difference = ImageFiles(tmp_path, image_size=16)[0].int() - expected.int()
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_jpeg_is_not_decoded_in_full(tmp_path, monkeypatch, mode, turned):
    [photograph, _] = load_sample_images().images
    original = Image.fromarray(photograph).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    original.save(tmp_path / "image.jpg", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "image.jpg")).convert("RGB")
    expected = as_array(ImageOps.fit(upright, (50, 50), method=Image.Resampling.BILINEAR))

    decoded = []
    original_load = JpegImageFile.load

    def load(image):
        decoded.append(image.size)
        return original_load(image)

    monkeypatch.setattr(JpegImageFile, "load", load)
    image = ImageFiles(tmp_path, image_size=50)[0].numpy()
    assert decoded[0] == (160, 107)  # of 640 x 427; as much as twice the size can show
    assert np.abs(image.astype(int) - expected).mean() < 2
    decoded.clear()
    ImageFiles(tmp_path, image_size=224)[0]
    assert decoded[0] == (640, 427)


def test_at_its_own_size_an_image_is_unchanged(tmp_path):
    noise(32, 32).save(tmp_path / "image.png")
    np.testing.assert_array_equal(ImageFiles(tmp_path)[0], as_array(noise(32, 32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_respected(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(24, 16).save(tmp_path / "image.png", exif=exif)
    with Image.open(tmp_path / "image.png") as image:
        upright = ImageOps.exif_transpose(image)
        expected = ImageOps.fit(upright, (16, 16), method=Image.Resampling.BILINEAR)
    files = ImageFiles(tmp_path)
    assert files.image_size == 16
    np.testing.assert_array_equal(files[0], as_array(expected))


def test_grey_is_repeated(tmp_path):
    noise(16, 16, channels=1).save(tmp_path / "image.png")
    image = ImageFiles(tmp_path)[0]
    expected = np.asarray(noise(16, 16, channels=1))
    np.testing.assert_array_equal(image, np.stack([expected] * 3))


def test_palette_becomes_rgb(tmp_path):
    palette = noise(16, 16).quantize(8)
    palette.save(tmp_path / "image.png")
    np.testing.assert_array_equal(ImageFiles(tmp_path)[0], as_array(palette.convert("RGB")))


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])], ids=["one", "several"])
def test_palette_with_transparency_gives_no_warning(tmp_path, transparency):
    noise(16, 16).quantize(8).save(tmp_path / "image.png", transparency=transparency)
    assert ImageFiles(tmp_path)[0].shape == (3, 16, 16)


def test_alpha_is_dropped(tmp_path):
    noise(16, 16, channels=4).save(tmp_path / "image.png")
    expected = as_array(noise(16, 16, channels=4))[:3]
    np.testing.assert_array_equal(ImageFiles(tmp_path)[0], expected)


def tiff(pixels):
    """The bytes of a TIFF file of any type of pixels, of which Pillow writes but some."""
    height, width = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    fields = {
        256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 134, 277: 1,
        278: height, 279: pixels.nbytes, 339: kind,
    }  # fmt: skip
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items()]
    size = struct.pack("<H", len(fields))
    header = b"II*\0" + struct.pack("<I", 8) + size + b"".join(entries)
    return header.ljust(134, b"\0") + pixels.tobytes()


def colour_png(pixels):
    """The bytes of a PNG file of 16-bit colours, which Pillow does not write."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


DEEP = {
    "12 bits in uint16": np.arange(64, dtype=np.uint16).reshape(8, 8) + 120,
    "all 16 bits": np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040,
    "signed 16 bits": np.arange(64, dtype=np.int16).reshape(8, 8) * 900 - 30_000,
    "32 bits": np.arange(64, dtype=np.int32).reshape(8, 8) * 100_000 - 5,
    "floats": np.linspace(-1e-3, 2e4, 64, dtype=np.float32).reshape(8, 8),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_pixels_keep_their_values(tmp_path, kind):
    pixels = DEEP[kind]
    (tmp_path / "image.tiff").write_bytes(tiff(pixels))
    files = ImageFiles(tmp_path)
    assert files.dtype == np.float32
    expected = np.stack([pixels.astype(np.float32)] * 3)
    np.testing.assert_array_equal(files[0], expected)
    assert files.decode().dtype == torch.float32
    np.testing.assert_array_equal(files.decode()[0], expected)


def test_16_bit_grey_of_other_formats_keeps_its_values(tmp_path):
    pixels = DEEP["12 bits in uint16"]
    Image.fromarray(pixels).save(tmp_path / "image.png")
    np.testing.assert_array_equal(ImageFiles(tmp_path)[0], np.stack([pixels] * 3))


def test_deep_pixels_are_resized_as_others(tmp_path):
    grey = noise(40, 24, channels=1)
    grey.save(tmp_path / "shallow.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 16).save(tmp_path / "deep.png")
    shallow = ImageFiles([tmp_path / "shallow.png"], image_size=12)[0]
    deep = ImageFiles([tmp_path / "deep.png"], image_size=12)[0]
    assert (deep / 16 - shallow).abs().max() <= 1


def test_depths_without_a_common_range_are_refused(tmp_path):
    for name, pixels in (
        ("a", DEEP["12 bits in uint16"]),
        ("b", DEEP["12 bits in uint16"]),
        ("c", DEEP["12 bits in uint16"].astype(np.uint8)),
        ("d", DEEP["floats"]),
    ):
        (tmp_path / f"{name}.tif").write_bytes(tiff(pixels))
    with pytest.raises(
        ValueError,
        match=r"mixes .*: 2 of more than 8 bits \('.*a\.tif'\), 1 of 8 bits \('.*c\.tif'\), 1 of "
        r"floating point \('.*d\.tif'\)\. Convert them to one depth, or pass one kind\.",
    ):
        ImageFiles(tmp_path)


def test_deep_pixels_that_are_not_finite_are_damage(tmp_path):
    (tmp_path / "good.tif").write_bytes(tiff(DEEP["floats"]))
    (tmp_path / "nan.tif").write_bytes(tiff(np.full((8, 8), np.nan, np.float32)))
    with pytest.raises(ValueError, match=r"nan\.tif \(ValueError: pixels that are NaN or infinite"):
        ImageFiles(tmp_path).decode()
    with pytest.warns(UserWarning, match="^1 unreadable"):
        assert len(ImageFiles(tmp_path, unreadable="skip").decode()) == 1


def test_colours_of_16_bits_are_announced(tmp_path):
    pixels = np.arange(192, dtype=np.uint16).reshape(8, 8, 3) * 300
    (tmp_path / "image.png").write_bytes(colour_png(pixels))
    with pytest.warns(UserWarning, match="^1 image file.* colours of 16 bits") as caught:
        files = ImageFiles(tmp_path)
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(files[0], (pixels >> 8).transpose(2, 0, 1))


def test_a_very_large_image_is_refused_with_the_remedy(tmp_path, monkeypatch):
    noise(30, 30).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(
        ValueError,
        match=r"DecompressionBombError.*raise PIL\.Image\.MAX_IMAGE_PIXELS, or set it to",
    ):
        ImageFiles(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert ImageFiles(tmp_path).image_size == 30


def test_unreadable_headers_are_all_named(damaged):
    with pytest.raises(ValueError, match="2 image file") as caught:
        ImageFiles(damaged)
    assert all(name in str(caught.value) for name in ("text.png", "empty.png", "unreadable='skip'"))


def test_unreadable_headers_can_be_skipped(damaged):
    with pytest.warns(UserWarning, match="^2 unreadable") as caught:
        files = ImageFiles(damaged, unreadable="skip")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert names(files) == ["c.gif", "c.tiff", "a.JPG", "b.png", "half.jpg", "z.webp"]
    assert [path for path, _ in files.unreadable] == [
        str(damaged / "empty.png"),
        str(damaged / "text.png"),
    ]
    assert all("UnidentifiedImageError" in reason for _, reason in files.unreadable)


def test_damaged_pixels_are_found_by_decoding(damaged):
    paths = [damaged / "half.jpg", damaged / "c.gif"]
    files = ImageFiles(paths)
    with pytest.raises(ValueError, match=r"1 image file.*\n.*half\.jpg \(OSError.*truncated"):
        files.decode()
    with pytest.raises(ValueError, match=r"half\.jpg \(OSError.*truncated"):
        files[0]
    assert len(files) == 2


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_damaged_pixels_can_be_skipped(damaged, n_jobs):
    with pytest.warns(UserWarning, match="^2 unreadable"):
        files = ImageFiles(damaged, unreadable="skip")
    with pytest.warns(UserWarning, match="^1 unreadable"):
        images = files.decode(n_jobs)
    assert names(files) == ["c.gif", "c.tiff", "a.JPG", "b.png", "z.webp"]
    assert len(files.unreadable) == 3
    assert len(images) == 5
    for row, image in enumerate(files):
        assert torch.equal(image, images[row])


def test_many_unreadable_files_are_counted(tmp_path):
    for number in range(13):
        (tmp_path / f"bad{number:02}.png").touch()
    with pytest.raises(ValueError, match="13 image file") as caught:
        ImageFiles(tmp_path)
    assert "bad09.png" in str(caught.value)
    assert "bad10.png" not in str(caught.value)
    assert "and 3 more" in str(caught.value)


def test_nothing_left_to_skip_to(tmp_path):
    (tmp_path / "bad.png").touch()
    with pytest.raises(ValueError, match=r"No image is left.*(?s:.*)bad\.png"):
        ImageFiles(tmp_path, unreadable="skip")


def test_missing_sources_are_named(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError, match=re.escape(repr(str(missing)))):
        ImageFiles(missing)
    noise(8, 8).save(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files .*b\.png"):
        ImageFiles([tmp_path / "a.png", tmp_path / "b.png"])
    many = [tmp_path / f"{number}.png" for number in range(12)]
    with pytest.raises(FileNotFoundError, match=r"12 of 12 files .* and 2 more"):
        ImageFiles(many)


def test_sources_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(ValueError, match=re.escape(repr(str(tmp_path)))):
        ImageFiles(tmp_path)
    with pytest.raises(ValueError, match=r"source='' names no folder; .* pass '\.'"):
        ImageFiles("")
    with pytest.raises(ValueError, match="empty list"):
        ImageFiles([])
    with pytest.raises(ValueError, match=r"source is a file.*notes\.txt"):
        ImageFiles(tmp_path / "notes.txt")


def test_bad_parameters(folder):
    with pytest.raises(ValueError, match="unreadable must be 'raise' or 'skip'; got 'ignore'"):
        ImageFiles(folder, unreadable="ignore")
    with pytest.raises(ValueError, match="image_size must be at least 1 pixel; got 0"):
        ImageFiles(folder, image_size=0)
    with pytest.raises(TypeError):
        ImageFiles(folder, image_size=1.5)
    with pytest.raises(IndexError):
        ImageFiles(folder)[5]


def test_with_image_size_leaves_the_original_alone(folder):
    files = ImageFiles(folder)
    resized = files.with_image_size(8)
    assert (files.image_size, resized.image_size) == (33, 8)
    assert resized.paths == files.paths
    assert resized.paths is not files.paths
    assert resized[0].shape == (3, 8, 8)
    with pytest.raises(ValueError, match="image_size"):
        files.with_image_size(0)


def test_pickle_and_repr(folder):
    files = ImageFiles(folder)
    copied = pickle.loads(pickle.dumps(files))
    assert copied.paths == files.paths
    assert torch.equal(copied[0], files[0])
    assert repr(copied) == "ImageFiles(n=5, image_size=33)"


def test_data_loader_takes_it(folder):
    loader = torch.utils.data.DataLoader(ImageFiles(folder), batch_size=5)
    assert torch.equal(next(iter(loader)), ImageFiles(folder).decode())
