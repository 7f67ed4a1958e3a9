"""Every knob, declared once: type, bounds, default and meaning.

Configs are frozen and refuse unknown keys. People write them as TOML, every artifact keeps the
resolved one as JSON. A stage is handed its own section, never the whole tree.
"""

from recsys.config.data import PrepareConfig, SplitConfig
from recsys.config.distillation import DistillationConfig
from recsys.config.evaluation import EvaluationConfig
from recsys.config.experiments import (
    AnalysisConfig,
    ExperimentConfig,
    ExperimentsConfig,
    VariantConfig,
    parse_experiments,
)
from recsys.config.index import CompletionConfig, IndexConfig
from recsys.config.job import JobConfig, describe, load_config
from recsys.config.model import ModelConfig
from recsys.config.pretraining import PretrainingConfig
from recsys.config.ranker import RankerConfig
from recsys.config.refresh import CanaryConfig, GateConfig, RefreshConfig
from recsys.config.search import SearchConfig
from recsys.config.section import Section
from recsys.config.security import SecurityConfig
from recsys.config.serving import ServeArgs
from recsys.config.storage import StorageConfig
from recsys.config.store import FeedbackConfig, ItemLogConfig, StoreConfig
from recsys.config.sweep import SweepConfig
from recsys.config.training import AugmentConfig, PrivacyConfig, TrainingConfig
from recsys.config.world import WorldConfig

__all__ = [
    "AnalysisConfig",
    "AugmentConfig",
    "CanaryConfig",
    "CompletionConfig",
    "DistillationConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "ExperimentsConfig",
    "FeedbackConfig",
    "GateConfig",
    "IndexConfig",
    "ItemLogConfig",
    "JobConfig",
    "ModelConfig",
    "PrepareConfig",
    "PretrainingConfig",
    "PrivacyConfig",
    "RankerConfig",
    "RefreshConfig",
    "SearchConfig",
    "Section",
    "SecurityConfig",
    "ServeArgs",
    "SplitConfig",
    "StorageConfig",
    "StoreConfig",
    "SweepConfig",
    "TrainingConfig",
    "VariantConfig",
    "WorldConfig",
    "describe",
    "load_config",
    "parse_experiments",
]
