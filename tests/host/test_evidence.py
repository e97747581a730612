"""EtaMetrics and EtaVerdict: values against hand-computed truth, whole graphs through the host's executor."""

import asyncio
import copy
import json
import logging
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.studio import left_half
from tests.core.test_perceptual import as_dino, heads, squeezenet, vit  # noqa: F401 (fixtures)
from tests.host import flow

MAIN = [
    "background_psnr",
    "background_mse",
    "background_ssim",
    "background_ms_ssim",
    "background_mean_difference",
    "background_max_difference",
    "background_changed_area",
    "changed_area",
    "structure_distance",
    "clip_similarity",
    "clip_directional",
]


def raises(*words: str):
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, words)))


def plain(value: float, batch: int = 1, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    return torch.full((batch, *size, 3), value)


def metrics(host, source, edited, **inputs) -> tuple[dict, torch.Tensor, dict]:
    """The figures' JSON, the table, the numbers by name."""
    figures, table, *numbers = host.call("EtaMetrics", source=source, edited=edited, **inputs)
    return json.loads(figures), table, dict(zip(MAIN, numbers, strict=True))


def verdict(host, figures, policy="free", let_through="pass and review", **inputs) -> tuple:
    text = figures if isinstance(figures, str) else json.dumps(figures)
    return host.call("EtaVerdict", figures=text, policy=policy, let_through=let_through, **inputs)


# --- the figures ----------------------------------------------------------------------------------


def test_the_numbers_are_the_means_of_the_batch_and_the_json_has_each_picture(host):
    """Grey 0.5 is made brighter by 0.1, 0.01 and nothing."""
    edited = torch.cat([plain(0.6), plain(0.51), plain(0.5)])
    found, table, numbers = metrics(host, plain(0.5), edited)
    assert [p["background_psnr"] for p in found["pictures"]] == [
        pytest.approx(20, 1e-4),
        pytest.approx(40, 1e-4),
        "inf",
    ]
    assert numbers["background_mse"] == pytest.approx((0.01 + 0.0001) / 3, rel=1e-4)
    assert numbers["background_mse"] == found["mean"]["background_mse"]
    assert numbers["changed_area"] == pytest.approx(100 / 3)
    assert numbers["background_psnr"] == math.inf and found["mean"]["background_psnr"] == "inf"
    assert table.shape[0] == 1 and table.shape[-1] == 3 and 0.05 < table.mean() < 0.5


def test_the_mask_is_where_the_edit_was_meant_to_be(host):
    source, mask = plain(0.5, size=(64, 64)), left_half()
    inside = torch.where(mask[..., None] > 0, torch.tensor(0.9), source)
    outside = torch.where(mask[..., None] > 0, source, torch.tensor(0.6))
    found, _, numbers = metrics(host, source, inside, mask=mask)
    assert numbers["background_mse"] == 0 and numbers["changed_area"] == 50
    assert found["settings"]["background"] == "where the mask is 0"
    found, _, numbers = metrics(host, source, outside, mask=mask)
    assert numbers["background_mse"] == pytest.approx(0.01, rel=1e-4)
    assert found["pictures"][0]["pie_mse"] == pytest.approx(0.005, rel=1e-4)


def test_without_a_mask_the_whole_picture_is_background_and_the_json_says_so(host):
    found, _, numbers = metrics(host, plain(0.5), plain(0.6))
    assert numbers["background_changed_area"] == numbers["changed_area"] == 100
    assert found["settings"]["background"] == "the whole picture, for there is no mask"


def test_what_counts_as_changed_is_the_users_choice(host):
    assert metrics(host, plain(0.5), plain(0.6))[2]["changed_area"] == 100
    assert metrics(host, plain(0.5), plain(0.6), changed_above=9.0)[2]["changed_area"] == 0


def test_a_picture_that_the_vae_cropped_is_measured_against_what_it_saw(studio, host):
    """37 x 51 pixels become 32 x 48, the middle; as the host's VAE does it."""
    source = torch.rand(1, 37, 51, 3, generator=torch.Generator().manual_seed(3))
    (vae,) = host.call("CheckpointLoaderSimple", ckpt_name="small.safetensors")[2:]
    cropped = vae.vae_encode_crop_pixels(source)
    assert cropped.shape[1:3] == (32, 48)
    assert metrics(host, source, cropped)[2]["background_mse"] == 0
    for other in (cropped[:, :24], cropped[:, :, 1:], source[:, 1:]):
        with raises(
            "source is 51x37", f"edited picture {other.shape[2]}x{other.shape[1]}", "one size", "resize"
        ):
            metrics(host, source, other)
    with raises("source is 48x32", "edited picture 51x37"):
        metrics(host, cropped, source)


def test_masks_follow_the_packs_rule(host, caplog):
    """Resized with a warning, refused in another shape, number or range."""
    source = plain(0.5, 2, (64, 64))
    found, _, numbers = metrics(host, source, plain(0.6, 2, (64, 64)), mask=left_half(128, 128))
    assert "resized" in caplog.text and numbers["background_mse"] == pytest.approx(0.01, rel=1e-4)
    with raises("mask is 64x32", "same shape"):
        metrics(host, source, source, mask=torch.zeros(1, 32, 64))
    with raises("mask has 3 pictures"):
        metrics(host, source, source, mask=torch.zeros(3, 64, 64))
    with raises("mask runs from 0 to 255"):
        metrics(host, source, source, mask=255 * left_half())


def test_a_mask_for_each_picture(host):
    """The first picture's change lies in its mask, the second's outside; the third has no background."""
    masks = torch.cat([left_half(), 1 - left_half(), torch.ones(1, 64, 64)])
    edited = torch.where(left_half()[..., None] > 0, torch.tensor(0.9), plain(0.5, 3, (64, 64)))
    found, _, numbers = metrics(host, plain(0.5, size=(64, 64)), edited, mask=masks)
    assert [p["background_changed_area"] for p in found["pictures"]] == [0, 100, None]
    assert numbers["background_changed_area"] == 50
    assert "picture 3 has no background" in found["not_measured"]["background_changed_area"]
    assert "changed_area" not in found["not_measured"]


def test_pixels_outside_that_differ_at_all_are_counted(host):
    """One pixel outside by less than a level counts; what lies in the mask does not."""
    source = plain(0.5, 2, (64, 64))
    edited = torch.where(left_half()[..., None] > 0, torch.tensor(0.9), source).clone()
    edited[1, 5, 60, 2] += 1e-4
    found, _, _ = metrics(host, source, edited, mask=left_half())
    assert [picture["background_differing"] for picture in found["pictures"]] == [0, 1]


def test_pictures_that_cannot_be_paired_are_refused(host):
    with raises("source has 2 pictures", "3 edited ones", "give one"):
        metrics(host, plain(0.5, 2), plain(0.5, 3))
    with raises("edited holds NaN"):
        metrics(host, plain(0.5), plain(math.nan))


def test_the_table_of_a_large_batch_stays_short(host):
    few, many = (metrics(host, plain(0.5), plain(0.6, n))[1].shape[1] for n in (40, 200))
    assert few - 24 <= many <= few + 24


def test_cancel_is_heard_between_two_pictures(host, monkeypatch):
    import comfy.model_management as management
    import comfy.utils

    seen = []

    def hook(value, total, preview, **more):
        """As the server's: it asks whether the user has pressed Cancel."""
        seen.append((value, total))
        management.throw_exception_if_processing_interrupted()
        management.interrupt_current_processing(value >= 1)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    with pytest.raises(management.InterruptProcessingException):
        metrics(host, plain(0.5), plain(0.6, 5))
    assert seen == [(1, 5)]  # newer hosts tell of the first and the last at once, of others now and then


# --- networks -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(host):
    """The host's CLIP of SD1, small, its projection among its weights."""
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer

    return flow.text_encoder(SD1Tokenizer, SD1ClipModel, clip_l=flow.CLIP)


@pytest.fixture(scope="module")
def vision_config(tmp_path_factory):
    def write(**changes) -> str:
        config = dict(flow.CLIP, image_size=28, patch_size=14, num_channels=3, hidden_act="quick_gelu")
        config |= (
            dict(model_type="clip_vision_model", projection_dim=flow.WIDTH, layer_norm_eps=1e-5) | changes
        )
        path = tmp_path_factory.mktemp("vision") / "config.json"
        path.write_text(json.dumps(config))
        return str(path)

    return write


@pytest.fixture(scope="module")
def clip_vision(host, vision_config):
    return small_vision(vision_config())


def small_vision(config: str):
    import comfy.clip_vision

    model = comfy.clip_vision.ClipVisionModel(config)
    model.load_sd(flow.seeded(model.model))
    return model


def embedded_by_transformers(clip, clip_vision, texts: list[str], pictures: torch.Tensor) -> tuple:
    """Both embeddings by transformers' own CLIP with the same weights."""
    from comfy.clip_vision import clip_preprocess
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    sizes = dict(flow.CLIP, projection_dim=flow.WIDTH, hidden_act="quick_gelu")
    text = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, eos_token_id=49407)).eval()
    text.load_state_dict(clip.cond_stage_model.clip_l.transformer.state_dict())
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, image_size=28, patch_size=14)).eval()
    vision.load_state_dict(clip_vision.model.state_dict())
    ids = torch.tensor([[token for token, _ in clip.tokenize(each)["l"][0]] for each in texts])
    with torch.no_grad():
        return text(ids).text_embeds, vision(clip_preprocess(pictures, 28)).image_embeds


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / a.norm() / b.norm())


def test_clip_figures_are_those_of_transformers_clip(host, clip, clip_vision):
    source, edited = torch.rand(2, 1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    mask = left_half()
    inputs = dict(clip=clip, clip_vision=clip_vision, source_prompt="a cat", target_prompt="a red (dog:1.3)")
    found, _, numbers = metrics(host, source, edited, mask=mask, **inputs)
    texts = [inputs["source_prompt"], inputs["target_prompt"]]
    pictures = torch.cat([source, edited, edited * mask[..., None]])
    (a, b), (x, y, inside) = embedded_by_transformers(clip, clip_vision, texts, pictures)
    assert numbers["clip_similarity"] == pytest.approx(100 * cosine(y, b), abs=1e-3)
    assert found["pictures"][0]["clip_similarity_edited"] == pytest.approx(100 * cosine(inside, b), abs=1e-3)
    assert numbers["clip_directional"] == pytest.approx(cosine(y - x, b - a), abs=1e-4)


def test_clip_figures_leave_the_clip_as_it_was(host, clip, clip_vision):
    def pooled():
        return host.call("CLIPTextEncode", clip=clip, text="a cat")[0][0][1]["pooled_output"]

    before = pooled()
    metrics(host, plain(0.5), plain(0.6), clip=clip, clip_vision=clip_vision, target_prompt="a dog")
    assert torch.equal(pooled(), before)


def test_flux_clip_is_projected_although_flux_itself_does_not(host, clip, clip_vision):
    """The same small CLIP-L stands in Flux's pair; its words must land in the same place."""
    pair = flow.flux(host).clip
    pair.cond_stage_model.clip_l.load_state_dict(clip.cond_stage_model.clip_l.state_dict())
    inputs = dict(clip_vision=clip_vision, target_prompt="a dog")
    alone, both = (metrics(host, plain(0.5), plain(0.6), clip=c, **inputs)[2] for c in (clip, pair))
    assert both["clip_similarity"] == pytest.approx(alone["clip_similarity"], abs=1e-4)


@pytest.mark.parametrize(
    ("wired", "inputs", "why"),
    [
        ((), {}, "connect clip and clip_vision"),
        (("clip",), {"target_prompt": "a dog"}, "connect clip and clip_vision"),
        (("clip", "clip_vision"), {"target_prompt": " "}, "target_prompt is empty"),
    ],
)
def test_without_its_inputs_clip_is_not_measured_and_the_reason_is_said(
    host, clip, clip_vision, wired, inputs, why
):
    both = {"clip": clip, "clip_vision": clip_vision}
    found, _, numbers = metrics(
        host, plain(0.5), plain(0.6), **{name: both[name] for name in wired}, **inputs
    )
    assert found["not_measured"]["clip_similarity"] == why
    assert math.isnan(numbers["clip_similarity"]) and found["mean"]["clip_similarity"] is None


def test_what_clip_cannot_say_without_mask_or_source_prompt(host, clip, clip_vision):
    found, _, numbers = metrics(
        host, plain(0.5), plain(0.6), clip=clip, clip_vision=clip_vision, target_prompt="a dog"
    )
    assert not math.isnan(numbers["clip_similarity"])
    assert found["not_measured"]["clip_similarity_edited"] == "connect a mask"
    assert "source_prompt is empty" in found["not_measured"]["clip_directional"]


def test_halves_that_do_not_belong_together_are_refused(host, studio, clip, clip_vision, vision_config):
    inputs = dict(source=plain(0.5), edited=plain(0.6), target_prompt="a dog")
    with raises("width 48", "text encoders: clip_l 64", "two halves of one CLIP"):
        metrics(host, clip=clip, clip_vision=small_vision(vision_config(projection_dim=48)), **inputs)
    with raises("width 64", "clip_l 768"):
        metrics(host, clip=studio.clip, clip_vision=clip_vision, **inputs)
    siglip = small_vision(vision_config(model_type="siglip_vision_model", projection_dim=flow.WIDTH))
    del siglip.model.visual_projection
    siglip.model.visual_projection = lambda x: (
        x
    )  # what the host gives it, whose own SigLIP has no projection_dim
    with raises("clip_vision is a CLIPVisionModelProjection", "without a projection", "CLIP-ViT-L"):
        metrics(host, clip=clip, clip_vision=siglip, **inputs)


@pytest.mark.parametrize("left", [0.0, 1e10, math.nan])
def test_a_checkpoints_clip_has_no_projection_and_is_refused(host, studio, vision_config, left):
    """Where the file has none, as those of SD1, the host leaves in it what lay in memory."""
    vision = small_vision(vision_config(projection_dim=768))
    weight = studio.clip.cond_stage_model.clip_l.transformer.text_projection.weight
    with torch.inference_mode():
        weight.fill_(left)
    with raises("clip_l has no text projection", "SD1", "CLIPLoader", "clip_l.safetensors"):
        metrics(host, plain(0.5), plain(0.6), clip=studio.clip, clip_vision=vision, target_prompt="a dog")


@pytest.fixture
def folder(host):
    """Puts weights into the host's model folders, and takes them out again."""
    put = []

    def write(kind: str, name: str, state: dict | bytes) -> None:
        path = host.base / "models" / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(state) if isinstance(state, bytes) else torch.save(state, path)
        put.append(path)

    yield write
    for path in put:
        path.unlink(missing_ok=True)


def test_without_weights_the_json_and_the_table_say_what_belongs_where(host):
    found, _, numbers = metrics(host, plain(0.5), plain(0.6))
    assert (
        found["not_measured"]["pie_lpips"]
        == "put squeezenet1_1-b8a52dc0.pth and squeeze.pth into models/lpips"
    )
    assert found["not_measured"]["structure_distance"] == "put dino_vitbase8_pretrain.pth into models/dino"
    assert math.isnan(numbers["structure_distance"])


def test_lpips_is_measured_where_its_weights_are(host, folder, squeezenet, heads):  # noqa: F811 (a fixture)
    folder("lpips", "squeezenet1_1-b8a52dc0.pth", squeezenet.state_dict())
    found, *_ = metrics(host, plain(0.5), plain(0.6))
    assert found["not_measured"]["pie_lpips"] == "put squeeze.pth into models/lpips"
    folder("lpips", "squeeze.pth", heads)
    source, edited = torch.rand(2, 2, 64, 64, 3, generator=torch.Generator().manual_seed(8))
    masks = torch.cat([left_half(), torch.ones(1, 64, 64)])
    found, *_ = metrics(host, source, edited, mask=masks)
    (whole, *_) = metrics(host, *(p[:1] * (1 - left_half())[..., None] for p in (source, edited)))
    first, second = (picture["pie_lpips"] for picture in found["pictures"])
    assert first == pytest.approx(whole["pictures"][0]["pie_lpips"], rel=1e-5) and first > 0.01
    assert second is None and "picture 2 has no background" in found["not_measured"]["pie_lpips"]


def test_structure_is_measured_where_dinos_weights_are(host, folder, vit):  # noqa: F811 (a fixture)
    folder("dino", "dino_vitbase8_pretrain.pth", as_dino(vit))
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(9))
    found, _, numbers = metrics(host, picture, torch.cat([picture, picture.flip(2)]))
    same, turned = (row["structure_distance"] for row in found["pictures"])
    assert same == 0 and turned > 1e-6
    assert numbers["structure_distance"] == pytest.approx(turned / 2)


def test_a_damaged_file_of_weights_is_named(host, folder, heads):  # noqa: F811 (a fixture)
    folder("dino", "dino_vitbase8_pretrain.pth", b"<html>not found</html>")
    with raises("dino_vitbase8_pretrain.pth cannot be read", "once more, or take it out"):
        metrics(host, plain(0.5), plain(0.6))
    folder("dino", "dino_vitbase8_pretrain.pth", heads)
    with raises("not the weights of DINO ViT-B/8"):
        metrics(host, plain(0.5), plain(0.6))


# --- the verdict ----------------------------------------------------------------------------------

GOOD = {"background_psnr": 50.0, "changed_area": 5.0}
POOR = {"background_psnr": 13.0, "changed_area": 5.0}
BAD = {"background_psnr": 9.0, "changed_area": 5.0}


@pytest.mark.parametrize(("figures", "expected"), [(GOOD, "pass"), (POOR, "review"), (BAD, "reject")])
def test_the_verdict_its_reasons_and_whether_it_passed(host, figures, expected):
    _, found, reasons, passed = verdict(host, figures)
    assert (found, passed) == (expected, expected == "pass")
    assert (
        reasons
        == {
            "pass": "every limit of free is kept",
            "review": "review: background PSNR is 13.00 dB, must be at least 15",
            "reject": "reject: background PSNR is 9.00 dB, must be at least 11",
        }[expected]
    )


def test_the_alert_is_in_the_log_as_loud_as_it_should_be(host, caplog):
    caplog.set_level(logging.INFO, "eta-inversion")
    for figures in (GOOD, POOR, BAD):
        verdict(host, figures)
    assert [(r.levelname, r.message.split("\n")[0]) for r in caplog.records] == [
        ("INFO", "pass by the policy free"),
        ("WARNING", "review by the policy free"),
        ("WARNING", "reject by the policy free"),
    ]


def test_only_the_pictures_that_are_good_enough_go_on(host):
    images = torch.stack([torch.full((8, 8, 3), value) for value in (0.1, 0.2, 0.3)])
    batch = {"pictures": [BAD, GOOD, POOR]}
    for level, kept in (("pass", [1]), ("pass and review", [1, 2]), ("everything", [0, 1, 2])):
        out, found, reasons, passed = verdict(host, batch, let_through=level, image=images)
        assert torch.equal(out, images[kept])
        assert found == "reject" and not passed
    assert reasons.splitlines() == [
        "picture 1, reject: background PSNR is 9.00 dB, must be at least 11",
        "picture 3, review: background PSNR is 13.00 dB, must be at least 15",
    ]


def test_a_large_batch_is_told_of_in_a_few_lines(host, caplog):
    """Every reason is in the output. The node, the log and the page's message stay short."""
    _, _, reasons, _ = verdict(host, {"pictures": [BAD] * 50}, let_through="pass")
    assert len(reasons.splitlines()) == 50
    (record,) = caplog.records
    assert len(record.message.splitlines()) < 15 and record.message.endswith("and 40 more")


def test_a_policy_of_ones_own(host):
    own = '{"pie_ssim": {"pass": {"min": 0.9}}}'
    assert verdict(host, {"pie_ssim": 0.8}, "custom", custom_policy=own)[1] == "reject"
    assert verdict(host, {"pie_ssim": 0.95}, "custom", custom_policy=own)[1] == "pass"
    assert verdict(host, GOOD, "free", custom_policy="not read")[1] == "pass"


def test_what_the_verdict_cannot_read_is_named(host):
    with raises("policy is no JSON"):
        verdict(host, GOOD, "custom", custom_policy="")
    with raises("limits sharpness, which is no metric"):
        verdict(host, GOOD, "custom", custom_policy='{"sharpness": {"pass": {"min": 3}}}')
    with raises("pie_mse, which picture 1 lacks"):
        verdict(host, GOOD, "custom", custom_policy='{"pie_mse": {"pass": {"max": 3}}}')
    with raises("figures are no JSON", "EtaMetrics"):
        verdict(host, "a cat")
    with raises("image has 2 pictures, the figures 1"):
        verdict(host, GOOD, image=plain(0.5, 2))


# --- whole graphs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(host) -> None:
    """A grey picture, two edits of its left half (one spills over), the mask; all in steps of 1/255."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    source = np.full((64, 64, 3), 128, np.uint8)
    good = source.copy()
    good[:, :32] = 200
    spilled = good + 20
    for name, array in {"source": source, "good": good, "spilled": spilled, "mask": mask}.items():
        Image.fromarray(array).convert("RGB").save(host.base / "input" / f"evidence_{name}.png")


def graph(edited: str, policy: str, let_through: str) -> dict:
    def node(kind: str, **inputs) -> dict:
        return {"class_type": kind, "inputs": inputs}

    wired = {"source": ["source", 0], "edited": ["edited", 0], "mask": ["mask", 0]}
    return {
        "source": node("LoadImage", image="evidence_source.png"),
        "edited": node("LoadImage", image=f"evidence_{edited}.png"),
        "mask": node("LoadImageMask", image="evidence_mask.png", channel="red"),
        "measure": node("EtaMetrics", **wired, changed_above=5.0),
        "see": node("PreviewImage", images=["measure", 1]),
        "mse": node("PreviewAny", source=["measure", 3]),
        "judge": node(
            "EtaVerdict", figures=["measure", 0], policy=policy, let_through=let_through, image=["edited", 0]
        ),
        "passed": node("PreviewAny", source=["judge", 3]),
        "save": node("SaveImage", images=["judge", 0], filename_prefix=f"evidence/{edited}"),
    }


def told_to_the_page(host) -> list[dict]:
    """What the server has for the page since the last call."""
    found = []
    host.server.loop.run_until_complete(asyncio.sleep(0))
    while not host.server.messages.empty():
        found.append(host.server.messages.get_nowait())
    return found


def test_a_good_edit_is_measured_judged_and_saved(host, files):
    outcome = host.run(graph("good", "catalogue-strict", "pass"))
    assert outcome.success, outcome.error
    assert outcome.outputs["mse"]["text"] == ["0.0"]
    assert outcome.outputs["passed"]["text"] == ["True"]
    assert outcome.outputs["judge"]["text"][0].startswith("pass by the policy catalogue-strict")
    assert len(outcome.outputs["save"]["images"]) == 1
    (table,) = outcome.outputs["see"]["images"]
    with Image.open(host.base / "temp" / table["filename"]) as picture:
        assert picture.size[0] > 500


def test_an_edit_that_spills_over_is_held_back_and_the_page_is_told(host, files):
    told_to_the_page(host)
    outcome = host.run(graph("spilled", "catalogue-strict", "pass and review"), client="a page")
    host.server.client_id = None
    assert outcome.success, outcome.error
    assert float(outcome.outputs["mse"]["text"][0]) == pytest.approx((20 / 255) ** 2, rel=1e-6)
    assert outcome.outputs["passed"]["text"] == ["False"]
    assert "save" not in outcome.outputs and not list((host.base / "output/evidence").glob("spilled*"))
    events = told_to_the_page(host)
    (blocked,) = [data for event, data, _ in events if event == "execution_error"]
    assert blocked["node_id"] == "save"
    assert "held back by EtaVerdict: reject by the policy catalogue-strict" in blocked["exception_message"]
    (alert,) = [data for _, data, _ in events if isinstance(data, bytes) and b"reject by the policy" in data]
    assert alert[4:9] == b"judge"


def test_weights_put_into_their_folder_are_used_by_the_next_run(host, files, folder, squeezenet, heads):  # noqa: F811 (a fixture)
    executor, wanted = host.executor(), graph("good", "free", "pass")
    wanted["figures"] = {"class_type": "PreviewAny", "inputs": {"source": ["measure", 0]}}

    def lpips() -> float | None:
        (text,) = host.run_on(executor, copy.deepcopy(wanted)).outputs["figures"]["text"]
        return json.loads(text)["pictures"][0]["pie_lpips"]

    assert lpips() is None
    folder("lpips", "squeezenet1_1-b8a52dc0.pth", squeezenet.state_dict())
    folder("lpips", "squeeze.pth", heads)
    assert lpips() == 0


def test_everything_goes_through_where_the_user_wants_it(host, files):
    outcome = host.run(graph("spilled", "catalogue-strict", "everything"))
    assert outcome.success and len(outcome.outputs["save"]["images"]) == 1


def test_an_image_output_without_an_image_says_what_to_connect(host, files):
    broken = graph("good", "free", "pass")
    del broken["judge"]["inputs"]["image"]
    told_to_the_page(host)
    outcome = host.run(broken)
    assert outcome.success and "save" not in outcome.outputs
    assert [d["exception_message"] for e, d, _ in told_to_the_page(host) if e == "execution_error"] == [
        "Execution Blocked: connect the picture to EtaVerdict's image"
    ]


def test_variants_of_several_pictures_are_measured_against_their_own(host):
    sources = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    masks = torch.zeros(2, 64, 64)
    masks[0, :32], masks[1, :, :32] = 1, 1
    variants = sources.repeat(2, 1, 1, 1)
    variants[3] = 1 - variants[3]  # the second variant of the second picture
    figures = json.loads(host.call("EtaMetrics", source=sources, edited=variants, mask=masks)[0])["pictures"]
    assert [picture["background_mse"] == 0 for picture in figures] == [True, True, True, False]
    alone = host.call("EtaMetrics", source=sources[1:], edited=variants[3:], mask=masks[1:])[0]
    assert figures[3] == json.loads(alone)["pictures"][0]
