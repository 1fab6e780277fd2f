"""Compile the kernels for 64-bit ARM, with all warnings, on a machine that is not one.

    python tests/long/cross.py            part of `make test-long`

It shows that the ARM path of the source compiles, for processors with and without scalable vectors, and nothing of what it
computes. Needs a cross compiler (on Debian: apt-get install gcc-aarch64-linux-gnu; with it clang can do it too, if it is
there); says so and passes without.
"""

import shutil
import subprocess
import sys

from zamba_lab.native import build

COMPILERS = (["aarch64-linux-gnu-gcc"], ["clang", "--target=aarch64-linux-gnu"])
PROCESSORS = ("-march=armv8-a", "-mcpu=neoverse-n1", "-mcpu=neoverse-v1")
FLAGS = [*(flag for flag in build.FLAGS if flag != build.NATIVE), "-fopenmp", "-Wall", "-Wextra", "-Werror"]


def main() -> int:
    if not shutil.which(COMPILERS[0][0]):
        print("*** SKIPPED: no cross compiler for 64-bit ARM. On Debian: apt-get install gcc-aarch64-linux-gnu ***")
        return 0
    failed = 0
    for compiler in COMPILERS:
        for processor in PROCESSORS if shutil.which(compiler[0]) else ():
            commands = [
                [*compiler, *FLAGS, processor, f"-DTYPE_{dtype}", "-c", str(build.SOURCES / f"{name}.c"), "-o", "/dev/null"]
                for name, dtypes in build.UNITS.items()
                for dtype in dtypes
            ]
            wrong = sum(subprocess.run(command).returncode != 0 for command in commands)
            print(f"{compiler[0]} {processor}: {len(commands) - wrong} of {len(commands)} files", flush=True)
            failed += wrong
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
