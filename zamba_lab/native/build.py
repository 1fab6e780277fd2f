"""From C source to a loaded library: compiled on first use, kept in a cache, and done without where that fails.

The sources lie beside this file. They are compiled for the machine at hand by its own C compiler, in a few seconds,
once: the result is kept under a name made of the sources, the flags, the compiler and the processor, so that another
version, machine or compiler never finds the wrong one. Whatever goes wrong (no compiler, a failed build, a spoiled
cache, an unknown processor), `library()` is None, `why_not()` says why, and a warning says it once.

    CC                  the compiler; without it the first of cc, gcc, clang that there is
    ZAMBA_LAB_CACHE     where the library is kept; otherwise the user's cache folder
    ZAMBA_LAB_CFLAGS    more flags for it, after ours: for a sanitizer, or for another processor than this one
    ZAMBA_LAB_NATIVE   "off": do without, silently
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

SOURCES = Path(__file__).parent
# On 64-bit ARM "this processor" is a matter of -mcpu: clang 14 refuses -march=native there.
NATIVE = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
# Of 512 bits where there are such: compilers take 256 unasked for what they make of loops, though beside vectors written of 512.
WIDE = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
FLAGS = ("-O2", "-ftree-vectorize", NATIVE, "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC")
ABI = 6  # ssd.c says the same: a library that answers another number is not this version's

_library: ctypes.CDLL | None = None
_reason: str | None = None
_tried = False


class BuildError(RuntimeError):
    """Why there is no native library, in a sentence a user can act on."""


def available() -> bool:
    """Whether the native kernels can be used: builds and loads them the first time."""
    return library() is not None


# All that torch.compiler.assume_constant_result does but for importing the compiler, which takes as long as torch itself.
available._dynamo_marked_constant = True


def library() -> ctypes.CDLL | None:
    """The loaded library, or None. The first call may compile, the first one that fails warns."""
    global _library, _reason, _tried
    if not _tried:
        _tried = True
        try:
            _library = _load()
        except BuildError as error:
            _reason = str(error)
            if os.environ.get("ZAMBA_LAB_NATIVE") != "off":
                warnings.warn(
                    f"zamba_lab runs without its native kernels, correctly but several times slower: {error}. "
                    "ZAMBA_LAB_NATIVE=off says that this is as it should be",
                    RuntimeWarning,
                    stacklevel=2,
                )
    return _library


def why_not() -> str | None:
    """Why `library()` is None, or None."""
    return _reason


def _load() -> ctypes.CDLL:
    if os.environ.get("ZAMBA_LAB_NATIVE") == "off":
        raise BuildError("they are switched off by ZAMBA_LAB_NATIVE")
    compiler = find_compiler()
    folder = cache_folder()
    file = folder / f"kernels-{_key(compiler)}.so"
    loaded = _open(file)
    if loaded is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            build(compiler, file)
        except OSError as error:
            return _build_aside(compiler, error)
        loaded = _open(file)
    if loaded is None:
        raise BuildError(f"what {shlex.join(compiler)} built in {folder} does not load")
    return loaded


def _build_aside(compiler: list[str], problem: OSError) -> ctypes.CDLL:
    """Where nothing can be kept: build for this process alone. An open library needs its file no more."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernels.so"
        try:
            build(compiler, file)
        except OSError as error:
            raise BuildError(
                f"neither the cache folder ({problem}) nor a temporary one ({error}) can be written; ZAMBA_LAB_CACHE names another"
            ) from error
        loaded = _open(file)
    if loaded is None:
        raise BuildError(f"what {shlex.join(compiler)} built does not load")
    return loaded


def find_compiler() -> list[str]:
    """The command of the C compiler, from $CC or the usual names. Raises BuildError if there is none."""
    if sys.platform == "win32":
        raise BuildError("they are for Linux and macOS")
    given = shlex.split(os.environ.get("CC", ""))
    for command in [given] if given else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise BuildError(
        f"the C compiler {given[0]!r} named by CC is not there"
        if given
        else "there is no C compiler (cc, gcc or clang; on Debian: apt-get install gcc)"
    )


def cache_folder() -> Path:
    """The user's cache folder, or what ZAMBA_LAB_CACHE names."""
    if given := os.environ.get("ZAMBA_LAB_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/zamba_lab").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zamba_lab"


def all_flags() -> list[str]:
    return [*FLAGS, *shlex.split(os.environ.get("ZAMBA_LAB_CFLAGS", ""))]


def _key(compiler: list[str]) -> str:
    """Everything the library depends on, as a name."""
    parts = [*WIDE, *all_flags(), *compiler, str(shutil.which(compiler[0])), _answer([*compiler, "--version"]), _processor()]
    for file in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h"), *SOURCES.glob("*.inc")]):
        parts += [file.name, file.read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _processor() -> str:
    """What NATIVE depends on: a home folder may be shared by machines of several kinds."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = {line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))}
    return "\n".join([platform.machine(), platform.processor(), *sorted(told)])


def _answer(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def build(compiler: list[str], file: Path) -> None:
    """Compile the sources, each by a process of its own, and link them to `file`, which appears whole or not at all.

    Raises BuildError with the compiler's own words if it refuses, OSError if the folder cannot be written.
    """
    flags = all_flags()
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        objects = [Path(folder) / f"{source.stem}.o" for source in sorted(SOURCES.glob("*.c"))]
        # Apple's compiler has no OpenMP of its own: then each call runs on one thread. Very old ones do not know WIDE.
        for some in dict.fromkeys([(*WIDE, "-fopenmp"), ("-fopenmp",), WIDE, ()]):
            commands = [[*compiler, *some, *flags, "-c", str(SOURCES / f"{out.stem}.c"), "-o", str(out)] for out in objects]
            processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for command in commands]
            errors = [process.communicate()[1] for process in processes]
            if not any(process.returncode for process in processes):
                break
        else:
            raise BuildError(f"{shlex.join(compiler)} does not compile them: {_first_error(errors)}")
        made = Path(folder) / "kernels.so"
        linked = subprocess.run(
            [*compiler, *some, *flags, "-shared", *map(str, objects), "-o", str(made), "-lm"], capture_output=True, text=True
        )
        if linked.returncode:
            raise BuildError(f"{shlex.join(compiler)} does not link them: {_first_error([linked.stderr])}")
        _seal(made).replace(_seal(file))
        made.replace(file)


def _first_error(texts: list[str]) -> str:
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "it says nothing").strip()


def _seal(file: Path) -> Path:
    """Write the file's hash beside it if it is not there; return where it stands."""
    seal = file.with_suffix(".sha256")
    if file.exists() and not seal.exists():
        seal.write_text(hashlib.sha256(file.read_bytes()).hexdigest())
    return seal


def _open(file: Path) -> ctypes.CDLL | None:
    """Load a library if it is the one that was built: opening half a file can end the process, so its hash comes first."""
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest().encode() != file.with_suffix(".sha256").read_bytes():
            return None
        loaded = ctypes.CDLL(str(file))
        return loaded if loaded.zamba_kernels_abi() == ABI else None
    except (OSError, AttributeError):
        return None
