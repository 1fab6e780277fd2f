"""Run the kernels' tests on kernels built with the address and undefined-behaviour sanitizers, and for smaller processors.

    python tests/long/sanitize.py            part of `make test-long`

Each build lies in a temporary cache. A read or write outside of a buffer, or anything else C leaves undefined, ends the
run with the sanitizer's report. Needs gcc on Linux; says so and passes elsewhere.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch  # noqa: F401  before the kernels, as everywhere

from zamba_lab.native import build

HERE = Path(__file__).parents[1]
OTHERS = ("test_decoder.py",)
TESTS = sorted(
    str(file)
    for file in [*(HERE / "native").glob("test_*.py"), *(HERE / name for name in OTHERS)]
    if file.stem not in ("test_build", "test_gpu")
)
SANITIZE = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
# Narrower vectors are other paths through the same source; -march=native comes first, so these take away from it.
PROCESSORS = {"x86_64": {"AVX2": "-mno-avx512f -mno-avx512bf16", "SSE2": "-march=x86-64"}, "aarch64": {}}


def run(name: str, flags: str, **more: str) -> bool:
    print(f"--- {name}: {flags}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ZAMBA_LAB_CACHE": folder, "ZAMBA_LAB_CFLAGS": flags, "OMP_NUM_THREADS": "2", **more}
        command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "error", *TESTS]
        passed = subprocess.run(command, env=environment).returncode == 0
        built = b"".join(file.read_bytes() for file in Path(folder).glob("native/*.so"))
        if not built or ("sanitize" in flags) != (b"__asan_report" in built):
            print("*** the library that was tested is not the one that was meant ***")
            return False
        return passed


def runtime(compiler: list[str], library: str) -> str | None:
    """Where the compiler keeps a library, to be loaded before everything else."""
    answer = subprocess.run([*compiler, f"-print-file-name={library}"], capture_output=True, text=True).stdout.strip()
    return answer if os.path.isabs(answer) else None


def main() -> int:
    try:
        compiler = build.find_compiler()
    except build.BuildError as error:
        print(f"*** SKIPPED: {error} ***")
        return 0
    results = {}
    # the second, or a C++ exception of torch's ends the run: the sanitizer looks for what throws when it is loaded
    preload = [runtime(compiler, name) for name in ("libasan.so", "libstdc++.so.6")] if sys.platform == "linux" else [None]
    if None in preload:
        print("*** SKIPPED: this compiler has no address sanitizer to load ***")
    else:
        results["sanitizers"] = run(
            "sanitizers", SANITIZE, LD_PRELOAD=" ".join(preload), ASAN_OPTIONS="detect_leaks=0:verify_asan_link_order=0"
        )
    for name, flags in PROCESSORS.get(os.uname().machine, {}).items():
        results[name] = run(name, flags)
    print("\n".join(f"{name}: {'passed' if passed else 'FAILED'}" for name, passed in results.items()))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
