"""Three correlated clusters, and 87 iterations that changed nothing.

The published program draws 300 points from three Gaussians whose features are correlated. It begins at three of the
points, with equal weights and the sample covariance of all the data (divided by N - 1) in every component, and makes
100 iterations. Its answer is right.

What it lacks is a reason to stop. The log-likelihood rises from -1655.5 to -1195.0 in twelve iterations; the thirteenth
gains less than 1e-9, and the other 87 repeat it.

In jaxgmm `tol` is the reason: a run ends when its mean log-likelihood *per sample* is estimated to be within `tol` of
its limit, and its status says that this is why it ended. The page makes the 100 iterations first, to compare with the
published answer, and then asks for the same fit with a tolerance.
"""

from pathlib import Path

import numpy as np

import jaxgmm

DATA = Path(__file__).parent / "data" / "correlated_clusters.npz"


def main() -> tuple[jaxgmm.FitResult, jaxgmm.FitResult]:
    """Fits with 100 iterations, and with as many as are needed."""
    x = np.load(DATA)["x"]
    start = jaxgmm.Mixture(
        weights=np.full(3, 1 / 3),
        means=x[[79, 12, 204]],
        covariances=np.stack([np.cov(x.T)] * 3),
    )

    published = jaxgmm.fit(x, 3, init=start, tol=0, max_iter=100, reg_covar=0)
    enough = jaxgmm.fit(x, 3, init=start, tol=1e-9, max_iter=100, reg_covar=0)

    for result in (published, enough):
        status = jaxgmm.Status(result.status)
        print(f"{status.name} after {result.n_iter} iterations, log-likelihood {result.log_likelihood:.6f}")
    print("weights:", *(f"{weight:.8f}" for weight in published.mixture.weights))
    print("first mean:", *(f"{coordinate:.7f}" for coordinate in published.mixture.means[0]))
    furthest = np.max(np.abs(enough.mixture.means - published.mixture.means))
    print(f"the two fits' means differ by less than 1e-6: {furthest < 1e-6}")
    return published, enough


if __name__ == "__main__":
    main()
