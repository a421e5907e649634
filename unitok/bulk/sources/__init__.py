"""Inputs of a bulk run, cut into shards: photos in folders, tar files, JSON-lines, Parquet."""

from unitok.bulk.sources.base import InputShard, Record
from unitok.bulk.sources.plan import plan

__all__ = ["InputShard", "Record", "plan"]
