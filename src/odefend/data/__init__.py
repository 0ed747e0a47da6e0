"""Pictures with labels and stable ids. `DATASETS` maps a data set's name to the function that gives one of its splits, and
`named_data` gives one by name and options, or of a folder by its path.

All have the splits "train", "validation" (held out of training, to choose and to calibrate by) and "test".
"""

from odefend.data.cifar import cifar10 as cifar10
from odefend.data.digits import digits as digits
from odefend.data.families import DATASETS as DATASETS
from odefend.data.folder import batches as batches
from odefend.data.folder import folder as folder
from odefend.data.folder import pictures_below as pictures_below
from odefend.data.forensics import forensic_kinds as forensic_kinds
from odefend.data.forensics import forensic_pairs as forensic_pairs
from odefend.data.forensics import with_tampered as with_tampered
from odefend.data.images import SPLITS as SPLITS
from odefend.data.images import LabelledImages as LabelledImages
from odefend.data.images import as_floats as as_floats
from odefend.data.images import shuffled as shuffled
from odefend.data.images import tell_of_fewer as tell_of_fewer
from odefend.data.mnist import fashion_mnist as fashion_mnist
from odefend.data.mnist import mnist as mnist
from odefend.data.named import check_data as check_data
from odefend.data.named import named_data as named_data
from odefend.data.sources import SOURCES as SOURCES
from odefend.data.sources import fetch as fetch
from odefend.data.sources import local_copy as local_copy
from odefend.data.sources import unchecked_files as unchecked_files
from odefend.data.sources import wrong_files as wrong_files
from odefend.data.tamper import PUBLISHED as PUBLISHED
from odefend.data.tamper import TAMPERINGS as TAMPERINGS
from odefend.data.tamper import tamper as tamper
from odefend.data.tamper import tampering as tampering
from odefend.data.tiny_imagenet import tiny_imagenet as tiny_imagenet
from odefend.data.tiny_imagenet import tiny_imagenet_part as tiny_imagenet_part
