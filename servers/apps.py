from django.apps import AppConfig


class ServersConfig(AppConfig):
    name = "servers"
    verbose_name = "Servers"

    def ready(self) -> None:
        # Models must be there first.
        from . import jobs, keepers, signals  # noqa: F401
        from .rules import (  # noqa: F401
            attachment,
            client_network,
            client_region,
            factor,
            forward,
            host,
            link,
            mesh,
            outside_link,
            route,
            server,
            split_domain,
        )
