from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyMpisweep(PythonPackage):
    """A whole hyperparameter sweep in one batch job: an MPI master/worker pool, one HDF5 file."""

    license("MIT")

    # Built from a checkout by `spack dev-build`, which needs no checksum.
    version("0.1.0")

    variant("torch", default=True, description="The built-in ResNet50, which needs PyTorch")
    variant("search", default=False, description="Searches that learn, and pruning, which need Optuna")

    depends_on("py-setuptools@77:", type="build")

    with default_args(type=("build", "run")):
        depends_on("python@3.11:")
        depends_on("py-h5py@3.10:")
        depends_on("py-matplotlib@3.8:")
        # Its MPI is the sweep's. With openmpi@5: a sweep survives the loss of any rank.
        depends_on("py-mpi4py@4.0:")
        depends_on("py-numpy@1.26:")
        depends_on("py-nvidia-ml-py@12:")
        depends_on("py-rich@13:")
        depends_on("py-scikit-learn@1.3:")
        depends_on("py-scipy@1.15:")
        # shtab, for `mpisweep completion`, and cmaes, for the search of this name, are too old in Spack.
        depends_on("py-torch@2.3:", when="+torch")
        depends_on("py-torchvision@0.18:", when="+torch")
        depends_on("py-optuna@4.5:", when="+search")

    @run_after("install")
    @on_package_attributes(run_tests=True)
    def check_command(self):
        """Run the command once."""
        Executable(self.prefix.bin.mpisweep)("--version")
