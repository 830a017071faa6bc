"""The sections `data` and `augment`: which photos a run reads, in which order, and what is done to them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from train.config.base import AboveZero, Fraction, NotNegative, Pixels, Positive, Samples, Strict, Unit


class CacheConfig(Strict):
    """The disk cache of shards that are read over the network; local shards are read in place."""

    dir: str | None = None
    """Folder of the cache, which several runs may share. `null`: `slimheads/shards` in `$XDG_CACHE_HOME`, else in
    `~/.cache`."""
    max_gigabytes: Annotated[AboveZero, Unit("gigabytes")] = 50.0
    """Size of the cache (a gigabyte is 10^9 bytes); above it, the shards that were not used for longest are dropped."""


class DataConfig(Strict):
    """Where the photos are and how they are read.

    Sample order: an epoch visits the shards in random order, in *blocks* of whole shards. A block is cut into *lanes*
    of neighbouring samples, each lane is shuffled in *windows*, and a batch takes one sample of each lane in turn. So a
    rank reads long stretches of few shards, while a batch still comes from all over the block. The order depends on
    `seed`, `batch_size`, `block`, `lanes` and `window`, never on the number of ranks or workers.
    """

    train: str
    """Folder or address (`http(s)://`, `s3://`) of the shards to train on, as `data.build` or `data.index` leaves
    it."""
    val: str | None = None
    """The shards to validate on. `null`: none; the run then has no `best/`."""
    image_size: Pixels = 224
    """Side of the square photos to train on."""
    eval_size: Pixels | None = None
    """Side for validation and later use: the largest centred square is scaled to it. `null`: `data.image_size`."""
    block: Samples = 262_144
    """About how many samples are mixed with one another; a smaller set is one block. A rank works on its share of two
    blocks, which is also what a cache of remote shards should hold."""
    lanes: Annotated[Positive, Unit("lanes")] = 1024
    """Pieces of a block; each belongs to one rank, so there are at least as many as ranks. More of them mix better and
    are read in shorter stretches."""
    window: Samples = 256
    """Neighbours of a lane that are shuffled among themselves. More of them mix better, but a rank reads further
    ahead."""
    workers: Annotated[int, Field(ge=0), Unit("processes")] | Literal["auto"] = "auto"
    """Processes of each rank that read and decode photos; 0: the rank itself does. `auto`: the rank's share of the
    host's cores less one, from 1 to 8."""
    cache: CacheConfig = CacheConfig()
    max_bad_share: Annotated[Fraction, Unit("share of the training samples")] = 0.001
    """More samples than this that cannot be used (damaged photos, wrong labels) end the run with their list; 10 are
    always allowed."""
    max_pixels: Pixels = 64_000_000
    """Larger photos (height x width) count as bad and are not decoded."""


class AugmentConfig(Strict):
    """What is done to training photos. Each augmented view is a function of `augment.seed`, the photo and the view's
    number: the same on every rank, in every run and in a teacher's cache.

    `policy` chooses a set of operations, and each of the keys from `crop_scale` on replaces one of them; `null` leaves
    what the policy says. `none`: the largest centred square. `mild`: crops of 64 to 100 % of the area and flips.
    `standard`: crops of 8 to 100 % and flips. `strong`: `standard` with `rotate: 10`, `brightness`, `contrast` and
    `saturation` of 0.4, and `erase: 0.25`.
    """

    policy: Literal["none", "mild", "standard", "strong"] = "standard"
    """The set of operations to begin with."""
    seed: int = 0
    """Seed of the augmentation alone, so that one teacher's cache serves runs with different `seed`."""
    views: Annotated[int, Field(ge=0), Unit("views")] = 0
    """Number of different views of each photo: epoch e sees view e mod `views`. 0: a new view in every epoch, or with
    `teacher.cache` the views of the cache."""
    crop_scale: tuple[float, float] | None = None
    """[smallest, largest] share of the photo's area that a crop keeps, above 0 to 1."""
    crop_ratio: tuple[float, float] | None = None
    """[narrowest, widest] width / height of a crop, above 0; 3/4 to 4/3 in every policy."""
    flip: Annotated[Fraction, Unit("probability")] | None = None
    """How often a photo is flipped left to right."""
    rotate: Annotated[NotNegative, Unit("degrees")] | None = None
    """The largest rotation: the angle is drawn from -`rotate` to `rotate`."""
    brightness: Fraction | None = None
    """Change of brightness: the factor is drawn from 1 - `brightness` to 1 + `brightness`."""
    contrast: Fraction | None = None
    """Change of contrast around the photo's mean grey, drawn in the same way."""
    saturation: Fraction | None = None
    """Change of saturation, drawn in the same way."""
    erase: Annotated[Fraction, Unit("probability")] | None = None
    """How often a rectangle of 2 to 20 % of the photo is painted grey."""

    @model_validator(mode="before")
    @classmethod
    def _one_photo_a_sample(cls, values: Any) -> Any:
        mixing = [name for name in ("mixup", "cutmix") if isinstance(values, dict) and name in values]
        if mixing:
            raise ValueError(
                f"{mixing[0]} is not offered: it blends the photos of a batch, and a teacher's cached logits are of "
                "one photo; remove it (erase hides parts of single photos)"
            )
        return values

    @model_validator(mode="after")
    def _ranges(self) -> "AugmentConfig":
        if self.crop_scale and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is [smallest, largest] share of the area, 0 to 1; got {self.crop_scale}")
        if self.crop_ratio and not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio is [narrowest, widest] width / height, above 0; got {self.crop_ratio}")
        return self
