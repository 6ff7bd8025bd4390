//! Ports for a program that a test starts. A port that the kernel chose and that was closed again belongs to whoever asks
//! next: another socket of the same test, another test, or a connection to somewhere else. Ports below the kernel's own
//! range are given to nobody unasked, and each test that runs has a part of them to itself.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::TcpSocket;

/// The kernel chooses from 32768 on (`ip_local_port_range`).
const LOWEST: u16 = 20_000;
const PER_PART: u16 = 500;
const PARTS: u32 = 24;

static GIVEN: AtomicU16 = AtomicU16::new(0);

/// The first port of this test's part, and where in the part it begins. Tests that run at the same time have a number each
/// from the runner; tests after each other begin elsewhere, since connections that were closed hold a port for a minute.
fn part() -> (u16, u16) {
    let process = std::process::id();
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse().ok());
    let number = slot.unwrap_or(process) % PARTS;
    let begin = process.wrapping_mul(10) % u32::from(PER_PART);
    (LOWEST + u16::try_from(number).unwrap() * PER_PART, u16::try_from(begin).unwrap())
}

/// Whether a program that does not set `SO_REUSEADDR` could listen there.
fn is_free(address: SocketAddr) -> bool {
    TcpSocket::new_v4().unwrap().bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

/// An address of loopback that nothing listens at, and that no other call returns.
pub fn unused() -> SocketAddr {
    let (first, begin) = part();
    loop {
        let number = GIVEN.fetch_add(1, Ordering::Relaxed);
        assert!(number < PER_PART, "this test has used up its ports");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, first + (begin + number) % PER_PART));
        if is_free(address) {
            return address;
        }
    }
}
