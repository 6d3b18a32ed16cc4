import hashlib
import itertools

import torch

from musicinfuser.keyed_random import generator, key, normal, uniform


def draws(*arguments, num=8):
    return torch.rand(num, generator=generator(*arguments))


def test_the_same_key_gives_the_same_stream_whatever_happened_before():
    first = draws(3, 17, "sigma")
    torch.manual_seed(99)
    draws(3, 18, "sigma", num=1000)
    assert torch.equal(draws(3, 17, "sigma"), first)
    assert not torch.equal(first[:4], first[4:])


def test_every_part_of_the_key_matters():
    base = draws(3, 17, "sigma")
    for other in ((4, 17, "sigma"), (3, 18, "sigma"), (3, 17, "noise"), (3, "name", "sigma")):
        assert not torch.equal(draws(*other), base)


def test_the_global_stream_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    draws(0, 0, "noise")
    assert torch.equal(torch.rand(4), expected)


def test_keys_are_a_stable_hash_of_63_bits():
    digest = hashlib.blake2b(b"7/21/posterior", digest_size=8).digest()
    assert key(7, 21, "posterior") == sum(b << 8 * i for i, b in enumerate(digest)) // 2
    # Written down: a run must draw the same numbers in every version.
    assert key(0, 0, "sigma") == 3807261664338610278


def test_keys_of_neighbours_do_not_meet():
    keys = [
        key(*parts) for parts in itertools.product(range(5), range(200), ("sigma", "noise", "mix"))
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= k < 2**63 for k in keys)


def test_streams_of_neighbouring_samples_are_uncorrelated():
    rows = torch.stack([draws(0, i, "noise", num=4000) for i in range(12)])
    correlation = torch.corrcoef(rows) - torch.eye(12)
    assert correlation.abs().max() < 5 / 4000**0.5


def test_normal_rows_have_streams_of_their_own():
    rows = normal(3, (7, 2), "noise", (4, 5))
    for row, index in zip(rows, (7, 2), strict=True):
        assert torch.equal(row, torch.randn(4, 5, generator=generator(3, index, "noise")))
    assert rows.shape == (2, 4, 5)


def test_uniform_numbers_have_streams_of_their_own():
    expected = [draws(3, index, "sigma", num=1).item() for index in (7, 2, 7)]
    assert uniform(3, (7, 2, 7), "sigma").tolist() == expected and expected[0] != expected[1]
