"""What fit_groups() returns: tables, the arrays behind them, and a place to go on from."""

from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa

from jaxgmm.diagnosis import Diagnosis, diagnose
from jaxgmm.fit_result import FitResult, numbers_of, remarks
from jaxgmm.flagging import flags
from jaxgmm.frames.group_fit import GroupFit
from jaxgmm.frames.labelling import labelled
from jaxgmm.frames.membership import Membership, membership, number_of
from jaxgmm.mixture import Mixture
from jaxgmm.record import Block, Record, check_some, counted, field_names, record, rows_within, statuses, written
from jaxgmm.report import write_report
from jaxgmm.resampling import Bootstrap, bootstrap
from jaxgmm.selection.sweep_result import Sweep, chosen_models
from jaxgmm.tables.frame import Samples, arrow, read
from jaxgmm.tables.groups import Groups
from jaxgmm.tables.unchanged import check_unchanged
from jaxgmm.tables.wording import title_of


@record
class GroupFits(Record):
    """Fits of B groups: tables of the same kind as the input frame, and arrays.

    It keeps a reference to the frame that was fitted, not a copy. Pickles leave the frame out; methods that read
    samples then need it as `df`.

    Attributes:
        fits: a row for each group, sorted by key: the key columns, `n_samples`, the choice if there was one
            (`n_components`, `covariance_type`, `at_largest_k`, whether no larger K was tried, and the criterion),
            `log_likelihood` (nats), `gap`, `n_iter`, `spurious` and `ridge_dominated` (numbers of such components;
            see `jaxgmm.FitResult`), `start_passed_over`, `flags`, the reasons to distrust the fit (see `jaxgmm.flags`),
            `status`, and `explanation`, a sentence that says what the status means, and how many samples hold NaN or
            infinity, or which features are constant, where that is the reason. In pandas, integers and flags are of the
            nullable kinds if a group has none.
        components: a row for each component of each group: the key columns, `component` (from 0), `weight`, `mean_F`
            for every feature F, and `variance_F` (families `"diag"` and `"spherical"` only) or the lower triangle of
            the covariance matrix: `covariance_F_F`, and `covariance_G_F` where F is named before G; and `flags`, those
            of the fit, of which `overlapping` and `ridge_dominated` stand only at the components that they concern.
        models: a row for each model fitted to each group, as in `jaxgmm.Sweep.table`, and `flags`: those of the fit for
            the model that was chosen, and for others those that their rows show; None where there was no choice.
        result: the fits of the groups, or the chosen ones, in the order of `fits`.
        sweep: all models fitted to the groups; None where there was no choice.
        by: names of the key columns.
        features: names of the D features.
        weights: name of the column of sample weights, or None.
        df: the frame that was fitted; None in a copy from a pickle.
        checksums: `(B, S)`, sums by which methods that read samples notice that they are not those that were fitted.
    """

    fits: Any
    components: Any
    models: Any
    result: FitResult
    sweep: Sweep | None
    by: tuple[str, ...]
    features: tuple[str, ...]
    weights: str | None = None
    df: Any = None
    checksums: np.ndarray | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the choice, one sentence each, as in `jaxgmm.Sweep`, where groups are data sets."""
        return () if self.sweep is None else tuple(note.replace("data sets", "groups") for note in self.sweep.notes)

    @property
    def keys(self) -> pa.Table:
        """The keys of the groups, one row for each, in the order of `fits`."""
        return arrow(nw.from_native(self.fits, eager_only=True).select(nw.col(list(self.by))))

    @property
    def names(self) -> list[str]:
        """The keys as titles: `P04, 67`."""
        columns = [column.to_pylist() for column in self.keys.columns]
        return list(map(title_of, zip(*columns, strict=True)))

    @property
    def mixtures(self) -> Mixture:
        """`(B, K, …)`, the mixtures of the groups, also if there is one group."""
        mixture = self.result.mixture
        return mixture if self._batch else mixture.map(lambda leaf: leaf[None])

    @property
    def x(self) -> list[np.ndarray]:
        """The samples of each group, `(N_b, D)`, as `jaxgmm.fit` takes them."""
        return self._groups(None).x

    @property
    def sample_weight(self) -> list[np.ndarray] | None:
        """The sample weights of each group, `(N_b,)`; None without a column of weights."""
        return self._groups(None).sample_weight

    def frame(self, df: Any = None) -> Any:
        """The given frame, or else the one that was fitted.

        Raises:
            ValueError: there is none.
        """
        if df is None and self.df is None:
            raise ValueError("these fits come without their frame, as from a pickle; pass it as df.")
        return self.df if df is None else df

    def group(self, *key: Any, df: Any = None) -> GroupFit:
        """One group, given its key, with its samples.

        The first call finds the rows of all groups of the frame that was fitted, which are kept for the calls that
        follow; another frame is read whole each time.

        Raises:
            KeyError: no group has this key.
            ValueError: not one value for each key column, no frame is known, or it holds other samples of the group
                than were fitted.
        """
        if len(key) != len(self.by):
            raise ValueError(f"a key has a value for each of {', '.join(self.by)}; got {key!r}.")
        check_some(len(self) if self._batch else 1)
        number = number_of(key, self.keys)
        if number < 0:
            raise KeyError(f"no group {title_of(key)} was fitted; the first is {self.names[0]}")
        own, (rows, found) = self.of(number) if self._batch else self, self._of_group(number, self.frame(df))
        return GroupFit(tuple(key), self.features, found.samples, found.weights, rows, own.result, own.sweep)

    def predict(self, df: Any = None, *, probabilities: bool = False) -> Any:
        """The component of every row of a frame, under the mixture of the row's group.

        Args:
            df: the rows: those that were fitted, if None, or new ones of the same groups; any frame with the columns of
                the keys and features.
            probabilities: also return the probability of every component.

        Returns:
            the frame, its rows in their order, with four more columns:

            - `component`, the most probable one, numbered as in `components`;
            - `probability`, that of this component;
            - `log_density`, in nats, of the sample under the mixture;
            - `p_value`, small for outliers; see `jaxgmm.outlier_p_values`;

            and on request `probability_0` to `probability_K-1`. They are null in rows of groups that were not fitted or
            have no answer, and where a feature is missing or infinite; pandas' columns of floats have NaN for null. A
            sample too far away for any density belongs to no component: `log_density` is -inf, and `p_value` 0.

        Raises:
            ValueError: no frame is known, it lacks columns, or it has one with the name of a new one.
        """
        return labelled(self.frame(df), self.keys, self.features, self.mixtures, probabilities=probabilities)

    def diagnose(self, df: Any = None) -> Diagnosis:
        """Checks every group against its samples; see `jaxgmm.diagnose`.

        Raises:
            ValueError: no frame is known, or it holds other samples than were fitted.
        """
        return replace(diagnose(self.result, *self._as_fitted(df)), features=self.features)

    def bootstrap(self, n_replicates: int = 1000, df: Any = None, **options: Any) -> Bootstrap:
        """Fits replicates of every group; see `jaxgmm.bootstrap`, whose options these are.

        Groups without an answer have replicates without one. Groups of fewer components than others have absent ones.

        Raises:
            ValueError: no frame is known, it holds other samples than were fitted, or wrong options.
        """
        x, weights = self._as_fitted(df)
        return bootstrap(self.result, x, n_replicates, sample_weight=weights, **options)

    def flags(self, df: Any = None) -> dict[str, np.ndarray]:
        """Which groups to distrust, by reason, residuals included; see `jaxgmm.flags`.

        Raises:
            ValueError: no frame is known, or it holds other samples than were fitted.
        """
        return flags(self.result if self.sweep is None else self.sweep, *self._as_fitted(df))

    def report(self, path: str | Path, df: Any = None, *, title: str | None = None, overwrite: bool = False) -> None:
        """Writes a page about all groups; see `jaxgmm.report.write_report`.

        Raises:
            ValueError: no frame is known, or it holds other samples than were fitted.
            OSError: the file exists, or the disk refuses.
        """
        write_report(self, self.frame(df), path, title=title, overwrite=overwrite)

    def of(self, index: Any) -> "GroupFits":
        """The fits of one group, given its row of `fits`, or of several: a slice, a mask or an array of integers.

        Raises:
            ValueError: these are the fits of one group already, the index is none of these, or a group is named twice.
            IndexError: there is no such group.
        """
        rows = self._rows(index)
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        if len(set(chosen.tolist())) < len(chosen):
            raise ValueError("a group is named twice; name each group once.")
        components = np.sum(self.result.mixture.weights != 0, axis=-1)
        models = None if self.sweep is None else np.bincount(self.sweep.table["data_set"], minlength=len(self))
        return replace(
            self,
            fits=_part(self.fits, np.ones(len(self), int), chosen),
            components=_part(self.components, components, chosen),
            models=None if models is None else _part(self.models, models, chosen),
            result=self.result.of(rows),
            sweep=None if self.sweep is None else self.sweep.of(rows),
            checksums=None if self.checksums is None else self.checksums[chosen],
        )

    def _read(self, frame: Any, rows: np.ndarray | None = None) -> Samples:
        """Samples of a frame, or of some of its rows."""
        return read(frame, self.keys, self.features, self.weights, rows)

    def _groups(self, df: Any) -> Groups:
        """The samples of all groups. Raises ValueError if they are not those that were fitted."""
        groups = self._read(self.frame(df)).by_group(self.keys)
        check_unchanged(groups, self._n_samples, self.checksums)
        return groups

    @cached_property
    def _membership(self) -> Membership:
        """The rows of each group in the frame that was fitted. `dataclasses.replace`, pickles and copies drop it."""
        return membership(self._read(self.df), self.keys)

    def _of_group(self, number: int, frame: Any) -> tuple[np.ndarray, Samples]:
        """The rows and samples of one group. A frame that was changed in place since it was read is read anew.

        Raises ValueError if the samples are not those that were fitted.
        """
        rows, found = self._found(number, frame)
        keys = self.keys.slice(number, 1)
        own = Groups(keys, found.samples, found.weights, np.array([0, len(rows)]), rows)
        sums = None if self.checksums is None else self.checksums[[number]]
        check_unchanged(own, self._n_samples[[number]], sums)
        return rows, found

    def _found(self, number: int, frame: Any) -> tuple[np.ndarray, Samples]:
        if frame is self.df and len(frame) == self._membership.n_rows:
            rows = self._membership.of(number)
            found = self._read(frame, rows)
            if np.all(found.group == number):
                return rows, found
        self.__dict__.pop("_membership", None)
        rows = membership(self._read(frame), self.keys).of(number)
        return rows, self._read(frame, rows)

    @property
    def _n_samples(self) -> np.ndarray:
        return nw.from_native(self.fits, eager_only=True)["n_samples"].to_numpy()

    def _as_fitted(self, df: Any) -> tuple[Any, Any]:
        """Samples and weights with the batch axis of the result, or without."""
        check_some(len(self) if self._batch else 1)
        groups = self._groups(df)
        x, weights = groups.x, groups.sample_weight
        return (x, weights) if self._batch else (x[0], None if weights is None else weights[0])

    def __copy__(self) -> "GroupFits":
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GroupFits":
        # The frame is the caller's.
        copied = {name: deepcopy(getattr(self, name), memo) for name in field_names(self) if name != "df"}
        return replace(self, **copied)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in field_names(self)} | {"df": None}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.result._batch

    def _described(self) -> tuple[str, list[Block]]:
        n_groups = len(self) if self._batch else 1
        of = f"{counted(n_groups, 'group')}, D = {self.result.mixture.n_features}"
        fits = nw.from_native(self.fits, eager_only=True)
        blocks = []
        if self.models is not None:
            names = ("n_components", "covariance_type")
            answered = fits.filter(~nw.col(names[0]).is_null())
            blocks.append(chosen_models({name: answered[name].to_numpy() for name in names}, "group"))
        rows = [*numbers_of(self.result), *remarks(self.result, "group", ".result")]
        blocks += [statuses(self.result.status, "group"), Block(rows, is_kept=True)]
        tables = ", ".join(f".{name}" for name in ("fits", "components", "models") if getattr(self, name) is not None)
        blocks += [Block([[f"tables: {tables}"]]), *([written(self.notes)] if self.notes else [])]
        return f"GroupFits: {of}", blocks


def _part(table: Any, counts: np.ndarray, chosen: np.ndarray) -> Any:
    """The rows of some groups in a table that has `counts` rows of each."""
    frame = nw.from_native(table, eager_only=True)
    return nw.maybe_reset_index(frame[rows_within(counts, chosen), :]).to_native()
