"""100 points with five features, two components, and weights that sum to 2.

The published program keeps its data as 5 × 100, features first. It begins with means thrown into the unit cube and
identity covariances, and runs until the log-likelihood no longer rises.

Its answer is not a mixture. The weights sum to 2, the two components are equal, and the covariances are scatter
matrices, Σ_n r_n (x_n - μ)(x_n - μ)ᵀ, that nobody divided by Σ_n r_n. A mixture's weights are shares of the data and
sum to 1; two equal components with a weight of 1 each are what comes out when every point counts fully for *both*
components, in place of being shared between them. Such a fit is one Gaussian, written twice, its variances a hundred
times too large. The check takes one line: responsibilities sum to 1 over the components, so weights do too.

A right program ends, from the same start, at weights 0.226 and 0.774 after 122 iterations. In jaxgmm a data set is
(N, D), so 5 × 100 is transposed first. The page closes with a warning of another kind: one start is not enough. Two
Gaussians in five dimensions have 41 free parameters, 100 points do not pin them down, and the best of ten starts is a
different mixture of higher likelihood.
"""

from pathlib import Path

import numpy as np

import jaxgmm

DATA = Path(__file__).parent / "data" / "five_dimensional.npz"


def main() -> tuple[jaxgmm.FitResult, jaxgmm.FitResult]:
    """Fits from the published start, checks that the answer is a mixture, and tries ten starts."""
    data = np.load(DATA)
    x = data["x"]
    start = jaxgmm.Mixture(weights=np.full(2, 1 / 2), means=data["means"], covariances=np.stack([np.eye(5)] * 2))

    result = jaxgmm.fit(x, 2, init=start, tol=0, max_iter=122, reg_covar=0)
    best_of_ten = jaxgmm.fit(x, 2, n_init=10)

    shares = jaxgmm.responsibilities(result.mixture, x)
    print("weights:", *(f"{weight:.8f}" for weight in result.mixture.weights))
    print(f"weights sum to {result.mixture.weights.sum():.6f}")
    print(f"mean responsibilities are the weights: {np.allclose(shares.mean(axis=0), result.mixture.weights)}")
    print(f"log-likelihood {result.log_likelihood:.6f} from the published start")
    print(f"log-likelihood {best_of_ten.log_likelihood:.6f} from the best of ten starts")
    return result, best_of_ten


if __name__ == "__main__":
    main()
