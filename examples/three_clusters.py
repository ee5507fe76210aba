"""Three round clusters, and a program that watched the wrong number.

A notebook of an introductory course (intro2ml.com, "gmm_example") draws 100 points around each of (5, 5), (0, 0) and
(8, 1), and fits three Gaussians by EM written out in NumPy. It begins with equal weights, means thrown uniformly into
the square [0, 10)², and identity covariances, and it stops after 17 iterations. Its E-step and its M-step are right,
and so is its answer.

What it calls the log-likelihood is not. With the responsibilities r_nk of the E-step and the weights w_k of the M-step
after it, it sums

    Σ_n log Σ_k r_nk w_k        where the log-likelihood is        Σ_n log Σ_k w_k N(x_n | μ_k, Σ_k).

The responsibilities of a point sum to 1, so the published number is the log of an average weight: the density of the
data is divided out of it. It does not say how well the mixture fits. Here the weights come out nearly equal, so it ends
near 300 log ⅓ = -329.58, and it mostly *falls* on the way there, which a log-likelihood never does under EM. It still
stops the loop, because once the parameters stand still everything computed from them stands still.

In jaxgmm a start is a `Mixture`. `tol=0` with `max_iter=17` makes exactly those 17 iterations, `reg_covar=0` adds
nothing to the covariances, and `history=True` keeps the log-likelihood of the start and after every iteration.
"""

from pathlib import Path

import numpy as np

import jaxgmm

DATA = Path(__file__).parent / "data" / "three_clusters.npz"


def published_number(before: jaxgmm.Mixture, after: jaxgmm.Mixture, x: np.ndarray) -> float:
    """Σ_n log Σ_k r_nk w_k: responsibilities from before an iteration, weights from after it."""
    return float(np.sum(np.log(jaxgmm.responsibilities(before, x) @ after.weights)))


def main() -> jaxgmm.FitResult:
    """Repeats the 17 iterations, and prints the published number beside the log-likelihood."""
    data = np.load(DATA)
    x = data["x"]
    start = jaxgmm.Mixture(weights=np.full(3, 1 / 3), means=data["means"], covariances=np.stack([np.eye(2)] * 3))

    result = jaxgmm.fit(x, 3, init=start, tol=0, max_iter=17, reg_covar=0, history=True)

    print("iteration  log-likelihood  published number")
    before = start
    for n in range(1, 18):
        after = jaxgmm.fit(x, 3, init=start, tol=0, max_iter=n, reg_covar=0).mixture
        print(f"{n:9d}  {result.history[n]:14.4f}  {published_number(before, after, x):16.4f}")
        before = after

    print("weights:", *(f"{weight:.8f}" for weight in result.mixture.weights))
    print("means:", *(f"({mean[0]:.6f}, {mean[1]:.6f})" for mean in result.mixture.means))
    return result


if __name__ == "__main__":
    main()
