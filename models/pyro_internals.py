"""The parts of Pyro outside its documented interface that priorzoo uses."""

from pyro.distributions.score_parts import ScoreParts as ScoreParts
from pyro.distributions.util import scale_and_mask as scale_and_mask
from pyro.distributions.util import sum_rightmost as sum_rightmost
from pyro.infer.autoguide import AutoCallable, AutoGuide, AutoGuideList
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.messenger import Messenger as Messenger
from pyro.poutine.runtime import InferDict as InferDict
from pyro.poutine.runtime import Message
from pyro.poutine.runtime import effectful as effectful
from pyro.poutine.subsample_messenger import SubsampleMessenger as SubsampleMessenger
from pyro.poutine.util import site_is_subsample as site_is_subsample
from torch import Tensor

AnyMessage = Message[..., object]  # the message that a handler receives


def global_parameters(store: ParamStoreDict) -> dict[str, Tensor]:
    """The unconstrained parameters of a parameter store, by name."""
    return dict(store._params)


def sites_of_rows(guide: object) -> list[str]:
    """Sites for which an automatic guide has separate parameters for each row."""
    composed = isinstance(guide, AutoGuideList | AutoCallable)
    if composed or not isinstance(guide, AutoGuide) or guide.prototype_trace is None:
        return []
    nodes = guide.prototype_trace.nodes.items()  # some without a type
    latent = [(n, site) for n, site in nodes if "fn" in site and not site["is_observed"]]
    return [n for n, site in latent if any(f.name == "data" for f in site["cond_indep_stack"])]
