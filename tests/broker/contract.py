"""What every broker does. An implementation binds this suite by subclassing it with a ``make_broker`` fixture."""

from tests.broker.contract_admission import AdmissionContract
from tests.broker.contract_base import MakeBroker
from tests.broker.contract_endings import EndingsContract
from tests.broker.contract_images import ImagesContract
from tests.broker.contract_jobs import JobsContract
from tests.broker.contract_readers import ReadersContract

__all__ = ["BrokerContract", "MakeBroker"]


class BrokerContract(JobsContract, EndingsContract, AdmissionContract, ImagesContract, ReadersContract):
    """The whole suite."""
