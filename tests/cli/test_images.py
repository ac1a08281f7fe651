"""Folders of images are inputs of a network, read as it was trained on them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skcalib._onnx._inputs import InputSpec
from skcalib.cli._errors import DataError, UsageError
from skcalib.cli._images import ImageRows, Preprocessing, read_images

Image = pytest.importorskip("PIL.Image")

FIRST = InputSpec("x", "tensor(float)", (None, 3, None, None))
LAST = InputSpec("x", "tensor(float)", (None, None, None, 3))
GREY = InputSpec("x", "tensor(float)", (None, 1, None, None))


def save(folder, pixels, name):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Six images of 9 x 7 pixels in the folders of three classes."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(("cat", "dog", "owl")):
        for i in range(2):
            pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
            save(tmp_path / "images", pixels, f"{name}/{k}{i}.png")
    return tmp_path / "images"


def test_the_folder_names_are_labels_and_pixels_lie_in_0_to_1(folder):
    rows, labels, *_ = read_images(folder, None, FIRST)
    assert rows.shape == (6, 3, 9, 7)
    assert labels.tolist() == ["cat", "cat", "dog", "dog", "owl", "owl"]
    with Image.open(folder / "dog" / "11.png") as image:
        pixels = np.asarray(image)
    assert_allclose(rows[3:4][0], pixels.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert_array_equal(rows[np.array([3, 0])][0], rows[3:4][0])
    assert_array_equal(np.asarray(rows), rows[:])


def test_channels_lie_where_the_network_takes_them(folder):
    first, last = (read_images(folder, None, spec).values for spec in (FIRST, LAST))
    assert_array_equal(first[:], np.moveaxis(last[:], 3, 1))
    assert read_images(folder, None, GREY).values.shape == (6, 1, 9, 7)


def test_the_words_of_preprocessing_are_done_in_order(tmp_path):
    steps = np.arange(0, 240, 20, dtype=np.uint8)
    pixels = np.repeat(np.tile(steps, (6, 1))[:, :, np.newaxis], 3, axis=2)
    path = save(tmp_path, pixels, "a/a.png")
    read = Preprocessing.parse("resize=3 crop=2 range=255 mean=10,20,30 std=1,2,4")
    with Image.open(path) as image:
        got = read(image, "RGB")
    # Halved, the middle of 3 x 6 pixels: rows 0 and 1 (of 0.5, to even), columns 2, 3.
    with Image.open(path) as image:
        half = np.asarray(image.resize((6, 3), resample=2), dtype=float)
    assert_allclose(got, (half[:2, 2:4] - [10, 20, 30]) / [1, 2, 4], rtol=1e-6)


def test_the_shorter_side_is_resized_whatever_side_it_is():
    for size, expected in (((300, 200), (150, 100)), ((100, 301), (100, 301))):
        got = Preprocessing(resize=100)(Image.new("RGB", size), "RGB")
        assert got.shape == (*expected[::-1], 3)


def test_imagenet_stands_for_its_words():
    read = Preprocessing.parse("imagenet")
    assert (read.resize, read.crop, read.std) == (256, 224, (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("size=3", "does not know 'size=3'"),
        ("crop=0", "'crop=0' is no number"),
        ("mean=a,b", "is no number"),
        ("std=0", "is no number"),
    ],
)
def test_words_that_cannot_be_used_are_named(text, told):
    with pytest.raises(UsageError, match=told):
        Preprocessing.parse(text)


def test_means_need_as_many_numbers_as_channels(folder):
    with pytest.raises(UsageError, match=r"2 numbers as mean, .* 3 channels"):
        read_images(folder, "mean=1,2", FIRST)


def test_images_of_several_sizes_are_named(folder):
    save(folder, np.zeros((4, 4, 3), np.uint8), "owl/z.png")
    rows = read_images(folder, None, FIRST).values
    with pytest.raises(DataError, match=r"z\.png .* 'resize=256 crop=224'"):
        np.asarray(rows)


def test_what_is_no_image_is_named(folder):
    (folder / "cat" / "broken.png").write_bytes(b"no image")
    rows = read_images(folder, None, FIRST).values
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an image"):
        rows[:]


def test_folders_that_are_numbers_are_columns_unless_their_order_is_doubtful(tmp_path):
    grey = np.zeros((2, 2, 3), np.uint8)
    for name in ("0", "1", "2"):
        save(tmp_path, grey, f"few/{name}/a.png")
    for name in ("0", "10", "2"):
        save(tmp_path, grey, f"many/{name}/a.png")
    assert read_images(tmp_path / "few", None, FIRST).labels.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"unequal length, such as 0 and 10\."):
        read_images(tmp_path / "many", None, FIRST)


def test_images_without_folders_come_without_labels(tmp_path):
    save(tmp_path, np.zeros((2, 2, 3), np.uint8), "a.png")
    assert read_images(tmp_path, None, FIRST).labels is None
    save(tmp_path, np.zeros((2, 2, 3), np.uint8), "b/a.png")
    with pytest.raises(DataError, match="1 images and 1 folders"):
        read_images(tmp_path, None, FIRST)


def test_equal_files_have_equal_hashes(folder):
    other = folder / "owl" / "copy.png"
    other.write_bytes((folder / "owl" / "20.png").read_bytes())
    hashes = read_images(folder, None, FIRST).values.row_hashes()
    assert len(np.unique(hashes)) == 6
    assert hashes[4] == hashes[6]


def test_a_network_of_other_inputs_is_refused(folder):
    spec = InputSpec("x", "tensor(float)", (None, 10))
    with pytest.raises(DataError, match="has 2 dimensions"):
        ImageRows([folder / "cat" / "00.png"], Preprocessing(), spec)


@pytest.fixture
def images(tmp_path, demo):
    """Some images for the network that ships, as a folder and as arrays."""
    pixels = np.rint(255 * demo.X_calibration[:120]).astype(np.uint8)
    y = demo.y_calibration[:120]
    for i, (image, label) in enumerate(zip(pixels, y, strict=True)):
        path = f"images/{label}/{i:03d}.png"
        save(tmp_path, image, path)
    order = np.argsort(y, kind="stable")
    X = pixels[order].astype(np.float32) * np.float32(1 / 255)
    np.savez(tmp_path / "images.npz", X=X, y=y[order])
    return tmp_path / "images", tmp_path / "images.npz"


def test_a_folder_of_images_gives_what_an_array_of_them_gives(skcalib, images, demo):
    folder, array = images
    told = ("evaluate", demo.model, "--json", "--n-bootstrap", 0, "--inputs")
    by_folder, by_array = (skcalib(*told, path) for path in (folder, array))
    assert by_folder.code == 0, by_folder.err
    assert by_folder.json["metrics"] == by_array.json["metrics"]


def test_a_model_is_calibrated_on_a_folder_of_images(skcalib, images, demo):
    folder, _ = images
    run = skcalib(
        "calibrate", demo.model, "--inputs", folder, "-m", "temperature",
        "-o", "c.onnx", "--json", "--n-bootstrap", 0,
    )  # fmt: skip
    assert run.code == 0, run.err
    assert run.json["n_compared"] == 120
    assert run.json["largest_difference"] < 1e-5


def test_preprocessing_needs_images(refused, images_file, demo):
    told = ("evaluate", demo.model, "--inputs", images_file, "--preprocess", "crop=2")
    assert "names none" in refused(2, *told)


def test_sixteen_bits_a_number_keep_their_range():
    wide = (np.arange(16, dtype=np.uint16) * 4096).reshape(4, 4)
    pixels = Preprocessing()(Image.fromarray(wide), "L")[:, :, 0] * 255
    np.testing.assert_allclose(pixels.ravel(), np.rint(wide.ravel() / 257), atol=1e-3)
    with pytest.raises(DataError, match="whose range is not known"):
        Preprocessing()(Image.fromarray(wide.astype(np.float32)), "L")
