"""DANet's head, and mistakes in it."""

from functools import partial

from tests.benchmarks.foreign.channel import cam, turned
from tests.benchmarks.foreign.pieces import F, constant, mistake, norm, pointwise, same, torch, under
from tests.benchmarks.foreign.position import pam, products


def conv_norm_act(x, p, name, training=False, *, rate=1, index=0, conv=same, bn=norm, act=torch.relu):
    return act(bn(conv(x, p[f"{name}.{index}.weight"], rate), p, f"{name}.{index + 1}", training))


def dropped(t, mask, rate):
    return t * mask[:, :, None, None] / (1 - rate)


def resized(y, size, align_corners=True):
    return y if size is None else F.interpolate(y, size, mode="bilinear", align_corners=align_corners)


def danet(
    p,
    x,
    *masks,
    dropout=0.1,
    training=False,
    size=None,
    layer=conv_norm_act,
    position=pam,
    channel=cam,
    fuse=torch.add,
    score=pointwise,
    drop=dropped,
    resize=resized,
):
    u = layer(position(under(p, "sa."), layer(x, p, "conv5a", training)), p, "conv51", training)
    v = layer(channel(under(p, "sc."), layer(x, p, "conv5c", training)), p, "conv52", training)
    features, (drop6, drop7, drop8) = (fuse(u, v), u, v), masks or [None] * 3
    if masks:
        features = [drop(t, m, dropout) for t, m in zip(features, (drop8, drop6, drop7), strict=True)]
    names = ("conv8.1", "conv6.1", "conv7.1")
    return tuple(resize(score(t, p, name), size) for t, name in zip(features, names, strict=True))


@mistake("danet", "max", "softmin", "dissimilar", "code")
def danet_channel_attention_of_the_released_code(p, x):
    """Channel attention: softmax of the maximum less the affinity, where the paper's form is asked for."""
    return danet(p, x, channel=partial(cam, weigh=turned))


@mistake("danet", "scale", "square root")
def danet_position_attention_scaled(p, x):
    """Position attention: logits divided by √D."""

    def scaled(q, k):
        return products(q, k) / max(q.shape[1], 2) ** 0.5

    return danet(p, x, position=partial(pam, logits=scaled))


@mistake("danet", "crossed", "swapped", "exchanged", "branches")
def danet_second_layers_exchanged(p, x):
    """Branches: the layer behind the position attention is that of the channel attention, and the other way round."""
    exchanged = {"conv51": "conv52", "conv52": "conv51"}
    return danet(p, x, layer=lambda x, p, name, *of: conv_norm_act(x, p, exchanged.get(name, name), *of))


@mistake("danet", "shared", "same layer", "conv5a")
def danet_one_first_layer_for_both(p, x):
    """Branches: both begin with the first layer of the position branch."""
    return danet(p, x, layer=lambda x, p, name, *of: conv_norm_act(x, p, name.replace("5c", "5a"), *of))


@mistake("danet", "average", "halved", "mean of")
def danet_branches_averaged(p, x):
    """Fusion: the mean of the two branches for their sum."""
    return danet(p, x, fuse=lambda u, v: (u + v) / 2)


@mistake("danet", "product", "multiplied")
def danet_branches_multiplied(p, x):
    """Fusion: the product of the two branches."""
    return danet(p, x, fuse=torch.mul)


@mistake("danet", "order", "outputs", "swapped", "exchanged")
def danet_outputs_in_another_order(p, x):
    """Outputs: the two branches' scores are exchanged."""
    fused, position, channel = danet(p, x)
    return fused, channel, position


@mistake("danet", "fused", "sum of the scores", "conv8")
def danet_fused_scores_are_the_sum_of_the_others(p, x):
    """Fusion: the two branches' scores are added; the third classifier is not used."""
    fused, position, channel = danet(p, x)
    return position + channel + 0 * fused, position, channel


@mistake("danet", "detach", "fused", "constant", "conv8 / (2') conv2d: gradient: dx dropped")
def danet_fusion_detached(p, x):
    """Fusion's backward: the fused scores send no gradient back to the branches."""
    return danet(p, x, fuse=lambda u, v: constant(u + v))


@mistake("danet", "relu", "activation")
def danet_without_relu_behind_the_attention(p, x):
    """Second layers: no ReLU."""

    def layer(x, p, name, *of):
        return conv_norm_act(x, p, name, *of, act=(lambda n: n) if name in ("conv51", "conv52") else torch.relu)

    return danet(p, x, layer=layer)


@mistake("danet", "order", "norm", "relu")
def danet_norm_behind_the_relu(p, x):
    """Layers: batch norm stands behind the ReLU."""
    layer = partial(conv_norm_act, bn=lambda z, p, name, training: norm(torch.relu(z), p, name), act=lambda n: n)
    return danet(p, x, layer=layer)


@mistake("danet", "replicate", "edge", "padding")
def danet_replicate_padding(p, x):
    """Layers: the 3×3 convolutions repeat the edges beyond them."""
    return danet(p, x, layer=partial(conv_norm_act, conv=lambda x, w, r: F.conv2d(F.pad(x, (1,) * 4, "replicate"), w)))


@mistake("danet", "flip", "reversed", "true convolution", "rotated")
def danet_kernels_flipped(p, x):
    """Layers: the 3×3 kernels are rotated by 180°."""
    return danet(p, x, layer=partial(conv_norm_act, conv=lambda x, w, r: same(x, w.flip(2, 3))))


@mistake("danet", "dilat", "rate")
def danet_dilated_kernels(p, x):
    """Layers: the 3×3 kernels have dilation 2, as the backbone's have."""
    return danet(p, x, layer=partial(conv_norm_act, rate=2))


@mistake("danet", "bias", "conv7.1.bias", "conv8.1.bias")
def danet_classifiers_without_bias(p, x):
    """Classifiers: their biases are left out."""

    def score(t, p, name):
        return F.conv2d(t, p[f"{name}.weight"]) + 0 * p[f"{name}.bias"].view(-1, 1, 1)

    return danet(p, x, score=score)


@mistake("danet", "gamma", "residual")
def danet_attention_without_residual(p, x):
    """Position attention: γ o alone, without the map."""
    return danet(p, x, position=partial(pam, add=lambda x, o, gamma: gamma * o))


SIZED = {"in_channels": 16, "classes": 5, "size": (9, 8)}
sized = partial(danet, size=(9, 8))


@mistake("danet", "align", "corners", **SIZED)
def danet_corners_not_aligned(p, x):
    """Resizing: `align_corners=False`."""
    return sized(p, x, resize=partial(resized, align_corners=False))


@mistake("danet", "nearest", "bilinear", "resiz", **SIZED)
def danet_nearest_neighbour(p, x):
    """Resizing: the nearest neighbour."""
    return sized(p, x, resize=F.interpolate)


@mistake("danet", "before", "order", "resiz", **SIZED)
def danet_resized_as_a_square(p, x):
    """Resizing: by the factor of the height along both axes, then cut to the width or padded with zeros."""

    def resize(y, size):
        y = F.interpolate(y, (size[0], y.shape[3] * size[0] // y.shape[2]), mode="bilinear", align_corners=True)
        return F.pad(y, (0, size[1] - y.shape[3]))

    return sized(p, x, resize=resize)


TRAINED = {"in_channels": 16, "classes": 5, "dropout": 0.25, "training": True}
trained = partial(danet, training=True, dropout=0.25)


@mistake("danet", "drop", "scale", "1 - ", **TRAINED)
def danet_dropout_not_scaled(p, x, *masks):
    """Dropout: what is kept is not scaled up."""
    return trained(p, x, *masks, drop=lambda t, mask, rate: dropped(t, mask, 0))


@mistake("danet", "drop", "rate", "scale", **TRAINED)
def danet_dropout_scaled_by_the_rate(p, x, *masks):
    """Dropout: what is kept is divided by the rate itself, the keep probability's name having been misread."""
    return trained(p, x, *masks, drop=lambda t, mask, rate: dropped(t, mask, 1 - rate))


@mistake("danet", "mask", "inverted", "drop", "kept", **TRAINED)
def danet_dropout_mask_inverted(p, x, *masks):
    """Dropout: channels are dropped where the mask is 1."""
    return trained(p, x, *masks, drop=lambda t, mask, rate: dropped(t, 1 - mask, rate))


@mistake("danet", "drop", "mask", "backward", **TRAINED)
def danet_dropout_forgotten_in_backward(p, x, *masks):
    """Dropout's backward: the mask is not applied to the gradient."""
    return trained(p, x, *masks, drop=lambda t, mask, rate: t + constant(dropped(t, mask, rate) - t))


@mistake("danet", "mask", "same", "drop", **TRAINED)
def danet_one_mask_for_all(p, x, drop6, *_):
    """Dropout: all three classifiers drop the channels of the first mask."""
    return trained(p, x, drop6, drop6, drop6)


@mistake("danet", "running", "inference statistics", "statistics", **TRAINED)
def danet_running_statistics_in_training(p, x, *masks):
    """Batch norm in training: the running statistics are used, and not changed."""
    return danet(p, x, *masks, dropout=0.25)


@mistake("danet", "eps", "epsilon", **TRAINED)
def danet_other_epsilon(p, x, *masks):
    """Batch norm: ε = 1e-3."""
    return trained(p, x, *masks, layer=partial(conv_norm_act, bn=partial(norm, eps=1e-3)))
