"""Tests of what the C library does with freed memory."""

import subprocess
import sys

import pytest

MEASURE = """
import resource
from dmask_mobile.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        maps = [bytearray(4 * 2**20) for _ in range(16)]
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
keep_freed_memory()
faults()
print(by_default, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    output = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout
    by_default, kept = map(int, output.split())
    assert kept < by_default / 20
