# Inside a checkout nothing is fetched. Elsewhere, as on Colab, the program is cloned and installed, with
# the extra of JAX for what this runtime has: a GPU, a TPU, or neither.
import importlib.metadata
import os
import pathlib
import subprocess
import sys

REPOSITORY = "https://github.com/YOUR_ACCOUNT/taichu_jax"


def checkout() -> pathlib.Path | None:
    """The checkout that this file, or this notebook, lies in."""
    here = pathlib.Path(globals().get("__file__", "notebook")).resolve()
    return next((p for p in here.parents if (p / "taichu_jax" / "__init__.py").is_file()), None)


def extra() -> str:
    """Of setup.cfg, for the devices that the JAX of this runtime finds."""
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    backend = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return {"gpu": "[cuda]", "tpu": "[tpu]"}.get(backend, "")


def install(root: pathlib.Path) -> None:
    """Clones and installs; says so if this kernel still holds packages that pip has replaced."""
    if not root.exists():
        subprocess.run(["git", "clone", "--quiet", "--depth=1", REPOSITORY, str(root)], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--editable", f"{root}{extra()}"]
    subprocess.run(pip, check=True)
    loaded = {
        name: sys.modules[name].__version__ for name in ("numpy", "jax") if name in sys.modules
    }
    if any(importlib.metadata.version(name) != version for name, version in loaded.items()):
        print(
            "Restart the session now (menu Runtime), then run this cell again: packages are newer"
        )


ROOT = checkout() or pathlib.Path.cwd() / "taichu_jax"
if checkout() is None:
    install(ROOT)
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))
