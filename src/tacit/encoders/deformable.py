"""Self-attention along one axis to a few learned, continuous positions instead of to all."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.errors import UsageError


def sample_line(x: Tensor, position: Tensor, *, align_corners: bool = True) -> Tensor:
    """Values between the elements of sequences, by linear interpolation; zero outside.

    x: (B, C, n) floating. position: (B, m) of the same type, from -1 to 1.
    align_corners: whether -1 and 1 are the middles of the first and the last element, so that n evenly spaced
        positions give x back; else they are its outer edges, where an end counts half.

    Returns (B, C, m). For x = 0 .. 7 at -1, -1/2, 0, 1/2, 1: 0, 1.75, 3.5, 5.25, 7, and with
    align_corners=False 0, 1.5, 3.5, 5.5, 3.5.
    """
    grid = torch.stack([position, torch.zeros_like(position)], -1)[:, None]  # (B, 1, m, 2): along, across
    return F.grid_sample(
        x[:, :, None], grid, mode="bilinear", padding_mode="zeros", align_corners=align_corners
    )[:, :, 0]


class PositionBias(nn.Module):
    """What attention adds for a distance: an MLP of sign(r) log(1 + |r|); two hidden ReLU layers.

    Distances are continuous, so that keys may lie anywhere (continuous relative position bias, Swin V2:
    Liu et al., 2022, arXiv 2111.09883).
    """

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Positions (n,) of queries and (B, m) of keys, both from -1 to 1 -> (B, outputs, n, m)."""
        distance = query[None, :, None] - key[:, None]
        return self.layers((distance.sign() * distance.abs().log1p())[..., None]).movedim(-1, 1)


class DeformableAttention1d(nn.Module):
    """Self-attention of n positions to m = ceil(n / downsample) keys that lie where the queries ask for.

    After Xia et al., "Vision Transformer with Deformable Attention" (2022, arXiv 2201.00520), along one axis
    as in the released code of Nguyen et al. (2023, arXiv 2212.01893), which uses the defaults. x is (B, c,
    n):

        q       = grouped 1x1 convolution of x, c -> heads x dim_head
        offset  = scale tanh(1x1 conv(GELU(depthwise conv of q)))     per group, one for every key
        pos_j   = j + offset_j, brought from 0 .. m - 1 to -1 .. 1
        kv      = the group's channels of x at pos_j, linear interpolation, zero outside
        k, v    = grouped 1x1 convolutions of kv
        bias_ij = MLP(sign(r) log(1 + |r|)), r = pos_i - pos_j, both from -1 to 1
        out     = 1x1 convolution of softmax(q k^T / sqrt(dim_head) + bias) v

    The released code pins a sampler that gives every key the value at the middle of the sequence; this is the
    correct one, with aligned corners (`sample_line`; our choice, so that without offsets and downsampling kv
    is x). Lengths that downsample does not divide are padded with zeros at the end for the offsets'
    convolution only, so that no position goes unseen and the keys still span the whole sequence (our choice).
    A single key starts at the middle.

    Args:
        channels: c, a multiple of groups.
        heads: of attention, a multiple of groups.
        dim_head: channels of a head.
        downsample: positions per key, r.
        offset_scale: the furthest that a key moves, in distances between neighbouring keys.
        offset_kernel: of the depthwise convolution, at least downsample.
        groups: of channels, each with offsets of its own.
        deformable: false for plain attention to all n positions, with the same projections and position bias,
            for comparison (our choice of what stays the same).

    Raises:
        UsageError: numbers that do not divide each other.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        dim_head: int = 64,
        downsample: int = 4,
        offset_scale: float = 2.0,
        offset_kernel: int = 6,
        groups: int = 8,
        deformable: bool = True,
    ) -> None:
        super().__init__()
        if min(channels, heads, dim_head, downsample, groups) < 1 or channels % groups or heads % groups:
            raise UsageError(
                f"deformable attention needs channels ({channels}) and heads ({heads}) to be multiples of "
                f"its groups ({groups}): choose another number of groups"
            )
        if offset_kernel < downsample:
            raise UsageError(
                f"an offset_kernel of {offset_kernel} leaves positions out at a downsample of {downsample}: "
                f"choose {downsample} or more"
            )
        inner = heads * dim_head
        self.heads, self.groups, self.downsample = heads, groups, downsample
        self.offset_scale, self.kernel, self.deformable = offset_scale, offset_kernel, deformable
        self.to_q = nn.Conv1d(channels, inner, 1, groups=groups, bias=False)
        self.to_k = nn.Conv1d(channels, inner, 1, groups=groups, bias=False)
        self.to_v = nn.Conv1d(channels, inner, 1, groups=groups, bias=False)
        self.to_out = nn.Conv1d(inner, channels, 1)
        self.bias = PositionBias(max(1, channels // 4), heads // groups)
        if deformable:
            width = inner // groups
            self.to_offsets = nn.Sequential(
                nn.Conv1d(width, width, offset_kernel, stride=downsample, groups=width),
                nn.GELU(),
                nn.Conv1d(width, 1, 1, bias=False),
            )

    def offsets(self, q: Tensor) -> Tensor:
        """(B, heads x dim_head, n) -> (B, groups, m), in distances between neighbouring keys."""
        room = self.kernel - self.downsample
        ragged = -q.shape[-1] % self.downsample
        padded = F.pad(
            q.unflatten(1, (self.groups, -1)).flatten(0, 1), (room // 2, room - room // 2 + ragged)
        )
        raw = self.to_offsets(padded)[:, 0]
        return self.offset_scale * raw.to(q.dtype).tanh().unflatten(0, (-1, self.groups))

    def positions(self, q: Tensor) -> Tensor:
        """Where the keys lie, (B, groups, m), from -1 to 1 within the sequence and beyond it outside."""
        if not self.deformable:
            return _evenly(q.shape[-1], q).expand(len(q), self.groups, -1)
        offsets = self.offsets(q)
        count = offsets.shape[-1]
        return _evenly(count, q) + offsets * (2 / (count - 1) if count > 1 else 1.0)

    def sampled(self, x: Tensor, position: Tensor) -> Tensor:
        """kv: (B, c, n) at (B, groups, m) -> (B, c, m)."""
        if not self.deformable:
            return x
        grouped = x.unflatten(1, (self.groups, -1)).flatten(0, 1)
        return sample_line(grouped, position.flatten(0, 1)).unflatten(0, (-1, self.groups)).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c, n) -> (B, c, n)."""
        q = self.to_q(x)
        position = self.positions(q.to(x.dtype))  # autocast's short types have too few bits for a place
        kv = self.sampled(x, position)
        bias = self.bias(_evenly(x.shape[-1], x), position.flatten(0, 1))
        q, k, v = (
            part.unflatten(1, (self.heads, -1)).transpose(2, 3) for part in (q, self.to_k(kv), self.to_v(kv))
        )
        bias = bias.unflatten(0, (-1, self.groups)).flatten(1, 2)  # (B, heads, n, m)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.to_out(out.transpose(2, 3).flatten(1, 2))


def _evenly(count: int, like: Tensor) -> Tensor:
    """(count,) from -1 to 1; a single one in the middle."""
    return (
        torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype) if count > 1 else like.new_zeros(1)
    )
