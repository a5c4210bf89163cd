"""The broker that the settings ask for."""

from broker.embedded import EmbeddedBroker
from broker.settings import BrokerSettings
from contracts.broker import Broker


async def open_broker(settings: BrokerSettings) -> Broker:
    """Redis if there is a URL, else inside this process. The caller closes it.

    A Redis server that cannot be reached is no error here: calls raise ``BrokerUnavailable`` until it can be.
    """
    if settings.redis_url is None:
        return EmbeddedBroker(settings.limits())
    from broker.redis.broker import RedisBroker  # takes a while to import, which the embedded broker need not

    return RedisBroker(settings)
