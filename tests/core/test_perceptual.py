"""Against independent implementations of the host: SqueezeNet of torchvision, ViT of transformers."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import squeezenet1_1
from torchvision.transforms.functional import normalize, resize
from transformers import ViTConfig, ViTModel

from eta_core.evidence import perceptual


def pictures(batch: int = 2, size: tuple[int, int] = (70, 90)) -> torch.Tensor:
    coarse = torch.rand(batch, 3, 6, 6, generator=torch.Generator().manual_seed(4))
    return F.interpolate(coarse, size, mode="bicubic").movedim(1, -1).clamp(0, 1)


@pytest.fixture(scope="module")
def squeezenet():
    torch.manual_seed(0)
    return squeezenet1_1(weights=None).eval()


@pytest.fixture(scope="module")
def heads():
    channels = (64, 128, 256, 384, 384, 512, 512)
    generator = torch.Generator().manual_seed(1)
    return {
        f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for i, c in enumerate(channels)
    }


@torch.no_grad()
def test_lpips_is_its_formula_on_torchvisions_network(squeezenet, heads):
    a, b = pictures(2), pictures(4)[2:]
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    features = [((2 * p - 1 - shift) / scale).movedim(-1, 1) for p in (a, b)]
    expected, tapped = torch.zeros(2), []
    for layer in squeezenet.features:
        features = [layer(x) for x in features]
        tapped.append([x / x.norm(dim=1, keepdim=True) for x in features])
    for i, tap in enumerate((1, 4, 7, 9, 10, 11, 12)):
        x, y = tapped[tap]
        expected += ((x - y) ** 2 * heads[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    assert (expected > 0.01).all()
    assert perceptual.lpips(a, b, squeezenet.state_dict(), heads).tolist() == pytest.approx(
        expected.tolist(), rel=1e-5
    )
    assert perceptual.lpips(a, a, squeezenet.state_dict(), heads).tolist() == [0, 0]


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    config = ViTConfig(patch_size=8, image_size=224, layer_norm_eps=1e-6)
    model = ViTModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.05)
    return model


BLOCKS = ("layers", "encoder.layer")
PARTS = {  # DINO's names -> those of transformers 5, and of 4
    "norm1": ("layernorm_before", "layernorm_before"),
    "norm2": ("layernorm_after", "layernorm_after"),
    "attn.proj": ("attention.o_proj", "attention.output.dense"),
    "mlp.fc1": ("mlp.fc1", "intermediate.dense"),
    "mlp.fc2": ("mlp.fc2", "output.dense"),
    "query": ("attention.q_proj", "attention.attention.query"),
    "key": ("attention.k_proj", "attention.attention.key"),
    "value": ("attention.v_proj", "attention.attention.value"),
}


def theirs(vit, part: str, i: int = 0) -> str:
    """The name of a part in block i of the ViT of this transformers."""
    version = 0 if hasattr(vit, "layers") else 1
    return f"{BLOCKS[version]}.{i}.{PARTS[part][version]}"


def as_dino(vit) -> dict[str, torch.Tensor]:
    """The weights of transformers' ViT by the names of DINO's own file."""
    state = vit.state_dict()
    ours = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
    }
    for kind in ("weight", "bias"):
        ours[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        for i in range(12):
            for part in ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2"):
                ours[f"blocks.{i}.{part}.{kind}"] = state[f"{theirs(vit, part, i)}.{kind}"]
            qkv = [state[f"{theirs(vit, part, i)}.{kind}"] for part in ("query", "key", "value")]
            ours[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(qkv)
    return ours


@torch.no_grad()
def test_dino_keys_are_those_of_transformers_vit(vit):
    picture, kept = pictures(1), []
    last = vit.get_submodule(theirs(vit, "key", 11))
    hook = last.register_forward_hook(lambda *call: kept.append(call[-1]))
    small = resize(picture.movedim(-1, 1), [224, 224], antialias=True)
    vit(normalize(small, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    hook.remove()
    keys = perceptual.dino_keys(picture, as_dino(vit))
    assert keys.shape == (1, 785, 768)
    assert torch.allclose(keys, kept[0], atol=1e-5)


def test_other_weights_are_refused_by_name(squeezenet, heads):
    with pytest.raises(ValueError, match="DINO ViT-B/8.*patch_embed"):
        perceptual.dino_keys(pictures(1), squeezenet.state_dict())
    with pytest.raises(ValueError, match="LPIPS with SqueezeNet.*lin0"):
        perceptual.lpips(pictures(1), pictures(1), squeezenet.state_dict(), {})
    with pytest.raises(ValueError, match="LPIPS with SqueezeNet"):
        swapped = heads | {"lin0.model.1.weight": heads["lin6.model.1.weight"]}
        perceptual.lpips(pictures(1), pictures(1), squeezenet.state_dict(), swapped)


def test_similarity_is_a_hundred_times_the_cosine():
    images, text = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    assert perceptual.clip_similarity(images, text).tolist() == pytest.approx([100, 100 / 2**0.5])


def test_directional_similarity_compares_the_two_changes():
    source, text = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 5.0]])
    edited = torch.tensor([[1.0, 3.0], [1.0, 0.0], [4.0, 1.0], [1.0, 1.0]])
    found = perceptual.clip_directional(source, edited, text, text + torch.tensor([[0.0, 2.0]]))
    assert found[:3].tolist() == pytest.approx([1, -1, 0])
    assert found[3].isnan()
