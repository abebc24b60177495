"""What is true of the kernel's WireGuard alone. ``tests/kernel/run`` runs it, inside a kernel that has WireGuard."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Backend, PeerChange, WireGuardError
from servers.hostnet.wireguard.choose import choose
from servers.hostnet.wireguard.fields import key_text
from servers.hostnet.wireguard.kernel import Kernel
from tests.host.wgfixtures import inside, interface, ip, make_peers, new_name, new_namespace
from tests.lab import HANGING

pytestmark = pytest.mark.host


@pytest.fixture
def backend() -> Iterator[Backend]:
    with new_namespace():
        yield Kernel()


def test_auto_takes_the_kernel_and_leaves_no_link_behind(backend: Backend) -> None:
    before = os.listdir("/sys/class/net")
    assert choose("auto").name == choose("kernel").name == "kernel"
    assert backend.list() == []
    assert os.listdir("/sys/class/net") == before


def test_a_link_of_another_kind_is_neither_taken_nor_removed(backend: Backend) -> None:
    name = new_name()
    ip("link", "add", name, "type", "veth")
    with pytest.raises(WireGuardError, match=f"{name}: a link of this name exists"):
        backend.create(name)
    backend.delete(name)
    assert backend.list() == []
    ip("link", "del", name)  # fails when it is gone


def test_interfaces_of_other_namespaces_are_not_seen(backend: Backend) -> None:
    with interface(backend) as name:
        with new_namespace():
            assert backend.list() == []
            backend.delete(name)
        assert backend.list() == [name]


def test_a_removed_interface_takes_many_peers_with_it(backend: Backend) -> None:
    name = new_name()
    backend.create(name)
    backend.set(name, private_key=keys.make_private(), peers=make_peers(5000))
    backend.delete(name)
    assert backend.list() == []


def test_thousand_requests_leave_no_descriptor_open(backend: Backend) -> None:
    with interface(backend) as name:
        backend.get(name)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            backend.get(name)
            backend.set(name, peers=make_peers(1))
            backend.list()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_device_changed_during_its_dump_is_read_again(backend: Backend) -> None:
    """Another writer keeps adding and removing one peer; the ones that stay are there in every single reading."""
    staying = make_peers(1500)
    with interface(backend) as name:
        backend.set(name, peers=staying)
        wanted = {peer.public_key for peer in staying}
        stop = threading.Event()
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        writer = threading.Thread(target=_churn, args=(backend, name, namespace, stop))
        writer.start()
        try:
            for _ in range(5):
                assert wanted <= set(backend.get(name).peers)
        finally:
            stop.set()
            writer.join(HANGING)
        os.close(namespace)


def test_no_private_key_reaches_the_log(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    private = keys.make_private()
    with caplog.at_level(logging.DEBUG), interface(backend) as name:
        backend.set(name, private_key=private)
        backend.get(name)
        with pytest.raises(WireGuardError) as raised:
            backend.set(new_name(), private_key=private)
    shown = caplog.text + repr(raised.value) + repr(raised.value.__cause__)
    for form in (repr(private)[2:-1], private.hex(), key_text(private), str(list(private))[1:-1]):
        assert form not in shown


def _churn(backend: Backend, name: str, namespace: int, stop: threading.Event) -> None:
    (peer,) = make_peers(1)
    with inside(namespace):
        while not stop.wait(0.05):
            backend.set(name, peers=[peer])
            backend.set(name, peers=[PeerChange(peer.public_key, remove=True)])
