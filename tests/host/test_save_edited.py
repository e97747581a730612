"""EtaSaveEdited in the host: from Load Image to the saved file, and back through `pilot verify-picture`."""

import sys

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from devtools import certificate
from pilot import cli


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (48, 80, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def photographs(host, pixels) -> None:
    """Two photographs in the input folder; the first lies on its side, as a phone writes it."""
    exif = Image.Exif()
    exif[Base.Orientation], exif[Base.Make] = 8, "Phone"
    folder = host.base / "input"
    Image.fromarray(np.rot90(pixels, -1).copy()).save(
        folder / "saved_a.png", exif=exif.tobytes(), dpi=(300, 300)
    )
    Image.fromarray(255 - pixels).save(folder / "saved_b.png")


@pytest.fixture
def save(host, request):
    """save(**inputs) -> what the run came to, and the files that it wrote."""
    folder = host.base / "output" / "saved" / request.node.name.replace("[", "_").replace("]", "")

    def run(above: dict | None = None, **inputs):
        graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "saved_a.png"}}} | (above or {})
        given = {"images": ["1", 0], "source_file": "from Load Image", "format": "png", "quality": 100}
        prefix = f"saved/{folder.name}/edit"
        graph["9"] = {
            "class_type": "EtaSaveEdited",
            "inputs": given | {"filename_prefix": prefix} | inputs,
        }
        before = set(folder.glob("*"))
        done = host.run(graph)
        return done, sorted(set(folder.glob("*")) - before)

    return run


BOTH = {
    "2": {"class_type": "LoadImage", "inputs": {"image": "saved_b.png"}},
    "3": {
        "class_type": "ImageBlend",
        "inputs": {"image1": ["1", 0], "image2": ["2", 0], "blend_factor": 0.0, "blend_mode": "normal"},
    },
}


@pytest.mark.parametrize(("kind", "ending"), [("png", "png"), ("webp", "webp"), ("jpeg", "jpg")])
def test_a_photograph_comes_out_upright_with_what_its_file_carried(save, pixels, kind, ending):
    done, (path,) = save(format=kind, instruction="a red cup")
    assert done.success and path.name == f"edit_00001_.{ending}"
    with Image.open(path) as picture:
        exif = picture.getexif()
        assert (exif[Base.Orientation], exif[Base.Make]) == (1, "Phone")
        difference = np.abs(np.asarray(picture).astype(int) - pixels)
        assert difference.max() == 0 if kind != "jpeg" else 0 < difference.mean() < 12
    content = path.read_bytes()
    assert b"compositeWithTrainedAlgorithmicMedia" in content and b"a red cup" in content
    assert b"class_type" not in content and b"saved_a" not in content


def test_a_batch_is_saved_one_file_each(save, pixels):
    done, paths = save(
        {"2": {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": 2}}}, images=["2", 0]
    )
    assert done.success
    assert [path.name for path in paths] == ["edit_00001_.png", "edit_00002_.png"]
    assert all(np.array_equal(np.asarray(Image.open(path)), pixels) for path in paths)


def test_where_two_photographs_are_above_the_file_is_chosen(save):
    done, files = save(BOTH, images=["3", 0])
    assert not done.success and not files
    assert "there are several: saved_a.png (node 1), saved_b.png (node 2)" in done.error
    done, (path,) = save(BOTH, images=["3", 0], source_file="saved_a.png")
    assert done.success and Image.open(path).getexif()[Base.Make] == "Phone"
    done, (path,) = save(BOTH, images=["3", 0], source_file="none")
    assert done.success and not Image.open(path).getexif()


def test_the_photograph_is_what_an_edit_was_put_back_into(save):
    seam = dict(grow=0, feather=0, match_colour=0.0, grain=0.0, align=False, limit=5.0)
    kept = {"source": ["1", 0], "edited": ["3", 0]} | seam
    done, (path,) = save(BOTH | {"4": {"class_type": "EtaKeep", "inputs": kept}}, images=["4", 0])
    assert done.success and Image.open(path).getexif()[Base.Make] == "Phone"


def test_alpha_is_kept_where_it_is_transparency_and_not_where_it_is_a_mask(host, save, pixels, caplog):
    """The mask editor saves what is painted as alpha; the edit would come out with a hole in it."""
    seen = Image.fromarray(pixels)
    seen.putalpha(Image.fromarray(pixels[..., 0]))
    (host.base / "input" / "clipspace").mkdir(exist_ok=True)
    seen.save(host.base / "input" / "clipspace" / "masked.png")
    load = {"1": {"class_type": "LoadImage", "inputs": {"image": "clipspace/masked.png"}}}
    _, (path,) = save(load)
    assert Image.open(path).mode == "RGBA" and "the mask editor's copy" in caplog.text
    for choice in ("from Load Image", "clipspace/masked.png"):
        _, (path,) = save(load, mask=["1", 1], source_file=choice)
        assert Image.open(path).mode == "RGB"


def test_a_file_that_came_later_can_be_chosen(host, save, pixels):
    Image.fromarray(pixels).save(host.base / "input" / "saved_late.png", dpi=(72, 72))
    done, (path,) = save(source_file="saved_late.png")
    assert done.success and Image.open(path).info["dpi"] == pytest.approx((72, 72), abs=0.02)


def test_without_a_photograph_above_it_says_what_to_do(save):
    empty = {"2": {"class_type": "EmptyImage", "inputs": dict(width=8, height=8, batch_size=1, color=0)}}
    done, files = save(empty, images=["2", 0])
    assert (
        not files
        and "above images there is no Load Image; choose the photograph's file, or 'none'" in done.error
    )


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (dict(source_file="gone.png"), "'gone.png' does not exist"),
        (dict(source_file="../../secret.png"), "outside the host's input folder"),
        (dict(filename_prefix="../edit"), "outside the host's output folder"),
        (dict(filename_prefix=""), "give a file name"),
        (dict(format="jpeg", workflow=True), "only png holds the workflow"),
        (dict(quality=0), "0"),
        (dict(format="gif"), "gif"),
    ],
)
def test_what_cannot_be_saved_is_named(save, inputs, said):
    done, files = save(**inputs)
    assert not done.success and said in done.error and not files


def test_the_workflow_is_in_a_png_on_demand(save):
    _, (path,) = save(workflow=True)
    assert '"EtaSaveEdited"' in Image.open(path).info["prompt"]


@pytest.fixture
def signing(host, monkeypatch):
    pytest.importorskip("c2pa", reason="c2pa-python is optional")
    pytest.importorskip("cryptography", reason="cryptography makes the throw-away certificate")
    folder = host.base / "user" / "eta_credentials"
    certificate.write(folder)
    yield folder
    for path in folder.iterdir():
        path.unlink()


def verified(path, capsys) -> tuple[int, str]:
    status = cli.main(["verify-picture", str(path)])
    told = capsys.readouterr()
    return status, told.out + told.err


def test_with_a_certificate_the_file_is_signed_and_a_change_is_found(save, signing, capsys):
    mask = {"2": {"class_type": "SolidMask", "inputs": dict(value=1.0, width=40, height=24)}}
    done, (path,) = save(mask, mask=["2", 0])
    assert done.success
    status, told = verified(path, capsys)
    assert status == 0 and "valid, by a signer whom no trust list names" in told
    assert "made from saved_a.png (parentOf)" in told and "in 1 region(s)" in told
    content = bytearray(path.read_bytes())
    content[-60] ^= 1
    path.write_bytes(content)
    status, told = verified(path, capsys)
    assert status == 1 and "its credentials do not hold" in told


def test_a_file_that_is_not_signed_says_why(save, signing, capsys, monkeypatch, caplog):
    caplog.set_level("INFO")
    save(source_file="none")
    assert "not signed: credentials name the source's file" in caplog.text
    monkeypatch.setitem(sys.modules, "c2pa", None)
    _, (path,) = save()
    assert "not signed: the package c2pa-python is not installed" in caplog.text
    assert verified(path, capsys)[0] == 0
    monkeypatch.undo()
    (signing / "key.pem").write_text("no key")
    done, files = save()
    assert not done.success and "cannot be signed" in done.error and not files
    for name in ("key.pem", "certificate.pem"):
        (signing / name).unlink()
    save()
    assert "not signed: no certificate is configured" in caplog.text


def test_what_is_no_picture_has_no_marks(tmp_path, capsys):
    (tmp_path / "note.png").write_text("hello")
    status, told = verified(tmp_path / "note.png", capsys)
    assert status == 1 and "note.png: it cannot be read as a picture" in told
