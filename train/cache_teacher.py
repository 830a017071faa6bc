"""Compute a teacher's logits once, for K augmented views of every training photo, and keep them for all students.

    horovodrun -np 8 python -m train.cache_teacher --config FILE --views 4 [--verify 200] [key=value ...]

Takes `teacher.model`, the data and the augmentation from the config and writes into the folder `teacher.cache`. Stopped
or killed, the same command continues; with more views it adds the missing ones. Without horovodrun one process does it.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import closing

from data.cache import RangeCache
from data.errors import DataError
from data.index import Index, load_index
from data.loader import Loader
from data.reader import ShardReader
from data.teacher_logits import LogitReader, ShardWalk
from data.teacher_logits.record import record_bytes
from train.assemble import choose_device
from train.assemble_data import num_workers, shard_cache, train_pixels
from train.assemble_teacher import cache_manifest, teacher_size
from train.cache_folder import CacheFolder
from train.caching_progress import caching_progress
from train.comm import Comm, RankLost
from train.command import run_command
from train.config import Config
from train.config_file import ConfigError, load_config
from train.exit_codes import ExitCode
from train.photo_arguments import positive
from train.photo_progress import photo_progress
from train.stop_signal import StopSignal
from train.teacher import Teacher, load_teacher
from train.teacher_blocks import teacher_blocks
from train.teacher_caching import TeacherCaching
from train.teacher_check import TOLERANCE, check_entries, draw_entries
from train.watchdog import Watchdog
