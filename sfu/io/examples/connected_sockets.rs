//! What a datagram costs on its way to one of many connected sockets on one port: does the kernel find the socket
//! by hash (6.13 and newer) or by walking through them?
//!
//! `cargo run --release -p asamblea-sfu-io --example connected_sockets`
//!
//! Delivery is part of the send on loopback, so this times sends to a server port with 1, 10, 100 and 1,000 paths,
//! in turns, and compares the medians; the ratios mean something, the nanoseconds belong to the machine.

use asamblea_sfu_io::batch::{self, COALESCED_BYTES_MAX, Inbox};
use asamblea_sfu_io::path::PathSocket;
use asamblea_sfu_io::port;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Instant;

const PATHS: [usize; 4] = [1, 10, 100, 1_000];
const ROUNDS: usize = 41;
const SENDS_PER_ROUND: usize = 2_000;
/// Less than what any default receive buffer holds, so that none is dropped.
const UNREAD_MAX: usize = 50;

struct Scene {
    oldest: (UdpSocket, PathSocket),
    stranger: UdpSocket,
    listeners: Vec<socket2::Socket>,
    _others: Vec<(UdpSocket, PathSocket)>,
}

fn scene(paths: usize) -> Result<Scene, Box<dyn std::error::Error>> {
    let (port, listeners) = port::open("0.0.0.0:0".parse()?)?;
    let server = SocketAddr::new([127, 0, 0, 1].into(), port.port);
    let mut all = Vec::new();
    for _ in 0..paths {
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.connect(server)?;
        let path = PathSocket::open(&port, client.local_addr()?, Some(server.ip()))?;
        all.push((client, path));
    }
    let stranger = UdpSocket::bind("127.0.0.1:0")?;
    stranger.connect(server)?;
    // A walk through the sockets of a port starts at the newest: the oldest is the one it costs most to find.
    let oldest = all.swap_remove(0);
    Ok(Scene { oldest, stranger, listeners, _others: all })
}

/// Nanoseconds a datagram, and how many arrived.
fn round(from: &UdpSocket, to: &impl AsFd, inbox: &mut Inbox) -> Result<(f64, usize), std::io::Error> {
    let (mut spent, mut arrived) = (0, 0);
    for _ in 0..SENDS_PER_ROUND / UNREAD_MAX {
        let start = Instant::now();
        for _ in 0..UNREAD_MAX {
            from.send(&[7; 100])?;
        }
        spent += start.elapsed().as_nanos();
        while let Ok(count) = inbox.receive(to.as_fd()) {
            for index in 0..count {
                let message = inbox.message(index);
                arrived += message.data.len().div_ceil(message.segment_bytes);
            }
        }
    }
    Ok((spent as f64 / SENDS_PER_ROUND as f64, arrived))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    batch::raise_descriptor_limit()?;
    let scenes = PATHS.iter().map(|&paths| scene(paths)).collect::<Result<Vec<_>, _>>()?;
    let mut inbox = Inbox::new(64, COALESCED_BYTES_MAX);
    let mut to_path = vec![Vec::new(); PATHS.len()];
    let mut to_listener = vec![Vec::new(); PATHS.len()];
    for _ in 0..ROUNDS {
        for (index, scene) in scenes.iter().enumerate() {
            let (nanoseconds, arrived) = round(&scene.oldest.0, &scene.oldest.1, &mut inbox)?;
            assert_eq!(arrived, SENDS_PER_ROUND, "the path heard all of its own");
            to_path[index].push(nanoseconds);
            let (nanoseconds, arrived) = round(&scene.stranger, &scene.listeners[0], &mut inbox)?;
            assert_eq!(arrived, SENDS_PER_ROUND, "the listener heard every stranger");
            to_listener[index].push(nanoseconds);
        }
    }
    let to_path: Vec<_> = to_path.into_iter().map(median).collect();
    let to_listener: Vec<_> = to_listener.into_iter().map(median).collect();
    println!("paths   to the oldest path       to the listener");
    for (index, paths) in PATHS.iter().enumerate() {
        let (path, listener) = (to_path[index], to_listener[index]);
        println!(
            "{paths:>5}   {path:>6.0} ns ({:>5.2} x)      {listener:>6.0} ns ({:>5.2} x)",
            path / to_path[0],
            listener / to_listener[0]
        );
    }
    Ok(())
}
