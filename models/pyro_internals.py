"""The parts of Pyro outside its documented interface that priorzoo uses."""

from pyro.distributions.score_parts import ScoreParts as ScoreParts
from pyro.distributions.util import scale_and_mask as scale_and_mask
from pyro.distributions.util import sum_rightmost as sum_rightmost
from pyro.poutine.messenger import Messenger as Messenger
from pyro.poutine.runtime import InferDict as InferDict
from pyro.poutine.runtime import Message
from pyro.poutine.runtime import effectful as effectful
from pyro.poutine.subsample_messenger import SubsampleMessenger as SubsampleMessenger
from pyro.poutine.util import site_is_subsample as site_is_subsample

AnyMessage = Message[..., object]  # the message that a handler receives
