"""The errors a user can meet. Each message gives the rule, the value got, and what to type."""


class BatchscopeError(Exception):
    """Base of every error that Batchscope raises for a user's mistake or a user's machine."""


class StudyError(BatchscopeError, ValueError):
    """A study file, goal, search space or option that cannot be run as written."""


class WorkloadError(BatchscopeError, ValueError):
    """A workload that cannot be built: unknown name, wrong shapes, a function that does not return one."""


class DataError(BatchscopeError):
    """A data file that is missing or damaged."""


class ScheduleError(BatchscopeError, ValueError):
    """A learning-rate or batch-size schedule that cannot be built or compiled."""


class MeterError(BatchscopeError, ValueError):
    """A measurement of a model in training that cannot be made as asked."""


class StoreError(BatchscopeError):
    """A run folder that cannot be read or written."""


class ExecutionError(BatchscopeError):
    """A unit of work that failed on a worker for a reason other than divergence."""


class AnalysisError(BatchscopeError, ValueError):
    """A question that the measurements of a run cannot answer."""


class ProbeError(BatchscopeError):
    """A probe file that cannot be read, or a device on which nothing could be measured."""


class PredictionError(BatchscopeError):
    """A prediction that cannot be read, or for which the training says too little."""
