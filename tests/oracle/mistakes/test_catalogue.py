from npattn.oracle.mistakes.catalogue import MISTAKES
from tests.naming import for_each

REPORTED = {
    "softmax over the wrong axis": (
        "softmax: over the wrong axis",
        "dot_product_attention: softmax over the wrong axis",
        "masked_attention: softmax over the wrong axis",
    ),
    "scale missing": ("dot_product_attention: missing scale", "masked_attention: missing scale"),
    "scale twice": ("dot_product_attention: scale twice", "masked_attention: scale twice"),
    "scale by the padded head dim": (
        "dot_product_attention: scaled by the padded head dim",
        "masked_attention: scaled by the padded head dim",
    ),
    "queries and keys swapped": (
        "dot_product_attention: queries and keys swapped",
        "masked_attention: queries and keys swapped",
    ),
    "map transposed": (
        "dot_product_attention: map transposed",
        "masked_attention: map transposed",
        "matmul: transposed map",
    ),
    "heads interleaved": (
        "split: heads interleaved",
        "dot_product_attention: heads interleaved, where they are cut and where they are brought together",
        "repeat: heads in turn",
    ),
    "dk and dv of a group not summed": (
        "repeat: gradient: last head of a group alone",
        "repeat: gradient: first head of a group alone",
        "repeat: gradient: averaged over a group",
    ),
    "dk and dv added up over the wrong heads": ("repeat: gradient: added up over heads in turn, not over groups",),
    "causal mask off by one": (
        "masked_attention: mask one key late",
        "masked_attention: mask one key early",
        "masked_attention: mask one key early, NaN where none is left, in the weights too",
        "masked_attention: mask one key early, NaN where none is left, and in all that its δ reaches",
    ),
    "causal mask aligned the other way": (
        "masked_attention: wrong alignment",
        "masked_attention: gradient: wrong alignment where weights are made again",
    ),
    "mask after softmax": ("masked_attention: mask after softmax",),
    "padding keys read": ("masked_attention: padding read", "masked_attention: one key of padding read"),
    "last block unmasked": (
        "masked_attention: last block of keys unmasked",
        "masked_attention: last block of keys seen by all",
        "masked_attention: blocks on the diagonal unmasked",
        "masked_attention: padding read to the end of its block of 16",
        "dot_product_attention: padded keys counted",
    ),
    "dead rows NaN": (
        "masked_attention: NaN where no key is seen",
        "masked_attention: NaN where no key is seen, in the weights too",
        "masked_attention: NaN where no key is seen, and in all that it reaches",
    ),
    "δ left out": (
        "masked_attention: gradient: δ left out",
        "dot_product_attention: gradient: sum left out",
        "softmax: gradient: sum left out",
    ),
    "softcap's derivative left out": ("masked_attention: gradient: softcap's derivative left out",),
    "logsumexp in base 2": (
        "masked_attention: logsumexp to base 2",
        "dot_product_attention: gradient: logsumexp to base 2",
    ),
    "base 2 in backward alone": (
        "masked_attention: gradient: log₂ e left out of the logits where weights are made again",
        "dot_product_attention: gradient: log₂ e left out of the logits where weights are made again",
    ),
    "biased for unbiased variance": ("batch_norm: unbiased variance", "batch_norm: biased variance remembered"),
    "momentum the other way round": ("batch_norm: momentum the other way round",),
    "epsilon outside the root": ("batch_norm: epsilon beside the root", "l2_normalize: epsilon inside the root"),
    "epsilon of another size": ("batch_norm: epsilon 1e-3", "l2_normalize: epsilon 1e-3"),
    "training for inference statistics": (
        "batch_norm: running statistics in training",
        "batch_norm: statistics of the batch in inference",
    ),
    "normalised over the wrong axes": (
        "batch_norm: normalised over each image (layer norm)",
        "batch_norm: normalised over each image and channel (instance norm)",
        "l2_normalize: over positions, not channels",
        "group_norm: normalised over the batch (batch norm)",
    ),
    "kernel flipped": ("conv1d: flipped kernel", "conv2d: flipped kernel"),
    "kernel transposed": ("conv2d: transposed kernel", "conv2d: transposed weights"),
    "padding circular": ("conv1d: wrapped around", "conv2d: padding circular"),
    "padding replicated": ("conv1d: edges for zeros", "conv2d: edges for zeros"),
    "padding shifted": (
        "conv1d: shifted by one",
        "conv2d: padding on one side",
        "conv2d: padding shifted by one: reads a row further on",
    ),
    "dilation ignored": ("conv2d: dilation ignored",),
    "groups ignored": ("conv2d: groups ignored",),
    "sum for average": ("global_average_pool: sum for mean", "average_pool: sum for mean"),
    "average for sum": ("gate: gradient: mean for sum", "add: mean for sum", "global_lse_pool: mean, not sum"),
    "maximum's gradient shared among ties": (
        "global_max_pool: gradient: shared among ties",
        "max_pool: gradient: shared among ties",
    ),
    "maximum's gradient to the last": (
        "global_max_pool: gradient: to the last maximum",
        "max_pool: gradient: to the last maximum",
    ),
    "divided by N - 1": ("global_average_pool: divided by N - 1",),
    "divided by the padded size": ("global_average_pool: divided by the padded size",),
    "ReLU left out": ("relu: left out",),
    "GELU for ReLU": ("relu: GELU",),
    "GELU by tanh for GELU": ("gelu: by tanh",),
    "ReLU for leaky ReLU": ("leaky_relu: ReLU",),
    "leaky ReLU": ("relu: leaky, slope 0.01", "relu: leaky, slope 0.1", "relu: leaky, slope 0.2"),
    "hard for logistic sigmoid": ("sigmoid: hard sigmoid",),
    "sigmoid before the sum of pools": ("pass: sigmoid before the sum of the pools",),
    "pools added before the shared layers": ("pass: pools added before the shared layers",),
    "max and mean in the other order": ("concatenate: parts in the wrong order",),
    "CAM with max − energy": (
        "softmax: maximum less the energies",
        "softmin: sign lost: softmax of the energies, not of their maximum less them",
    ),
    "γ on the residual as well": ("pass: γ on the residual as well",),
    "residual lost": ("add: residual lost",),
    "residual detached": ("add: gradient: residual detached",),
    "gate detached": ("gate: gradient: gate detached",),
    "pool detached": ("global_average_pool: gradient: dropped", "global_max_pool: gradient: dropped"),
    "map detached": (
        "dot_product_attention: gradient: map detached",
        "masked_attention: gradient: map detached",
        "softmax: gradient: map detached",
    ),
    "bias lost": ("conv2d: lost bias", "linear: lost bias", "batch_norm: lost bias"),
    "bias twice": ("conv2d: bias twice", "linear: bias twice", "batch_norm: bias twice"),
    "gradient of the bias averaged": (
        "conv2d: gradient: bias averaged, not summed",
        "linear: gradient: bias averaged, not summed",
        "batch_norm: gradient: of the bias averaged, not summed",
    ),
    "batch averaged": ("pass: gradient: averaged over the batch", "pass: gradient: dy averaged over the batch"),
    "NHWC read as NCHW": (
        "pass: input with channels last",
        "pass: NHWC read as NCHW",
        "pass: NHWC read and written as NCHW",
    ),
    "H and W exchanged": (
        "pass: input transposed",
        "pass: transposed map",
        "add: map with height and width exchanged",
    ),
    "align_corners the other way": ("resize_bilinear: other corners",),
    "channels shuffled the wrong way round": ("pass: channels shuffled the wrong way round",),
    "gradient accumulated over calls": (
        "pass: gradient: all added twice, as if accumulated over two calls",
        "pass: gradient: added twice",
    ),
}
"""Mistakes that authors of kernels and ports have reported, by the names of those in the catalogue."""


@for_each("report", REPORTED)
def test_a_mistake_seen_in_public_reports_is_known_in_every_form_that_it_has(report):
    ways = {}
    for one in MISTAKES:
        ways.setdefault(str(one), set()).add(one.way)
    missing = [name for name in REPORTED[report] if name not in ways]
    assert not missing
    of_primitives = [name for name in REPORTED[report] if not name.startswith("pass: ") and "gradient: " not in name]
    assert all({"forward", "carried"} <= ways[name] for name in of_primitives)
