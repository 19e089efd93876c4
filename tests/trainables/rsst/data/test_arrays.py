"""Arrays and torch data sets as images of a trial: what they become, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from trainables.plugins import Address
from trainables.rsst import ConfigError, ImageData
from trainables.rsst.data.sources import digits

X = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
Y = np.arange(60) % 3


def given(**other: Any) -> dict[str, Any]:
    return {"train_images": X, "train_labels": Y, "test_images": X[:9], "test_labels": Y[:9], **other}


def with_value(value: float) -> np.ndarray[Any, Any]:
    images = (X / 255).astype(np.float32)
    images[7, 3, 3] = value
    return images


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"train_images": None}, "train_images = None: valid is uint8 (B, C, H, W)"),
    "a path": ({"train_images": "images.npy"}, "train_images = images.npy: "),
    "ragged": ({"train_images": [X[0], X[1, :4]], "train_labels": Y[:2]}, "train_images = list: "),
    "objects": ({"train_images": X.astype(object)}, "object (60, 8, 8): "),
    "int64": ({"train_images": X.astype(np.int64)}, "int64 (60, 8, 8): "),
    "bool": ({"train_images": X > 9}, "bool (60, 8, 8): "),
    "complex": ({"train_images": X.astype(complex)}, "pixels are numbers"),
    "texts": ({"train_images": X.astype(str)}, "pixels are numbers"),
    "bfloat16": ({"train_images": torch.zeros(60, 8, 8, dtype=torch.bfloat16)}, "train_images = Tensor: "),
    "one image": ({"train_images": X[0]}, "uint8 (8, 8): "),
    "five axes": ({"train_images": X[:, None, None]}, "uint8 (60, 1, 1, 8, 8): "),
    "no image": ({"train_images": X[:0], "train_labels": Y[:0]}, "uint8 (0, 8, 8): "),
    "no pixel": ({"train_images": X[:, :0]}, "uint8 (60, 0, 8): "),
    "channels last": ({"train_images": np.stack([X] * 3, 3)}, "channels come first: images.transpose(0, 3, 1, 2)"),
    "four channels": ({"train_images": np.stack([X] * 4, 1)}, "uint8 (60, 4, 8, 8): "),
    "nan": ({"train_images": with_value(np.nan)}, "with NaN or infinity"),
    "infinite": ({"train_images": with_value(np.inf)}, "with NaN or infinity"),
    "normalised": ({"train_images": (X / 255 - 0.5) / 0.5}, "float64 (60, 8, 8) from -1 to 1: "),
    "floats to 255": ({"train_images": X.astype(np.float32)}, "from 0 to 255: "),
    "between": ({"train_images": with_value(0.5)}, "between the 255ths"),
    "masked": ({"train_images": np.ma.masked_equal(X, 9)}, "masked values"),
    "no labels": ({"train_labels": None}, "train_labels = None: valid is 60 whole numbers from 0"),
    "fewer labels": ({"train_labels": Y[:59]}, "train_labels = int64 (59,): valid is 60 whole numbers from 0"),
    "halves": ({"train_labels": Y / 2}, "they are not whole"),
    "whole floats": ({"train_labels": Y / 1.0}, "labels.astype('int64') makes them so"),
    "nan labels": ({"train_labels": Y * np.nan}, "they are not whole, or NaN"),
    "names": ({"train_labels": np.array(list("abc"))[Y]}, "np.unique(names, return_inverse=True) numbers names"),
    "truths": ({"train_labels": Y > 0}, "bool (60,): "),
    "one-hot": ({"train_labels": np.eye(3, dtype=int)[Y]}, "labels.argmax(1)"),
    "a column": ({"train_labels": Y[:, None]}, "labels.reshape(-1)"),
    "one label": ({"train_labels": 1}, "int64 (): "),
    "below 0": ({"train_labels": Y - 1}, "some are below 0"),
    "huge": ({"train_labels": np.where(Y == 2, 2**40, Y)}, "some are no class numbers"),
    "from 1": ({"train_labels": Y + 1, "test_labels": Y[:9] + 1}, "no image of train has the class 0"),
    "a gap": ({"train_labels": Y * 100}, "no image of train has the class 1"),
    "one class": ({"train_labels": Y * 0, "test_labels": Y[:9] * 0}, "labels of at least two classes"),
    "a class of test alone": ({"test_labels": Y[:9] + 1}, "no image of train has the class 3"),
    "few names": ({"classes": ["a", "b"]}, "labels go up to 2, and there are 2 classes"),
    "one name twice": ({"classes": ["a", "b", "a"]}, "classes = a: "),
    "a text of names": ({"classes": "abc"}, "classes = abc: valid is a list of names"),
    "images of test alone": ({"test_labels": None}, "test_labels = None: "),
    "labels of test alone": ({"test_images": None}, "test_images = None: "),
    "val without labels": ({"val_images": X}, "val_labels = None: "),
    "other shapes": ({"test_images": X[:9, :4]}, "images of one shape (C, H, W) in all parts"),
    "other channels": ({"test_images": np.stack([X[:9]] * 3, 1)}, "images of one shape"),
    "not square": ({"train_images": X[:, 1:], "test_images": X[:9, 1:]}, "img_size = none: "),
    "no size": ({"img_size": 0}, "img_size = 0: valid is 1 to 4096"),
    "half a size": ({"img_size": 8.5}, "img_size = 8.5: "),
    "a seed below 0": ({"split_seed": -1}, "split_seed = -1: "),
    "too few to split": ({"train_images": X[:6], "train_labels": Y[:6]}, "at least one image in val"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_set_is_refused_in_one_line(case: str) -> None:
    changed, said = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        ImageData.from_arrays(**given(**changed))
    assert said in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 400


FORMS: dict[str, Any] = {
    "bytes": X,
    "with a channel": X[:, None],
    "tensor": torch.from_numpy(X),
    "with gradients": torch.from_numpy(X / 255).requires_grad_(),
    "ToTensor": (torch.from_numpy(X)[:, None] / 255),
    "half": (torch.from_numpy(X) / 255).half(),
    "another order in memory": np.asfortranarray(X),
    "read only": np.frombuffer(X.tobytes(), np.uint8).reshape(X.shape),
    "every second of more": np.repeat(X, 2, axis=0)[::2],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_in_any_form_are_the_same_data(form: str) -> None:
    found = ImageData.from_arrays(FORMS[form], torch.from_numpy(Y).to(torch.int16))
    assert found.digest == ImageData.from_arrays(X, Y).digest
    assert found.train.images.dtype == torch.uint8 and found.train.images.shape[1:] == (1, 8, 8)


def test_parts_that_are_given_stay_and_others_are_split_off_by_seed() -> None:
    whole = ImageData.from_arrays(X, Y)
    assert [len(part) for part in (whole.train, whole.val, whole.test)] == [42, 9, 9]
    assert whole.knobs == {"dataset": f"arrays@{whole.digest}", "img_size": 8, "split_seed": 0}
    assert (address := Address.of(whole.knobs["dataset"])) is not None and address.short == "arrays"
    assert whole.digest != ImageData.from_arrays(X, Y, split_seed=1).digest
    some = ImageData.from_arrays(X, Y, X[:9], Y[:9])
    assert len(some.train) == 51 and torch.equal(some.test.images[:, 0], torch.from_numpy(X[:9]))
    every = ImageData.from_arrays(X, Y, X[:9], Y[:9], X[9:12], Y[9:12], classes=["a", "b", "c", "d"])
    assert len(every.train) == 60 and "split_seed" not in every.knobs and every.num_classes == 4
    assert every.about.lines()[2] == "images: they were given as arrays in Python"


def test_images_that_two_parts_have_in_common_are_said() -> None:
    other = 255 - X
    cases: dict[str, tuple[list[Any], list[str]]] = {
        "none": ([X[:20], Y[:20], X[20:30], Y[20:30], X[30:], Y[30:]], []),
        "test": ([X, Y, X[51:], Y[51:], other, Y], ["9 images of test are in train too"]),
        "one": (
            [X, Y, np.concatenate([other[:1], X[:1]]), Y[:2], other[2:], Y[2:]],
            ["1 image of test is in train too"],
        ),
        "val": ([X, Y, other, Y, X[:4], Y[:4]], ["4 images of val are in train too"]),
        "both": ([X, Y, other, Y, other[:7], Y[:7]], ["7 images of test are in val too"]),
    }
    found = {name: ImageData.from_arrays(*arrays).about.notes[1:] for name, (arrays, _) in cases.items()}
    assert found == {name: tuple(lines) for name, (_, lines) in cases.items()}
    twice = ImageData.from_arrays(np.concatenate([X, X]), np.concatenate([Y, Y])).about.notes
    assert len(twice) == 6 and twice[1].endswith("images of val are in train too"), "those that are split off too"


def test_arrays_that_change_later_change_nothing() -> None:
    mine = [X.copy(), Y.copy(), X[:9].copy(), Y[:9].copy(), X[9:12].copy(), Y[9:12].copy()]
    found = ImageData.from_arrays(*mine)
    for array in mine:
        array[:] = 0
    assert ImageData.from_arrays(X, Y, X[:9], Y[:9], X[9:12], Y[9:12]).digest == found.digest
    assert torch.equal(found.test.images[:, 0], torch.from_numpy(X[:9])) and found.test.labels.max() == 2


def test_other_sizes_are_stretched_to_img_size() -> None:
    found = ImageData.from_arrays(X[:, :4], Y, img_size=16)
    assert found.train.images.shape[1:] == (1, 16, 16) and found.about.resize == "stretch"
    assert (found.about.smallest, found.knobs["img_size"]) == ((8, 4), 16)


class Pairs(Dataset[Any]):
    """Items from a function of their number."""

    def __init__(self, item: Any, length: int = 60, **attributes: Any) -> None:
        self.item, self.length = item, length
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        return self.item(number)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return zip(X, Y, strict=True)


COLOUR = np.stack([X, X[::-1], X // 2], axis=3)
DATASETS: dict[str, tuple[Any, Any]] = {
    "tensors": (TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), X),
    "floats of ToTensor": (TensorDataset(torch.from_numpy(X)[:, None] / 255, torch.from_numpy(Y)), X),
    "arrays": (Pairs(lambda n: (X[n], int(Y[n]))), X),
    "a list": (list(zip(X, Y, strict=True)), X),
    "a stream": (Stream(), X),
    "grey PIL": (Pairs(lambda n: (Image.fromarray(X[n]), Y[n])), X),
    "colour PIL": (Pairs(lambda n: (Image.fromarray(COLOUR[n]), Y[n])), COLOUR.transpose(0, 3, 1, 2)),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_a_torch_data_set_is_its_images(kind: str) -> None:
    dataset, images = DATASETS[kind]
    assert ImageData.from_dataset(dataset, img_size=8).digest == ImageData.from_arrays(images, Y, img_size=8).digest


def test_a_torch_data_set_has_names_and_parts() -> None:
    def part(length: int, **more: Any) -> Pairs:
        return Pairs(lambda n: (X[n], Y[n]), length, **more)

    named = part(60, classes=["red", "green", "blue"])
    found = ImageData.from_dataset(named, part(9), part(12))
    assert found.about.classes == ("red", "green", "blue") and (len(found.test), len(found.val)) == (9, 12)
    assert ImageData.from_dataset(named, classes=["a", "b", "c"]).about.classes == ("a", "b", "c")


NO_DATASETS: dict[str, tuple[Any, str]] = {
    "a number": (7, "train = 7: valid is a torch Dataset"),
    "no items": (Pairs(None, 0), "train = no items: "),
    "images alone": (Pairs(lambda n: X[n]), "item 0 is of the type ndarray"),
    "three of them": (Pairs(lambda n: (X[n], Y[n], n)), "items that are pairs"),
    "other sizes": (Pairs(lambda n: (X[n, : 8 - n % 2], Y[n])), "item 1 is uint8 (7, 8): "),
    "a palette": (Pairs(lambda n: (Image.fromarray(X[n]).convert("P"), Y[n])), "of the mode P"),
    "texts as labels": (Pairs(lambda n: (X[n], "abc"[n % 3])), "train_labels = a: "),
    "vectors as labels": (Pairs(lambda n: (X[n], np.eye(3, dtype=int)[Y[n]])), "labels.argmax(1)"),
    "random": (Pairs(lambda n: (np.random.default_rng().integers(0, 256, (8, 8)).astype(np.uint8), Y[n])), "another"),
}


@pytest.mark.parametrize("case", NO_DATASETS)
def test_what_is_no_torch_data_set_is_refused_in_one_line(case: str) -> None:
    dataset, said = NO_DATASETS[case]
    with pytest.raises(ConfigError) as refused:
        ImageData.from_dataset(dataset)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_the_digits_as_arrays_are_the_digits(tmp_path: Any) -> None:
    from trainables.rsst.config import RSSTConfig
    from trainables.rsst.data.load import load

    parts, _ = digits()
    found, known = (
        ImageData.from_arrays(parts["all"].images, parts["all"].labels, split_seed=3),
        load(RSSTConfig.from_knobs({"dataset": "digits", "seed": 3})),
    )
    assert found.digest == known.digest and found.about.mean == known.about.mean
