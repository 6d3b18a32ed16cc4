"""How fast a device can be at best: the rate that counted work is divided by.

The work itself is counted by `musicinfuser.networks.work`.
"""

import torch

from musicinfuser.device_speed import product_tflops

# bf16 products with fp32 sums, dense, in TFLOP/s: the data sheet, and an 8192 x 8192 x 8192 product
# of random numbers where it was measured.
PEAKS = {
    "H200": (989.0, 790.0),
    "H100": (989.0, 798.0),
    "A100": (312.0, None),
    "L40S": (362.0, None),
    "RTX 4090": (165.0, None),
}


def peak_tflops(device: torch.device) -> tuple[float, str]:
    """The rate that times are compared with, and where it comes from.

    A product of random numbers is timed on devices that are not listed.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, (sheet, measured) in PEAKS.items():
            if known in name:
                if measured is not None:
                    return measured, f"{name}: measured bf16 product of size 8192"
                return sheet, f"{name}: data sheet, bf16 dense"
    kind = "bf16 product of size 8192" if device.type == "cuda" else "fp32 product of size 512"
    return product_tflops(device), f"{kind}, timed here"
