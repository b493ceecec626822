"""Show results of PyTorch's own kernels that the judge refused, beside what they should be.

    python tests/benchmarks/pytorch_faults.py

Each is computed by PyTorch's CPU kernels in the layout in which they go wrong, and from the same numbers in another, in
which they do not. Where a release has mended one, both are the same.
"""

import torch


def strided_depth_wise_convolution():
    """The weight gradient of maps one column wide, in bfloat16, channels last, on two threads."""
    torch.set_num_threads(2)
    found = []
    for layout in (torch.channels_last, torch.contiguous_format):
        torch.manual_seed(0)
        gradients = []
        for _ in range(20):
            for size in range(5, 17):
                torch.full((2**size,), 1e30)  # what is not written holds what was there before
            x = torch.randn(2, 64, 1, 1).bfloat16().to(memory_format=layout).requires_grad_()
            weight = torch.randn(64, 1, 3, 3).bfloat16().requires_grad_()
            y = torch.nn.functional.conv2d(x, weight, stride=2, padding=1, groups=64)
            y.backward(torch.randn_like(y))
            gradients.append(weight.grad.double())
        found.append(torch.stack(gradients))
    return found


def batch_norm_of_a_slice():
    """The bias' gradient of one image, a slice of more channels, whose upstream gradient has its channels last."""
    found = []
    for last in (True, False):
        torch.manual_seed(0)
        x = torch.randn(1, 24, 9, 9, dtype=torch.double)[:, :16].requires_grad_()
        norm = torch.nn.BatchNorm2d(16).double().eval()
        dy = torch.randn(1, 81, 16, dtype=torch.double).transpose(1, 2).unflatten(2, (9, 9))
        norm(x).backward(dy if last else dy.contiguous())
        found.append(norm.bias.grad)
    return found


def main():
    print(f"PyTorch {torch.__version__}: largest number, and largest error, in the layout that goes wrong")
    for trial in (strided_depth_wise_convolution, batch_norm_of_a_slice):
        wrong, right = trial()
        error = (wrong - right).abs().max().item()
        print(f"{trial.__name__:<32}{right.abs().max().item():>10.3g}{error:>12.3g}")


if __name__ == "__main__":
    main()
