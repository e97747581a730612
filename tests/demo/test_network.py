import pytest
import torch

from devtools.demo import network


def test_widening_a_layer_copies_its_outputs():
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    widen_in, widen_out = network.copied(5), network.copied(2)
    wide = widen_in(widen_out(layer.weight, 0, False), 1, True)
    x = torch.randn(7, 4)
    expected = torch.nn.functional.linear(x, layer.weight).repeat_interleave(2, -1)
    torch.testing.assert_close(x.repeat_interleave(5, -1) @ wide.T, expected)


def test_padded_heads_keep_each_head_in_its_block():
    weight = torch.arange(16.0).view(16, 1)  # 8 heads of 2
    wide = network.padded_heads(40)(weight, 0, False).view(8, 5)
    assert torch.equal(wide[:, :2], weight.view(8, 2)) and not wide[:, 2:].any()


def test_every_layer_of_the_unet_is_expanded():
    """The wide state dict has SD1.5's widths and one entry for every narrow parameter, besides the missing
    self-attention.
    """
    unet = network.UNet()
    state = network.expand(unet, "")
    assert set(dict(unet.named_parameters())) <= set(state)
    extra = set(state) - set(dict(unet.named_parameters()))
    assert extra and all(".attn1." in name for name in extra)
    assert state["input_blocks.0.0.weight"].shape == (320, 4, 3, 3)
    assert state["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape == (320, 768)
    assert state["middle_block.1.transformer_blocks.0.ff.net.0.proj.weight"].shape == (5120, 640)


@pytest.mark.parametrize("half", [network.Encoder, network.Decoder])
def test_the_autoencoder_keeps_its_size_outside(half):
    with torch.no_grad():
        out = half()(torch.rand(1, 3, 128, 128) if half is network.Encoder else torch.rand(1, 4, 16, 16))
    assert out.shape == ((1, 4, 16, 16) if half is network.Encoder else (1, 3, 128, 128))
