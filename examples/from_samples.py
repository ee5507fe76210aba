"""3,000 points from three overlapping clusters, begun at three of the points and stopped on the way.

The published program begins at three random samples, with equal weights and the sample covariance of all the data
(divided by N - 1) in every component. It stops when the total log-likelihood gains at most 1e-3 in an iteration, or
after 30 iterations.

The limit is what stops it. The 30th iteration still gains 7.0 nats, more than the one before it, and the largest of
the three components reaches from its own cluster into the next. The published result is a place on the way, 195 nats
below where the same start leads.

In jaxgmm every fit says how it ended: `MAX_ITER` here, with a sentence on what to do. `method="em"` makes the published
iterations and stops by the published rule. That is about the total log-likelihood; `tol` is about the mean per sample,
so 1e-3 becomes 1e-3 / 3000. With room to go on, the same rule ends the same run properly after some forty more
iterations.
"""

from pathlib import Path

import numpy as np

import jaxgmm

DATA = Path(__file__).parent / "data" / "overlapping_clusters.npz"


def main() -> tuple[jaxgmm.FitResult, jaxgmm.FitResult]:
    """Stops where the published program stopped, then goes on until its rule is met."""
    x = np.load(DATA)["x"]
    start = jaxgmm.Mixture(
        weights=np.full(3, 1 / 3),
        means=x[[2899, 2670, 2774]],
        covariances=np.stack([np.cov(x.T)] * 3),
    )
    rule = {"method": "em", "tol": 1e-3 / len(x)}

    published = jaxgmm.fit(x, 3, init=start, **rule, max_iter=30, reg_covar=0, history=True)
    finished = jaxgmm.fit(x, 3, init=start, **rule, max_iter=1000, reg_covar=0)

    for result in (published, finished):
        status = jaxgmm.Status(result.status)
        print(f"{status.name} after {result.n_iter} iterations, log-likelihood {result.log_likelihood:.4f}")
        print("  weights:", *(f"{weight:.6f}" for weight in result.mixture.weights))
        print(f"  {status.sentence}")
    print(f"gain of iteration 30: {published.history[30] - published.history[29]:.2f} nats")
    return published, finished


if __name__ == "__main__":
    main()
