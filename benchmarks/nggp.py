"""Figures of a mixture whose number of clusters is open."""

from priorzoo.models import NGGPMixture


def score(model: NGGPMixture) -> dict[str, float]:
    """What the model says of its own clusters, beside what the labels say.

    - ``active_clusters``: how many there are;
    - ``concentration`` and ``discount``: alpha and sigma.
    """
    law = model.law
    return {
        "active_clusters": float(model.active.sum()),
        "concentration": float(law.concentration),
        "discount": float(law.discount),
    }
