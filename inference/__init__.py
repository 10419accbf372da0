"""Objectives, training, evaluation, prediction and saving."""

from priorzoo.inference.batch import Batch, binarised
from priorzoo.inference.bounds import COMPILERS, importance_bound
from priorzoo.inference.centring import centre_features
from priorzoo.inference.checking import check_pair
from priorzoo.inference.data.checks import check_data
from priorzoo.inference.data.pixels import Pixels
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.tables.frames import SparseRows
from priorzoo.inference.data.tables.reading import read_table
from priorzoo.inference.data.tables.schema import Schema, Table
from priorzoo.inference.diagnosis import degeneracy, occupancy
from priorzoo.inference.evaluation import evaluate
from priorzoo.inference.factorial import seed_components
from priorzoo.inference.imputation import Imputed, completions, impute
from priorzoo.inference.memory import Memory, reconstructions_through, remember
from priorzoo.inference.merging import Merged, merge_clusters
from priorzoo.inference.nggp.growth import grow_model, move_clusters
from priorzoo.inference.nggp.objective import Collapsed
from priorzoo.inference.objectives.conjugate import ConjugateELBO, Pretraining, predictive
from priorzoo.inference.objectives.contract import Loss, Objective
from priorzoo.inference.objectives.control_variates import Baselined
from priorzoo.inference.objectives.draws import Draws, draw_pair
from priorzoo.inference.objectives.elbo import ELBO, KL, Autoencoder
from priorzoo.inference.objectives.penalties import (
    Classification,
    ConsistencyViolation,
    Penalty,
    Quantisation,
)
from priorzoo.inference.objectives.schedules import Linear
from priorzoo.inference.objectives.standard_prior import StandardPrior
from priorzoo.inference.prediction import (
    cluster_probabilities,
    code_variances,
    codes,
    component_means,
    draw,
    enumerates,
    reconstructions,
)
from priorzoo.inference.randomness import Stream
from priorzoo.inference.reseeding import reseed_clusters
from priorzoo.inference.saving import load, save
from priorzoo.inference.serving.export import export
from priorzoo.inference.serving.predictor import Predictor, serve
from priorzoo.inference.training.loop import Training, fit
from priorzoo.inference.training.optimisers import ConjugateAdam, RobbinsMonro, Together
from priorzoo.inference.training.replicas import Replicas
from priorzoo.inference.training.step import descend
from priorzoo.inference.training.weighing import compile_weights
from priorzoo.inference.words import weigh_words

COMPILERS.append(compile_weights)  # which stands above evaluation, as it compiles steps

__all__ = [
    "ELBO",
    "KL",
    "Autoencoder",
    "Baselined",
    "Batch",
    "Classification",
    "Collapsed",
    "ConjugateAdam",
    "ConjugateELBO",
    "ConsistencyViolation",
    "Draws",
    "Imputed",
    "Linear",
    "Loss",
    "Memory",
    "Merged",
    "Objective",
    "Penalty",
    "Pixels",
    "Predictor",
    "Pretraining",
    "Quantisation",
    "Replicas",
    "RobbinsMonro",
    "Schema",
    "SparseRows",
    "StandardPrior",
    "StoredRows",
    "Stream",
    "Table",
    "Together",
    "Training",
    "binarised",
    "centre_features",
    "check_data",
    "check_pair",
    "cluster_probabilities",
    "code_variances",
    "codes",
    "completions",
    "component_means",
    "degeneracy",
    "descend",
    "draw",
    "draw_pair",
    "enumerates",
    "evaluate",
    "export",
    "fit",
    "grow_model",
    "importance_bound",
    "impute",
    "load",
    "merge_clusters",
    "move_clusters",
    "occupancy",
    "predictive",
    "read_table",
    "reconstructions",
    "reconstructions_through",
    "remember",
    "reseed_clusters",
    "save",
    "seed_components",
    "serve",
    "weigh_words",
]
