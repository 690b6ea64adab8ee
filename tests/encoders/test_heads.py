from torch import nn

from tacit.encoders.heads import mlp


def kinds(head):
    return [type(layer).__name__ for layer in head]


def test_simclr_projector():
    head = mlp([512, 512, 128])
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None
    assert head[3].bias is not None
    assert (head[0].in_features, head[3].out_features) == (512, 128)


def test_moco_projector_has_no_norm():
    head = mlp([8, 8, 4], norm=False)
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))


def test_nnclr_projector_ends_in_norm():
    head = mlp([8, 16, 16, 4], last_norm=True)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert head[6].bias is None
