"""Runs an exported model that is no language model: arrays in, arrays out, with skills. On the CPU, without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import bounded, show
from lime_edge.contract.model import ModelContract, read_contract
from lime_edge.contract.model_files import file_faults
from lime_edge.contract.names import BANK, GRAPH_FILE, PAST_EVIDENCE, SKILL_IDS
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError, ModelError, SkillMismatchError
from lime_edge.runtime.model.lifetime import refuse_fork
from lime_edge.runtime.model.load_errors import plain_reason
from lime_edge.runtime.model.session import SessionSettings, open_session
from lime_edge.runtime.skills.bank import Bank
from lime_edge.runtime.skills.registry import AppliedSkill, LoadConditions, Registry, check_limits
from lime_edge.skills.compatibility import LIMITS, check_skill
from lime_edge.trust.policy import TrustPolicy, as_policy, read_trusted_skill

from .types import ACTIVE, Active, SkillInfo, SkillSpec, SkillSpecs

Array = npt.NDArray[Any]

_OWN = (BANK, SKILL_IDS, PAST_EVIDENCE)
_DTYPES: dict[str, npt.DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class Module:
    """An exported model and the skills loaded into it. Safe to use from several threads.

    Create it with `Module.load`.
    """

    def __init__(
        self, directory: Path, contract: ModelContract, session: Any, limits: Mapping[Kind, float], trust: Any
    ) -> None:
        self.contract = contract  # the model's lime.json
        self._session, self._trust, self._process = session, trust, os.getpid()
        self._inputs = {value.name: value for value in session.get_inputs() if value.name not in _OWN}
        self._outputs = tuple(value.name for value in session.get_outputs())
        own = {value.name: value for value in session.get_overridable_initializers()}
        if faults := _faults(self._inputs, own, contract):
            raise ModelError(f"{directory / GRAPH_FILE} does not match its contract: export again", faults)
        self._limits = {**LIMITS, **limits}
        self._bank = Bank(contract.table.row_size, _DTYPES[own[BANK].type])
        self._skills = Registry(self._bank, contract.table, self._limits)

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        threads: int | None = None,
        max_value: Mapping[Kind, float] | None = None,
        verify: bool = False,
        operators: Path | Literal["auto"] | None = "auto",
        trust: TrustPolicy | str | os.PathLike[str] | None = None,
    ) -> Module:
        """Open a directory that `lime_edge.training.module_skills.export_module` wrote.

        Args:
            directory: Contains lime.json and model.onnx.
            threads, max_value, verify, operators, trust: As in `Runtime.load`.

        Raises:
            ModelError: Names every missing or changed file, or what the graph lacks.
            ConfigError: An argument is out of range, or the named library cannot be used.
            PolicyError: Names every fault of the trust policy.
        """
        settings = SessionSettings("cpu", threads, None, operators, None, verify)
        check_limits(max_value or {})
        policy, path = as_policy(trust), Path(directory)
        contract = read_contract(path)
        if faults := file_faults(path, contract, verify):
            raise ModelError(f"{path} is not a complete model", faults)
        return cls(path, contract, open_session(path / GRAPH_FILE, settings), max_value or {}, policy)

    @property
    def inputs(self) -> dict[str, tuple[npt.DTypeLike, tuple[int | str, ...]]]:
        """Type and shape of every input; a dimension that varies has a name."""
        return {name: (_DTYPES[value.type], tuple(value.shape)) for name, value in self._inputs.items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self._outputs

    def load_skill(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        replace: bool = False,
        allow_downgrade: bool = False,
        expected_generation: int | None = None,
    ) -> SkillInfo:
        """Load a skill package without disturbing running calls; arguments and errors as in `Runtime.load_skill`."""
        refuse_fork(self._process)
        trusted = read_trusted_skill(path, self._trust)
        skill = trusted.skill
        name = skill.name if name is None else name
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"the name {show(name)} cannot be used; expected printable text")
        conditions = LoadConditions(replace, expected_generation, self._trust is not None and not allow_downgrade)
        self._skills.admit(name, skill.manifest.version, conditions)
        check_skill(skill, self.contract, self._limits)
        if skill.manifest.activation != "always":
            raise SkillMismatchError(f"{path} applies to answers alone; expected a skill that is always active")
        segments = self.contract.table.pack(skill.tensors)  # [E or 1, segment]
        with self._bank.hold() as hold:
            row = hold.add(segments.ravel())
            info = SkillInfo.of(skill, name, False, trusted.signer)
            return self._skills.add(name, AppliedSkill(row, len(segments), parts=((info, 1.0),)), conditions)

    def use_skill(self, skill: SkillSpec) -> None:
        """Make a skill, a blend or the base (None) the default of calls; takes microseconds."""
        self._skills.activate(skill)

    @property
    def active_skill(self) -> SkillSpec:
        """The skill of calls without ``skill=`` in this thread or asyncio task; None is the base."""
        return self._skills.active

    def disable_skill(self) -> AbstractContextManager[None]:
        """In this context, calls of this thread or asyncio task without ``skill=`` use the base."""
        return self._skills.disabled()

    def skills(self) -> list[SkillInfo]:
        """The loaded skills, in loading order."""
        return self._skills.infos()

    def unload_skill(self, name: str, expected_generation: int | None = None) -> None:
        """Unload a skill; calls in flight finish with it. Errors as in `Runtime.unload_skill`."""
        self._skills.remove(name, expected_generation)

    def run(
        self,
        inputs: Mapping[str, npt.ArrayLike],
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Array]:
        """Run the model once.

        Args:
            inputs: All inputs by name; floats are converted to the input's type, as are whole numbers that fit.
            skill: For this call only: a name, a blend, None for the base, or a list with one for each row. Rows are
                the first dimension of what goes into the adapted modules. Default: the active skill.
            outputs: Names of the outputs to return; None: all.

        Raises:
            UnknownSkillError: A skill is not loaded.
            ConfigError: Names every input and output that is missing, unknown or of another shape or type.
        """
        refuse_fork(self._process)
        wanted = list(self._outputs if outputs is None else outputs)
        specs: Sequence[SkillSpec | Active] = skill if isinstance(skill, list) else [skill]
        given, faults = _converted(inputs, self._inputs)
        if unknown := [name for name in wanted if name not in self._outputs]:
            faults.append(f"unknown outputs {', '.join(map(show, unknown))}; known are {', '.join(self._outputs)}")
        if not specs:
            faults.append("the list of skills is empty; expected one for each row")
        if faults:
            raise ConfigError("the model cannot run", bounded(faults))
        with self._skills.lease(specs) as lease:
            ids = np.array([[applied.skill_id] for applied in lease.applied], np.int64)
            fed = given | {BANK: lease.array, SKILL_IDS: ids}
            try:
                found = self._session.run(wanted, fed)
            except Exception as error:  # onnxruntime's exceptions share no base below Exception
                rows = f" (with {len(specs)} skills, expected as many rows)" if len(specs) > 1 else ""
                raise ConfigError(f"the model cannot run on these inputs{rows}: {plain_reason(error)}") from error
        return dict(zip(wanted, found, strict=True))


def _faults(inputs: Mapping[str, Any], own: Mapping[str, Any], contract: ModelContract) -> list[str]:
    """What the graph lacks for skills, and inputs of types that no array has."""
    faults = [f"the input {name} is {value.type}" for name, value in inputs.items() if value.type not in _DTYPES]
    for name, shape in ((BANK, contract.table.row_size), (SKILL_IDS, None)):
        if name not in own:
            faults.append(f"the graph has no optional input {name}")
        elif shape is not None and own[name].shape[-1] != shape:
            faults.append(f"{name} has rows of {own[name].shape[-1]}; lime.json says {shape}")
    if BANK in own and own[BANK].type not in _DTYPES:
        faults.append(f"{BANK} is {own[BANK].type}")
    return faults


def _converted(inputs: Any, expected: Mapping[str, Any]) -> tuple[dict[str, Array], list[str]]:
    """The inputs as arrays of the graph's types, and everything that is wrong with them."""
    if not isinstance(inputs, Mapping):
        return {}, [f"inputs are {type(inputs).__name__}; expected arrays by name"]
    faults = [f"unknown input {show(name)}; known are {', '.join(expected)}" for name in inputs if name not in expected]
    arrays: dict[str, Array] = {}
    for name, value in expected.items():
        if name not in inputs:
            faults.append(f"the input {name} is missing")
            continue
        array, dtype = np.asarray(inputs[name]), np.dtype(_DTYPES[value.type])
        if not np.can_cast(array.dtype, dtype, "same_kind") or array.dtype.hasobject:
            faults.append(f"{name} holds {array.dtype}; expected {dtype}")
        elif not _fits(array.shape, value.shape):
            faults.append(f"{name} is {list(array.shape)}; expected {list(value.shape)}")
        else:
            arrays[name] = np.ascontiguousarray(array, dtype)
            if dtype.kind in "iu" and not np.array_equal(arrays[name], array):
                faults.append(f"{name} holds numbers that do not fit into {dtype}")
    return arrays, faults


def _fits(found: tuple[int, ...], expected: Sequence[int | str | None]) -> bool:
    return len(found) == len(expected) and all(
        size == other or not isinstance(other, int) for size, other in zip(found, expected, strict=True)
    )
