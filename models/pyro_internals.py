"""All that priorzoo uses of Pyro beyond its documented interface, in one place."""

from pyro.distributions.score_parts import ScoreParts
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message, effectful
from pyro.poutine.subsample_messenger import SubsampleMessenger
from pyro.poutine.util import site_is_subsample

__all__ = [
    "Message",
    "Messenger",
    "ScoreParts",
    "SubsampleMessenger",
    "effectful",
    "scale_and_mask",
    "site_is_subsample",
    "sum_rightmost",
]
