"""Everything of a study that needs torch, so that one import in `study.py` brings it in."""

from interpret.images.batches import first_images
from interpret.images.opening import open_images
from interpret.network.dry_run import dry_runs_held
from interpret.network.model import as_model
from interpret.study.activation_range import find_range_examples
from interpret.study.connections import connect_layers
from interpret.study.effective_fields import measure_effective_fields
from interpret.study.filter_sheets import draw_filter_sheets
from interpret.study.mining import mine_layers
from interpret.study.predictions import predict_sources
from interpret.study.projections import project_layers
from interpret.study.provenance import autocast_type, check_is_new, check_is_of, describe
from interpret.study.synthesis import synthesise_layers
from interpret.tracing.meta_trace import trace_held
from interpret.tracing.tracing import trace

__all__ = [
    "as_model",
    "autocast_type",
    "check_is_new",
    "check_is_of",
    "connect_layers",
    "describe",
    "draw_filter_sheets",
    "dry_runs_held",
    "find_range_examples",
    "first_images",
    "measure_effective_fields",
    "mine_layers",
    "open_images",
    "predict_sources",
    "project_layers",
    "synthesise_layers",
    "trace",
    "trace_held",
]
